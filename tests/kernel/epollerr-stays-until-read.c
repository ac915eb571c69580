/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Being told of an error does not take it: after an RST, epoll and poll report EPOLLERR
 * again and again until a read, a write or SO_ERROR consumes the error. Afterwards a
 * splice from the socket gives 0, as if the stream had ended in order, and EPOLLHUP
 * stays. So who consumes the error must remember that there was one (or ask TCP_INFO).
 *
 * worker and flow rely on it: an adopting process sees the error that the last one was
 * told of and did not come to read.
 * Source: tcp_poll(), sock_error(), tcp_splice_read() in the kernel.
 */

#include <sys/epoll.h>

#include "check.h"

static uint32_t epoll_events_now(int epoll_fd)
{
	struct epoll_event event = {0};

	(void)must(epoll_wait(epoll_fd, &event, 1, 0), "epoll_wait");
	return event.events;
}

static int watch(int fd)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP};
	int epoll_fd = must(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");

	(void)must(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), "EPOLL_CTL_ADD");
	return epoll_fd;
}

static int reset_pair(void)
{
	int ours, peer;

	tcp_pair(&ours, &peer);
	(void)must(send_reset(peer), "reset");
	require(wait_for(ours, 0) & POLLERR, "the RST arrived");
	return ours;
}

static void check_consumed(int epoll_fd, int fd, const char *sentence)
{
	const uint32_t end = EPOLLIN | EPOLLRDHUP | EPOLLHUP;

	check_equal(epoll_events_now(epoll_fd), end, sentence);
	check_equal(move_bytes(fd, pipe_of_one_fd(), 100), 0,
		    "and splice from the socket gives 0");
}

static void error_is_reported_until_consumed(void)
{
	const uint32_t all = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR;
	int fd = reset_pair();
	int epoll_fd = watch(fd);
	bool repeated = true;

	for (int i = 0; i < 100; i++)
		repeated = repeated && epoll_events_now(epoll_fd) == all;
	check(repeated, "epoll reports IN, RDHUP, HUP and ERR 100 times");
	check_equal(events_now(fd, POLLIN), POLLIN | POLLHUP | POLLERR, "poll agrees");
	check_equal(epoll_events_now(watch(fd)), all, "a new epoll set is told as well");
	check_equal(tcp_info(fd).tcpi_state, TCP_STATE_CLOSE, "TCP_INFO shows CLOSE");
	check_equal(epoll_events_now(epoll_fd), all, "and takes no error");

	check_equal(move_bytes(fd, pipe_of_one_fd(), 100), -ECONNRESET,
		    "splice from the socket gives the error");
	check_consumed(epoll_fd, fd, "that took it: IN, RDHUP and HUP stay");
}

static void read_consumes(void)
{
	int fd = reset_pair();
	int epoll_fd = watch(fd);

	check_equal(outcome(recv(fd, (char[1]){0}, 1, 0)), -ECONNRESET,
		    "recv gives the error");
	check_consumed(epoll_fd, fd, "recv takes the error");
}

static void peek_consumes(void)
{
	int fd = reset_pair();
	int epoll_fd = watch(fd);

	check_equal(outcome(recv(fd, (char[1]){0}, 1, MSG_PEEK)), -ECONNRESET,
		    "recv with MSG_PEEK gives the error");
	check_consumed(epoll_fd, fd, "even a peek takes the error");
}

static void write_consumes(void)
{
	int fd = reset_pair();
	int epoll_fd = watch(fd);

	check_equal(outcome(send(fd, "x", 1, MSG_NOSIGNAL)), -ECONNRESET,
		    "send gives the error");
	check_consumed(epoll_fd, fd, "send takes the error");
	check_equal(outcome(send(fd, "x", 1, MSG_NOSIGNAL)), -EPIPE,
		    "the next send gives EPIPE");
}

static void so_error_consumes(void)
{
	int fd = reset_pair();
	int epoll_fd = watch(fd);

	check_equal(get_option(fd, SOL_SOCKET, SO_ERROR), ECONNRESET,
		    "SO_ERROR gives the error");
	check_consumed(epoll_fd, fd, "SO_ERROR takes the error");
	check_equal(get_option(fd, SOL_SOCKET, SO_ERROR), 0,
		    "SO_ERROR is 0 the next time");
}

static void shutdown_does_not_consume(void)
{
	int fd = reset_pair();
	int epoll_fd = watch(fd);

	check_equal(outcome(shutdown(fd, SHUT_WR)), -ENOTCONN,
		    "shutdown after an RST is ENOTCONN");
	check(epoll_events_now(epoll_fd) & EPOLLERR, "and takes no error");
}

int main(void)
{
	check_begin();
	error_is_reported_until_consumed();
	read_consumes();
	peek_consumes();
	write_consumes();
	so_error_consumes();
	shutdown_does_not_consume();
	return check_end();
}
