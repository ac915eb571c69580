/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the keeper is told by its service. See message.h for what that may be. */
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "keeper/keeper-private.h"
#include "keeper/say.h"

/* More messages than can be waiting; a flood must not keep us from the children. */
#define DRAIN_MAX 4096

static void keeper_store_fds(struct keeper *self, const struct message *message,
			     struct notification *notification)
{
	const char *name = message->fd_name ? message->fd_name : FD_NAME_DEFAULT;
	size_t i, n_refused = 0;
	int r, reason = 0;

	for (i = 0; i < notification->n_fds; i++) {
		r = store_put(&self->store, take_fd(&notification->fds[i]), name,
			      !message->is_poll_off);
		if (r < 0) {
			reason = r;
			n_refused++;
		}
	}
	if (reason == -EXFULL)
		say_line(LOG_WARNING,
			 "refused %zu fds named \"%s\": the store is full with %zu",
			 n_refused, name, self->store.n_fds);
	else if (reason == -E2BIG)
		say_line(LOG_WARNING,
			 "refused %zu fds: their names do not fit $LISTEN_FDNAMES",
			 n_refused);
	else if (reason < 0)
		say_line(LOG_WARNING, "refused %zu fds named \"%s\": %s", n_refused, name,
			 strerror(-reason));
}

/*
 * The end of a process whose parent is not us gives no SIGCHLD before that parent ends,
 * too. Where there are no pidfds (before Linux 5.3), that has to do.
 */
static void keeper_watch_main(struct keeper *self, pid_t pid)
{
	_cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	self->main_end = sd_event_source_disable_unref(self->main_end);
	if (fd < 0 || sd_event_add_io(self->event, &self->main_end, fd, EPOLLIN,
				      keeper_on_main_end, self) < 0)
		return;
	(void)sd_event_source_set_io_fd_own(self->main_end,
					    true); /* fails for no fd only */
	(void)take_fd(&fd);
	/* it stays readable; and we can do without it */
	(void)sd_event_source_set_enabled(self->main_end, SD_EVENT_ONESHOT);
}

static void keeper_take_main_pid(struct keeper *self, pid_t pid)
{
	pid_t old_pid = self->service.main_pid;

	if (pid == old_pid)
		return;
	if (service_move(&self->service, pid) < 0) {
		say_line(LOG_WARNING,
			 "refused MAINPID=%d: no living process of the service",
			 (int)pid);
		return;
	}
	say_line(LOG_INFO, "main process is now pid %d, after pid %d", (int)pid,
		 (int)old_pid);
	keeper_watch_main(self, pid);
	/* the old one was told to end, the new one was not */
	if (self->options->restart.is_leaving || self->options->restart.is_asked)
		service_signal(&self->service, SIGTERM);
}

static void keeper_take_watchdog(struct keeper *self, const struct message *message)
{
	if (message->has_watchdog_usec)
		self->watchdog_usec = message->watchdog_usec;
	if (self->phase != KEEPER_RUNNING)
		return;
	if (message->watchdog == MESSAGE_WATCHDOG_TRIGGER) {
		say_line(LOG_ERR, "pid %d triggered its watchdog: SIGABRT",
			 (int)self->service.main_pid);
		keeper_stop_service(self, SIGABRT);
	} else if (message->watchdog == MESSAGE_WATCHDOG_ALIVE ||
		   message->has_watchdog_usec || message->main_pid) {
		keeper_enter_running(self);
	}
}

static void keeper_take_state(struct keeper *self, const struct message *message)
{
	int pid = (int)self->service.main_pid;

	if (message->malformed)
		say_line(LOG_WARNING, "ignored \"%s\": not a valid value",
			 message->malformed);
	if (message->status)
		say_line(LOG_DEBUG, "pid %d: %s", pid, message->status);
	if (message->is_ready)
		say_line(LOG_DEBUG, "pid %d is ready", pid);
	if (message->is_stopping && self->phase == KEEPER_RUNNING)
		keeper_stop_service(self, 0);
}

static void keeper_take_message(struct keeper *self, const struct message *message,
				struct notification *notification)
{
	/* closing its fd, which the caller does, is the whole answer; anyone may ask */
	if (message->is_barrier) {
		if (message->n_assignments != 1 || notification->n_fds != 1)
			say_line(LOG_WARNING,
				 "ignored BARRIER=1 of pid %d: not alone with one fd",
				 (int)notification->sender.pid);
		return;
	}
	if (!service_is_main(&self->service, notification->sender.pid)) {
		say_line(LOG_WARNING,
			 "refused a message of pid %d: not the main process (%d)",
			 (int)notification->sender.pid, (int)self->service.main_pid);
		return;
	}
	if (message->main_pid)
		keeper_take_main_pid(self, message->main_pid);
	keeper_take_state(self, message);
	keeper_take_watchdog(self, message);
	if (message->is_store_remove) {
		if (!message->fd_name)
			say_line(LOG_WARNING,
				 "ignored FDSTOREREMOVE=1 without a valid FDNAME=");
		else
			(void)store_remove(&self->store, message->fd_name); /* if any */
	} else if (message->is_store) {
		keeper_store_fds(self, message, notification);
	}
}

void keeper_drain(struct keeper *self)
{
	struct notification notification;
	struct message message;
	int i, r;

	for (i = 0; i < DRAIN_MAX; i++) {
		r = notify_socket_receive(&self->notify, &notification);
		if (r == -EINTR)
			continue;
		if (r == -EBADMSG) {
			say_line(LOG_WARNING,
				 "refused a message that was cut short (of pid %d)",
				 (int)notification.sender.pid);
			continue;
		}
		if (r < 0) /* empty, or a want of memory that will not last */
			return;
		if (message_parse(notification.text, notification.text_size, &message) <
		    0)
			say_line(LOG_WARNING, "refused a message of pid %d: not text",
				 (int)notification.sender.pid);
		else
			keeper_take_message(self, &message, &notification);
		notification_done(&notification);
	}
}
