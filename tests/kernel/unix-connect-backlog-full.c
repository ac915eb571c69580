/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A non-blocking connect() to an AF_UNIX stream listener whose backlog is full is EAGAIN,
 * never EINPROGRESS, and no event tells when to try again: the socket is POLLOUT|POLLHUP
 * as any unconnected one. The same socket can try again and succeed.
 *
 * relay relies on it: it tries again by a timer.
 * Source: unix_stream_connect(), unix_poll() in net/unix/af_unix.c; connect(2).
 */

#include "check.h"

static struct sockaddr_un address = {.sun_family = AF_UNIX};
static socklen_t address_size = sizeof(sa_family_t);

static int unix_listen(void)
{
	int fd = must(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");

	/* an abstract address: the kernel picks the name and nothing stays behind */
	(void)must(bind(fd, (const struct sockaddr *)&address, address_size), "bind");
	(void)must(listen(fd, 0), "listen");
	address_size = sizeof(address);
	(void)must(getsockname(fd, (struct sockaddr *)&address, &address_size),
		   "getsockname");
	return fd;
}

static int unix_socket(void)
{
	return must(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
		    "socket");
}

static long unix_connect(int fd)
{
	return outcome(connect(fd, (const struct sockaddr *)&address, address_size));
}

int main(void)
{
	int listener, fd, accepted;
	long r = 0;

	check_begin();
	listener = unix_listen();
	for (int i = 0; i < 100 && r == 0; i++) {
		fd = unix_socket();
		r = unix_connect(fd);
	}
	check_equal(r, -EAGAIN, "with the backlog full connect is EAGAIN");
	check_equal(unix_connect(fd), -EAGAIN, "and EAGAIN again");
	check_equal(get_option(fd, SOL_SOCKET, SO_ERROR), 0, "SO_ERROR is 0");
	check_equal(events_now(fd, POLLIN | POLLOUT), POLLOUT | POLLHUP,
		    "the socket is POLLOUT and POLLHUP");
	accepted = must(accept4(listener, NULL, NULL, SOCK_CLOEXEC), "accept4");
	check_equal(events_now(fd, POLLIN | POLLOUT), POLLOUT | POLLHUP,
		    "and the same with room in the backlog");
	check_equal(unix_connect(fd), 0, "the same socket connects then");
	check_equal(events_now(fd, POLLIN | POLLOUT), POLLOUT, "and is POLLOUT alone");
	(void)close(accepted);
	(void)close(listener);
	check_equal(unix_connect(unix_socket()), -ECONNREFUSED,
		    "without a listener it is ECONNREFUSED");
	return check_end();
}
