/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What load-client talks to, directly or through a relay: what comes over a connection
 * whose first byte is LOAD_BULK is counted, and when all of these are quiet, answered
 * with the count (uint64_t); any other is echoed. Not at its end, since not every relay
 * leaves the other direction open then. Does as little as can be: it shares the CPUs with
 * what is measured. run starts it.
 */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "limits.h"
#include "listen.h"
#include "load.h"

#define EVENTS_MAX 64
#define ECHO_SIZE 65536
/* Bytes of a bulk connection that are taken at once */
#define BULK_SIZE (1 << 20)
/* How long it takes for no news to be quiet */
#define QUIET_MSEC 10

enum kind { KIND_UNKNOWN, KIND_ECHO, KIND_BULK };

struct served {
	enum kind kind;
	uint64_t n_bytes;
	uint64_t n_told; /* as of the last answer */
};

static struct served *served_by_fd;
static size_t n_served;
static size_t n_bulk;
static uint64_t bulk_usec; /* when the last bytes of one of these came */

static int watch(int epoll_fd, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* Makes room for a connection of that number. */
static int make_room(int fd)
{
	size_t n = (size_t)fd + 1;

	if (n > n_served) {
		struct served *larger =
			reallocarray(served_by_fd, 2 * n, sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		served_by_fd = larger;
		n_served = 2 * n;
	}
	served_by_fd[fd] = (struct served){0};
	return 0;
}

static int accept_all(int epoll_fd, int listener)
{
	for (;;) {
		const int on = 1;
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		int r;

		if (fd < 0)
			return errno == EAGAIN || errno == ECONNABORTED ? 0 : -errno;
		r = make_room(fd);
		if (r == 0)
			r = watch(epoll_fd, fd);
		if (r < 0)
			return r;
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	}
}

/* Each returns a count of bytes as recv() does. */

static ssize_t serve_bulk(int fd, struct served *served)
{
	/* MSG_TRUNC: TCP throws the bytes away and copies none (tcp(7)) */
	ssize_t n = recv(fd, NULL, BULK_SIZE, MSG_TRUNC | MSG_DONTWAIT);

	if (n > 0) {
		served->n_bytes += (uint64_t)n;
		bulk_usec = time_now_usec();
	}
	return n;
}

static void tell_counts(void)
{
	for (size_t i = 0; i < n_served; i++) {
		struct served *served = &served_by_fd[i];

		if (served->kind != KIND_BULK || served->n_told == served->n_bytes)
			continue;
		served->n_told = served->n_bytes;
		/* One who has gone does not want it */
		(void)send((int)i, &served->n_told, sizeof(served->n_told), MSG_NOSIGNAL);
	}
}

static ssize_t serve_echo(int fd)
{
	static char bytes[ECHO_SIZE];
	ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	/* Blocks only while the client, who waits for it, reads */
	if (n > 0 && send(fd, bytes, (size_t)n, MSG_NOSIGNAL) != n)
		return 0;
	return n;
}

static void serve(int fd)
{
	struct served *served = &served_by_fd[fd];
	char first;
	ssize_t n;

	if (served->kind == KIND_UNKNOWN &&
	    recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
		served->kind = first == LOAD_BULK ? KIND_BULK : KIND_ECHO;
		n_bulk += served->kind == KIND_BULK;
	}
	n = served->kind == KIND_BULK ? serve_bulk(fd, served) : serve_echo(fd);
	if (n > 0 || (n < 0 && errno == EAGAIN))
		return;
	n_bulk -= served->kind == KIND_BULK;
	served->kind = KIND_UNKNOWN;
	(void)fd_close(fd);
}

static int serve_all(int epoll_fd, int listener)
{
	struct epoll_event events[EVENTS_MAX];
	int r = watch(epoll_fd, listener);

	while (r >= 0) {
		int n = epoll_wait(epoll_fd, events, EVENTS_MAX,
				   n_bulk > 0 ? QUIET_MSEC : -1);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n_bulk > 0 &&
		    time_now_usec() - bulk_usec >= QUIET_MSEC * USEC_PER_MSEC)
			tell_counts();
		for (int i = 0; i < n && r >= 0; i++)
			if (events[i].data.fd == listener)
				r = accept_all(epoll_fd, listener);
			else
				serve(events[i].data.fd);
	}
	return r;
}

int main(int argc, char *argv[])
{
	_cleanup_close_ int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	_cleanup_close_ int listener = -EBADF;
	int r = epoll_fd < 0 ? -errno : 0;

	if (argc != 2) {
		(void)fputs("load-server HOST:PORT: see load-server.c\n", stderr);
		return 2;
	}
	limits_raise();
	if (r == 0)
		r = listen_at(argv[1], &listener);
	if (r == 0)
		r = serve_all(epoll_fd, listener);
	(void)fprintf(stderr, "load-server: %s\n", strerror(-r));
	return EXIT_FAILURE;
}
