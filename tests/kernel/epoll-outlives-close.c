/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * An epoll registration belongs to the open file, and a parcel keeps the file open: after
 * close() the events go on, for an fd number that is closed or already someone else's,
 * and cannot be stopped any more. EPOLL_CTL_DEL before close() is what ends it.
 *
 * worker relies on it: EPOLL_CTL_DEL before every close.
 * Source: Questions and answers in epoll(7); eventpoll_release() in fs/eventpoll.c.
 */

#include <sys/epoll.h>

#include "check.h"

static int in, out; /* the parcel's two ends */

static void parked_and_watched(int epoll_fd, int *ret_ours, int *ret_peer)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = 42};

	tcp_pair(ret_ours, ret_peer);
	require(message_put(in, 1, ret_ours, 1) == 24, "put");
	(void)must(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, *ret_ours, &event),
		   "EPOLL_CTL_ADD");
}

static void close_alone(void)
{
	int ours, peer, epoll_fd = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
	struct epoll_event event = {0};
	struct message message = {0};

	parked_and_watched(epoll_fd, &ours, &peer);
	(void)close(ours);
	(void)must(send(peer, "x", 1, 0), "send");
	check_equal(outcome(epoll_wait(epoll_fd, &event, 1, CHECK_PATIENCE_MSEC)), 1,
		    "close alone: the event still comes");
	check_equal((long long)event.data.u64, 42, "close alone: with its old data");
	check_equal(outcome(epoll_ctl(epoll_fd, EPOLL_CTL_DEL, ours, NULL)), -EBADF,
		    "close alone: it is too late for EPOLL_CTL_DEL");

	/* the parcel is the last that holds the file */
	require(message_get(out, 0, &message) == 24, "get");
	message_close_fds(&message);
	check_equal(outcome(epoll_wait(epoll_fd, &event, 1, 0)), 0,
		    "close alone: the last copy gone ends it");
}

static void removed_before_close(void)
{
	int ours, peer, epoll_fd = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
	struct epoll_event event = {0};
	struct message message = {0};

	parked_and_watched(epoll_fd, &ours, &peer);
	check_equal(outcome(epoll_ctl(epoll_fd, EPOLL_CTL_DEL, ours, NULL)), 0,
		    "removed: EPOLL_CTL_DEL before close");
	(void)close(ours);
	(void)must(send(peer, "x", 1, 0), "send");
	check(message_peek(out, &message) == 24 &&
		      wait_for(message.fds[0], POLLIN) == POLLIN,
	      "removed: the byte is there");
	check_equal(outcome(epoll_wait(epoll_fd, &event, 1, 0)), 0, "removed: no event");
}

int main(void)
{
	check_begin();
	unix_pair(SOCK_SEQPACKET, &in, &out);
	close_alone();
	removed_before_close();
	return check_end();
}
