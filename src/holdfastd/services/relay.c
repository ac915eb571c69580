/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/services/relay.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/socket.h"
#include "holdfastd/connection.h"
#include "holdfastd/listener.h"
#include "holdfastd/messages.h"
#include "holdfastd/worker.h"

/* Lines about failing upstreams: at most one in this time for the whole process. */
#define SAY_EVERY_USEC (1 * USEC_PER_SEC)

static struct peer *upstream_of(struct connection *connection)
{
	return &connection->peers[PEER_UPSTREAM];
}

static void say_failed(struct connection *connection, int r)
{
	static _Atomic uint64_t last_usec;
	uint64_t now = connection->worker->now_usec, last = last_usec;

	if (now - last < SAY_EVERY_USEC ||
	    !atomic_compare_exchange_strong(&last_usec, &last, now))
		return;
	if (connection->addresses)
		connection_log(connection, LOG_WARNING, MESSAGE_UPSTREAM,
			       "Connection %llu was reset: no address of the upstream "
			       "answered (%s)",
			       (unsigned long long)connection->record->id, strerror(-r));
	else
		connection_log(connection, LOG_WARNING, MESSAGE_UPSTREAM,
			       "Connection %llu was reset: no address of the upstream is "
			       "known",
			       (unsigned long long)connection->record->id);
}

/* Begins to connect to one address. Returns an fd or a negative errno. */
static int connect_to(const struct upstream_address *address)
{
	_cleanup_close_ int fd = -EBADF;
	int family = address->address.ss_family;

	fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	listener_set_stream_options(fd, family != AF_UNIX);
	if (connect(fd, (const struct sockaddr *)&address->address, address->length) <
		    0 &&
	    errno != EINPROGRESS)
		return -errno;
	return take_fd(&fd);
}

/*
 * Begins to connect to the next address that does not fail at once. Returns 0, or the
 * error of the last address. -EAGAIN: the backlog of a UNIX socket is full; it may be
 * tried again.
 */
static int connect_next(struct connection *connection)
{
	int r = -EHOSTUNREACH;

	while (connection->addresses &&
	       connection->next_address < connection->addresses->n) {
		size_t i = connection->next_address++;

		r = connect_to(&connection->addresses->addresses[i]);
		if (r < 0)
			continue;
		/* An upstream on this machine may have answered by the first look, which
		 * saves waiting for it */
		peer_set_fd(upstream_of(connection), r);
		connection->since_usec = connection->worker->now_usec;
		worker_set_connecting(connection->worker, connection);
		return 0;
	}
	return r;
}

static void give_up(struct connection *connection, int r)
{
	say_failed(connection, r);
	if (connection->worker->shared->upstream)
		upstream_refresh(connection->worker->shared->upstream);
	connection_abort(connection, "no upstream");
}

static bool is_resolving(const struct connection *connection)
{
	struct upstream *upstream = connection->worker->shared->upstream;

	return upstream && upstream_get_state(upstream) == UPSTREAM_RESOLVING;
}

/*
 * For a client whose upstream can't take it just now (-EAGAIN), or whose name is still
 * being looked up after a restart: looks again soon, for as long as a connect may take.
 */
static bool try_again_soon(struct connection *connection, int r)
{
	uint64_t since = connection->record->connect_usec;

	if ((r != -EAGAIN && !is_resolving(connection)) ||
	    connection->worker->now_usec - since >
		    connection->worker->shared->options->connect_timeout_usec)
		return false;
	connection->next_address = 0;
	worker_set_soon(connection->worker, connection);
	return true;
}

int relay_start(struct connection *connection)
{
	struct upstream *upstream = connection->worker->shared->upstream;
	int r;

	connection->state = CONNECTION_CONNECTING;
	connection->record->connect_usec = connection->worker->now_usec;
	connection->addresses = upstream ? upstream_get(upstream) : NULL;
	r = connect_next(connection);
	if (r == 0 || try_again_soon(connection, r))
		return 0;
	give_up(connection, r);
	return r;
}

