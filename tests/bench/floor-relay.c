/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The least that a relay in one thread can do: epoll_wait(2), and two system calls for
 * what has come, recv(2) and send(2) or splice(2) and splice(2). It protects nothing,
 * logs nothing, knows no timeouts and no resets. What it takes of a processor is the
 * kernel's, and the floor for any relay of its kind: run shows it beside the others.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "argument.h"
#include "base/fd.h"
#include "limits.h"
#include "listen.h"

#define EVENTS_MAX 256
/* The size of socket-proxyd's pipes, which are the best for bulk that is known of */
#define HELD_MAX (256 * 1024)

struct side {
	struct pair *pair;
	int fd;
	uint32_t events; /* that epoll waits for */
};

/* What of one direction has been read and not been written. */
struct half {
	struct held *held; /* borrowed; NULL while there is nothing */
	bool has_ended;
};

/* Half i goes from side i to the other one. */
struct pair {
	struct side sides[2];
	struct half halves[2];
	struct pair *next_closed;
};

/* A place for bytes: a pipe or memory. */
struct held {
	struct held *next_free;
	size_t n; /* bytes held */
	int pipe[2];
	char *begin;
	char bytes[];
};

static bool splices;
static struct held *free_held;
static struct pair *closed;
static struct sockaddr_storage upstream;
static socklen_t upstream_bytes;

static struct held *borrow(void)
{
	struct held *held = free_held;

	if (held) {
		free_held = held->next_free;
		return held;
	}
	held = malloc(sizeof(*held) + (splices ? 0 : HELD_MAX));
	if (held && splices) {
		if (pipe2(held->pipe, O_CLOEXEC | O_NONBLOCK) < 0) {
			free(held);
			return NULL;
		}
		(void)fcntl(held->pipe[0], F_SETPIPE_SZ, HELD_MAX);
	}
	if (held)
		held->n = 0;
	return held;
}

static void give_back(struct half *half)
{
	if (!half->held || half->held->n > 0)
		return;
	half->held->next_free = free_held;
	free_held = half->held;
	half->held = NULL;
}

