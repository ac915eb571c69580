/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * epoll tells of what is ready by turns: where more is ready, and stays so, than one call
 * has room for, further calls tell of the rest before they tell anything again; so after
 * as many events as there were fds all has been told. What becomes ready meanwhile comes
 * after it.
 *
 * worker relies on it for idle connections, which end although there is more to be told
 * at every call. Source: ep_send_events() and ep_done_scan() in fs/eventpoll.c.
 */

#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "check.h"

#define N_FDS 100
#define N_AT_ONCE 7

static int fds[N_FDS + 1];

static void add(int epoll_fd, int i, uint64_t value)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};

	fds[i] = must(eventfd((unsigned)value, EFD_CLOEXEC), "eventfd");
	(void)must(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fds[i], &event), "EPOLL_CTL_ADD");
}

/* Whether the next n events are of as many fds. */
static bool tells_each_once(int epoll_fd, int n)
{
	bool was_told[N_FDS + 1] = {false};

	while (n > 0) {
		struct epoll_event events[N_AT_ONCE];
		int n_told = must(epoll_wait(epoll_fd, events,
					     n < N_AT_ONCE ? n : N_AT_ONCE, 0),
				  "epoll_wait");

		for (int i = 0; i < n_told; i++) {
			if (was_told[events[i].data.u32])
				return false;
			was_told[events[i].data.u32] = true;
		}
		n -= n_told;
	}
	return true;
}

static void new_ones_come_last(int epoll_fd)
{
	struct epoll_event event;
	bool was_last = true;

	(void)must(epoll_wait(epoll_fd, &event, 1, 0), "epoll_wait");
	(void)must(eventfd_write(fds[N_FDS], 1), "eventfd_write");
	for (int i = 0; i < N_FDS; i++) {
		(void)must(epoll_wait(epoll_fd, &event, 1, 0), "epoll_wait");
		was_last = was_last && event.data.u32 != N_FDS;
	}
	(void)must(epoll_wait(epoll_fd, &event, 1, 0), "epoll_wait");
	check(was_last && event.data.u32 == N_FDS,
	      "what becomes ready meanwhile comes after those that were");
}

int main(void)
{
	int epoll_fd = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");

	check_begin();
	for (int i = 0; i < N_FDS; i++)
		add(epoll_fd, i, 1);
	add(epoll_fd, N_FDS, 0);
	check(tells_each_once(epoll_fd, N_FDS), "all are told before one is told again");
	check(tells_each_once(epoll_fd, N_FDS), "and so they are the next time");
	new_ones_come_last(epoll_fd);
	return check_end();
}