void relay_take_up(struct connection *connection)
{
	struct upstream *upstream = connection->worker->shared->upstream;

	connection->state = CONNECTION_CONNECTING;
	connection->addresses = upstream ? upstream_get(upstream) : NULL;
	connection->since_usec = connection->worker->now_usec;
	if (upstream_of(connection)->fd < 0) {
		worker_set_soon(connection->worker, connection);
		return;
	}
	upstream_of(connection)->writable = false;
	worker_set_connecting(connection->worker, connection);
}

/* Puts the client and its new upstream into the store in place of the old pair. */
static int put_again(struct connection *connection)
{
	uint32_t generation =
		packer_next_generation(&connection->worker->packer, connection->slot);

	return connection_put(connection, generation);
}

static void drop_upstream(struct connection *connection)
{
	struct peer *peer = upstream_of(connection);

	/* DEL of a registered fd does not fail */
	(void)peer_watch(peer, connection->worker->epoll_fd, PEER_UNWATCHED);
	if (peer->fd >= 0)
		socket_abort(peer->fd);
	peer->fd = fd_close(peer->fd);
}

/* The current upstream socket came to nothing for reason r: goes on with the next
 * address. */
static void follow(struct connection *connection, int r)
{
	int next;

	drop_upstream(connection);
	if (!connection->addresses && connection->worker->shared->upstream)
		connection->addresses =
			upstream_get(connection->worker->shared->upstream);
	next = connect_next(connection);
	if (next == 0) {
		next = put_again(connection);
		if (next == 0)
			return;
		/* The old pair is still in the store: with a new parcel it may go on */
		drop_upstream(connection);
		r = next == -EBUSY ? -EAGAIN : next;
		if (!try_again_soon(connection, r))
			connection_abort(connection, "it could not be protected");
		return;
	}
	if (next != -EHOSTUNREACH)
		r = next;
	if (!try_again_soon(connection, r))
		give_up(connection, r);
}

static int get_error(int fd)
{
	int error = 0;
	socklen_t size = sizeof(error);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0)
		return -errno;
	return -error;
}

/* Returns enum socket_progress, or a negative errno for an upstream that has failed. */
static int look_at_upstream(int fd)
{
	int progress = socket_get_progress(fd), r;

	if (progress == SOCKET_CONNECTING || progress == SOCKET_CONNECTED)
		return progress;
	/* AF_UNIX, which knows no progress, has connected or failed at once */
	r = get_error(fd);
	/* The error may have been told to the process before this one; the state stays */
	if (r == 0 && progress == SOCKET_CLOSED)
		r = -ECONNREFUSED;
	return r < 0 ? r : SOCKET_CONNECTED;
}

void relay_advance(struct connection *connection)
{
	struct peer *peer = upstream_of(connection);
	int r;

	/* One that is merely hung may have said all it wants to: that is still delivered */
	if (connection->peers[PEER_CLIENT].failed) {
		connection_abort(connection,
				 "the client left before the upstream answered");
		return;
	}
	if (peer->fd < 0 || !(peer->writable || peer->hung))
		return;
	r = look_at_upstream(peer->fd);
	if (r == SOCKET_CONNECTING) {
		peer->writable = false; /* the event will tell when to look again */
		return;
	}
	if (r < 0) {
		follow(connection, r);
		return;
	}
	connection->addresses = upstream_list_unref(connection->addresses);
	worker_clear_timer(connection->worker, connection);
	atomic_fetch_or(&connection->record->flags, SLOT_CONNECTED);
	connection->state = CONNECTION_OPEN;
	connection->active_usec = connection->worker->now_usec;
	connection->record->active_usec = connection->worker->now_usec;
	worker_set_idle(connection->worker, connection);
	worker_set_young(connection->worker, connection);
}

void relay_keep_alive(const struct connection *connection)
{
	const struct options *options = connection->worker->shared->options;

	listener_keep_alive(connection->peers[PEER_UPSTREAM].fd,
			    options->keepalive_idle_usec);
}

void relay_timeout(struct connection *connection)
{
	bool was_connecting = upstream_of(connection)->fd >= 0;

	follow(connection, was_connecting ? -ETIMEDOUT : -EHOSTUNREACH);
	connection_advance(connection);
}
