/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the new process of a takeover hears of the old one once it serves itself. */
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/leisure.h"
#include "base/time.h"
#include "holdfastd/successor-private.h"
#include "holdfastd/worker.h"

/* The old process has gone, or takes too long. */
static void unite_cpus(struct successor *successor)
{
	successor->source = sd_event_source_disable_unref(successor->source);
	successor->timer = sd_event_source_disable_unref(successor->timer);
	successor->old_fd = fd_close(successor->old_fd);
	worker_set_cpus_all(successor->shared, &successor->cpus.all);
}

static int on_gone(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void)source, (void)fd, (void)events;
	unite_cpus(userdata);
	return 0;
}

static int on_late(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source, (void)usec;
	unite_cpus(userdata);
	return 0;
}

static int watch_end(struct successor *successor, sd_event *event)
{
	int r;

	successor->old_fd = (int)syscall(SYS_pidfd_open, (pid_t)successor->old_pid, 0);
	if (successor->old_fd < 0)
		return -errno;
	r = sd_event_add_io(event, &successor->source, successor->old_fd, EPOLLIN,
			    on_gone, successor);
	if (r < 0)
		return r;
	return sd_event_add_time_relative(event, &successor->timer, CLOCK_MONOTONIC,
					  SUCCESSOR_MAKES_WAY_USEC_MAX, 0, on_late,
					  successor);
}

/*
 * The old process ends now, with all its threads on the CPU on which this one got ready:
 * it closes its sockets, some 15 us each, and as it exits the kernel frees what it had for
 * some ms, in pieces that nobody gets between.
 */
static int on_farewell(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct successor *successor = userdata;
	sd_event *event = sd_event_source_get_event(source);

	(void)events;
	successor->source = sd_event_source_disable_unref(source);
	worker_set_cpus_all(successor->shared, &successor->cpus.rest);
	if (watch_end(successor, event) < 0)
		unite_cpus(successor);
	/* It waits for that */
	successor->socket = fd_close(fd);
	return 0;
}

static int watch_farewell(struct successor *successor, sd_event *event)
{
	if (!leisure_get_cpus(&successor->cpus))
		return -ENOTSUP;
	return sd_event_add_io(event, &successor->source, successor->socket, EPOLLIN,
			       on_farewell, successor);
}

static int on_release(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct successor *successor = userdata;
	sd_event *event = sd_event_source_get_event(source);
	struct handover message;
	int fds[HANDOVER_FDS_MAX], r;
	bool is_heard;

	(void)events;
	r = handover_receive(fd, 0, &message, fds);
	if (r == -ETIME)
		return 0;
	if (r == HANDOVER_MESSAGE)
		handover_close_fds(&message, fds);
	is_heard = r == HANDOVER_MESSAGE && message.type == HANDOVER_RELEASED;
	successor->source = sd_event_source_disable_unref(successor->source);
	if (!is_heard || watch_farewell(successor, event) < 0)
		successor->socket = fd_close(successor->socket);
	return successor->released(successor->userdata, is_heard);
}

int successor_watch_release(struct successor *successor, sd_event *event,
			    int (*released)(void *userdata, bool is_heard),
			    void *userdata)
{
	successor->released = released;
	successor->userdata = userdata;
	return sd_event_add_io(event, &successor->source, successor->socket, EPOLLIN,
			       on_release, successor);
}