static ssize_t fill(struct held *held, int fd)
{
	ssize_t n;

	if (splices) {
		n = splice(fd, NULL, held->pipe[1], NULL, HELD_MAX,
			   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	} else {
		n = recv(fd, held->bytes, HELD_MAX, MSG_DONTWAIT);
		held->begin = held->bytes;
	}
	if (n > 0)
		held->n = (size_t)n;
	return n;
}

static ssize_t drain(struct held *held, int fd)
{
	ssize_t n;

	if (splices) {
		n = splice(held->pipe[0], NULL, fd, NULL, held->n,
			   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	} else {
		n = send(fd, held->begin, held->n, MSG_DONTWAIT | MSG_NOSIGNAL);
		held->begin += n > 0 ? n : 0;
	}
	if (n > 0)
		held->n -= (size_t)n;
	return n;
}

/* Returns 0, or a negative errno where the pair is to be given up. */
static int move(struct half *half, int source, int sink)
{
	while (!half->has_ended) {
		ssize_t n = 1;

		if (!half->held)
			half->held = borrow();
		if (!half->held)
			return -ENOMEM;
		if (half->held->n == 0) {
			n = fill(half->held, source);
			if (n == 0) {
				half->has_ended = true;
				(void)shutdown(sink, SHUT_WR);
			}
		}
		if (n > 0)
			n = drain(half->held, sink);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		/* Less than would fit was all there is; if not, epoll will tell */
		if (n < HELD_MAX)
			break;
	}
	give_back(half);
	return 0;
}

static int watch(int epoll_fd, struct side *side, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = side};
	int operation = side->events == UINT32_MAX ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;

	if (side->events == events)
		return 0;
	side->events = events;
	return epoll_ctl(epoll_fd, operation, side->fd, &event) < 0 ? -errno : 0;
}

static int watch_both(int epoll_fd, struct pair *pair)
{
	int r = 0;

	for (int i = 0; i < 2 && r == 0; i++) {
		const struct half *out = &pair->halves[i], *into = &pair->halves[!i];

		r = watch(epoll_fd, &pair->sides[i],
			  (out->has_ended || out->held ? 0u : EPOLLIN) |
				  (into->held ? EPOLLOUT : 0u));
	}
	return r;
}

/* Its memory stays: events that have been told may name it. What a lost pair's pipe held
 * is lost too, and so is the pipe. */
static void close_pair(struct pair *pair)
{
	for (int i = 0; i < 2; i++)
		pair->sides[i].fd = fd_close(pair->sides[i].fd);
	pair->next_closed = closed;
	closed = pair;
}

static void free_closed(void)
{
	struct pair *pair;

	while ((pair = closed)) {
		closed = pair->next_closed;
		free(pair);
	}
}

static void serve(int epoll_fd, const struct side *side)
{
	struct pair *pair = side->pair;
	int r = 0;

	if (side->fd < 0)
		return;
	for (int i = 0; i < 2 && r == 0; i++)
		if (side == &pair->sides[i] || pair->halves[i].held)
			r = move(&pair->halves[i], pair->sides[i].fd, pair->sides[!i].fd);
	if (r == 0 && !(pair->halves[0].has_ended && pair->halves[1].has_ended))
		r = watch_both(epoll_fd, pair);
	else
		r = -ENOTCONN;
	if (r < 0)
		close_pair(pair);
}

static void set_nodelay(int fd)
{
	const int on = 1;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static int open_pair(int epoll_fd, int client)
{
	struct pair *pair = calloc(1, sizeof(*pair));
	int fd;

	if (!pair)
		return -ENOMEM;
	fd = socket(upstream.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	pair->sides[0] = (struct side){pair, client, UINT32_MAX};
	pair->sides[1] = (struct side){pair, fd, UINT32_MAX};
	if (fd < 0)
		goto fail;
	set_nodelay(client);
	set_nodelay(fd);
	if (connect(fd, (struct sockaddr *)&upstream, upstream_bytes) < 0 &&
	    errno != EINPROGRESS)
		goto fail;
	if (watch_both(epoll_fd, pair) < 0)
		goto fail;
	return 0;
fail:
	close_pair(pair);
	return -errno;
}

static int serve_all(int epoll_fd, int listener)
{
	struct epoll_event events[EVENTS_MAX];
	struct epoll_event listening = {.events = EPOLLIN};

	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &listening) < 0)
		return -errno;
	for (;;) {
		int n = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			int client;

			if (events[i].data.ptr) {
				serve(epoll_fd, events[i].data.ptr);
				continue;
			}
			client = accept4(listener, NULL, NULL,
					 SOCK_NONBLOCK | SOCK_CLOEXEC);
			if (client >= 0)
				(void)open_pair(epoll_fd, client);
		}
		free_closed();
	}
}

int main(int argc, char *argv[])
{
	_cleanup_close_ int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	_cleanup_close_ int listener = -EBADF;
	int r = epoll_fd < 0 ? -errno : 0;

	if (argc != 4 ||
	    (strcmp(argv[3], "copy") != 0 && strcmp(argv[3], "splice") != 0)) {
		(void)fputs("floor-relay HOST:PORT UPSTREAM copy|splice: see floor-relay.c\n",
			    stderr);
		return 2;
	}
	splices = strcmp(argv[3], "splice") == 0;
	limits_raise();
	if (r == 0)
		r = argument_parse_address(argv[2], &upstream, &upstream_bytes);
	if (r == 0)
		r = listen_at(argv[1], &listener);
	if (r == 0)
		r = serve_all(epoll_fd, listener);
	(void)fprintf(stderr, "floor-relay: %s\n", strerror(-r));
	return EXIT_FAILURE;
}
