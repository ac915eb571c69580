/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/accept.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/time.h"
#include "holdfastd/listener.h"
#include "holdfastd/worker.h"

/* EPOLLEXCLUSIVE: one connection wakes one worker, not all of them. */
void accept_watch(struct worker *worker)
{
	struct shared *shared = worker->shared;
	bool failed = false;

	for (size_t i = 0; i < shared->n_listeners; i++) {
		struct epoll_event event = {
			.events = EPOLLIN | EPOLLEXCLUSIVE,
			.data.ptr = (void *)(uintptr_t)&shared->listeners[i],
		};

		if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, shared->listeners[i],
			      &event) < 0)
			failed = true;
	}
	worker->is_accepting = true;
	if (failed)
		accept_pause(worker, ACCEPT_RETRY_USEC);
}

void accept_pause(struct worker *worker, uint64_t usec)
{
	struct shared *shared = worker->shared;

	worker->accept_again_usec =
		usec == USEC_INFINITY ? USEC_INFINITY : worker->now_usec + usec;
	if (!worker->is_accepting)
		return;
	for (size_t i = 0; i < shared->n_listeners; i++)
		/* Fails only for one that could not be registered */
		(void)epoll_ctl(worker->epoll_fd, EPOLL_CTL_DEL, shared->listeners[i],
				NULL);
	worker->is_accepting = false;
	atomic_fetch_add(&shared->n_accept_waiting, 1);
}

void accept_resume(struct worker *worker)
{
	if (worker->is_accepting)
		return;
	atomic_fetch_sub(&worker->shared->n_accept_waiting, 1);
	accept_watch(worker);
}

static void explain_accept(struct worker *worker, int r)
{
	switch (r) {
	case -EMFILE:
	case -ENFILE:
		worker_limit_reached(worker->shared, LIMIT_FILES,
				     "Out of file descriptors (%s): further connections wait; "
				     "raise LimitNOFILE= or lower --connections-max=",
				     strerror(-r));
		break;
	default:
		worker_limit_reached(worker->shared, LIMIT_MEMORY,
				     "Can't accept connections (%s): they wait",
				     strerror(-r));
	}
	accept_pause(worker, ACCEPT_RETRY_USEC);
}

/* There is no room for one more connection and its bytes. */
static void explain_room(struct worker *worker, int r)
{
	struct shared *shared = worker->shared;

	if (r != -EBUSY && r != -ENOSPC) {
		explain_accept(worker, r);
		return;
	}
	if (r == -ENOSPC)
		worker_limit_reached(shared, LIMIT_LEDGER,
				     "The ledger is full: further connections wait");
	else if (vault_is_full(shared->vault))
		worker_limit_reached(shared, LIMIT_STORE,
				     "The fd store is full (FileDescriptorStoreMax=): "
				     "further connections wait");
	accept_pause(worker, ACCEPT_RETRY_USEC);
}

/* Whether one more connection may be accepted; if not, accepting is paused and that is
 * said. */
static bool may_accept(struct worker *worker)
{
	struct shared *shared = worker->shared;
	int r;

	if (shared->n_connections >= shared->connections_max) {
		worker_limit_reached(shared, LIMIT_CONNECTIONS,
				     "%u connections are served, which is the limit "
				     "(--connections-max=): further ones wait",
				     shared->connections_max);
		accept_pause(worker, USEC_INFINITY);
		/* One may have ended before we were counted as waiting */
		if (shared->n_connections < shared->connections_max)
			worker_wake(worker);
		return false;
	}
	r = pipe_pool_reserve(&worker->pipes);
	if (r == 0)
		r = packer_make_room(&worker->packer);
	if (r < 0) {
		explain_room(worker, r);
		return false;
	}
	if (shared->upstream &&
	    upstream_get_state(shared->upstream) == UPSTREAM_RESOLVING) {
		accept_pause(worker, USEC_INFINITY);
		if (upstream_get_state(shared->upstream) != UPSTREAM_RESOLVING)
			worker_wake(worker);
		return false;
	}
	return true;
}

/* What accept(2) says about a connection that is gone already, or about nothing at all. */
static bool is_passing(int error)
{
	switch (error) {
	case EINTR:
	case ECONNABORTED:
	case ENETDOWN:
	case EPROTO:
	case ENOPROTOOPT:
	case EHOSTDOWN:
	case ENONET:
	case EHOSTUNREACH:
	case EOPNOTSUPP:
	case ENETUNREACH:
	case EPERM:
		return true;
	default:
		return false;
	}
}

/*
 * Whether what comes out of a listener has inherited its options. It has when all who
 * were in the queue before these were set have come out: once the queue was seen empty,
 * and late enough for who was on the way into it. Asking each one would be a call more.
 */
static uint64_t inheriting_bit(const struct worker *worker, const int *listener)
{
	size_t i = (size_t)(listener - worker->shared->listeners);

	return i < 64 ? UINT64_C(1) << i : 0; /* of further ones each is asked */
}

static void note_queue_is_empty(struct worker *worker, const int *listener)
{
	if (worker->now_usec - worker->begun_usec > ACCEPT_SETTLE_USEC)
		worker->inheriting |= inheriting_bit(worker, listener);
}

/* Accepts one without waiting. Returns its fd, which has its options, or a negative
 * errno. */
static int take_one(struct worker *worker, const int *listener)
{
	bool inherits = worker->inheriting & inheriting_bit(worker, listener);
	struct sockaddr_storage address = {0};
	socklen_t size = sizeof(address);
	int fd = accept4(*listener, (struct sockaddr *)&address, &size,
			 SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0 && errno == EAGAIN)
		note_queue_is_empty(worker, listener);
	if (fd < 0)
		return -errno;
	if (!inherits || address.ss_family == AF_UNIX)
		listener_check_accepted(fd, worker->shared->options->keepalive_idle_usec);
	return fd;
}

/* Counts itself in before it looks at leaving, as the main thread does the other way
 * round: one of the two sees the other. */
static int accept_one(struct worker *worker, const int *listener)
{
	struct shared *shared = worker->shared;
	unsigned n_before = atomic_fetch_add(&shared->n_connections, 1);
	int fd = -EAGAIN;

	if (n_before >= shared->connections_max) {
		/* Another worker was faster: the limit is to be looked at again */
		fd = -EINTR;
	} else if (!shared->leaving) {
		fd = take_one(worker, listener);
	}
	if (fd >= 0)
		connection_open(worker, fd);
	/* Counted in for a moment, it may have looked like the last one that there is
	 * room for */
	if (atomic_fetch_sub(&shared->n_connections, 1) == shared->connections_max)
		worker_wake_accept_waiters(shared);
	return fd;
}

void accept_some(struct worker *worker, const int *listener, int n)
{
	for (int i = 0; i < n && worker->is_accepting; i++) {
		int r;

		if (!may_accept(worker))
			return;
		r = accept_one(worker, listener);
		if (r == -EAGAIN)
			return;
		if (r < 0 && !is_passing(-r)) {
			explain_accept(worker, r);
			return;
		}
	}
}
