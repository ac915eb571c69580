/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a connection ends, by itself or because somebody wants it. See connection.h. */
#include <stdlib.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/socket.h"
#include "holdfastd/connection-private.h"
#include "holdfastd/listener.h"
#include "holdfastd/messages.h"
#include "holdfastd/services/log.h"
#include "holdfastd/worker.h"

/* Gives back all but the memory. The sockets were shut down or reset before. */
static void release(struct connection *connection)
{
	struct worker *worker = connection->worker;

	for (unsigned i = 0; i < connection->n_flows; i++)
		flow_kill(&connection->flows[i], &worker->pipes);
	connection->addresses = upstream_list_unref(connection->addresses);
	packer_free_slot(&worker->packer, connection->slot);
	for (size_t i = 0; i < CONNECTION_PEERS; i++)
		connection->peers[i].fd = fd_close(connection->peers[i].fd);
	connection->state = CONNECTION_CLOSED;
	worker_remove(worker, connection);
}

static void unwatch(struct connection *connection)
{
	/* DEL of a registered fd does not fail */
	for (size_t i = 0; i < CONNECTION_PEERS; i++)
		(void)peer_watch(&connection->peers[i], connection->worker->epoll_fd,
				 PEER_UNWATCHED);
}

void connection_let_go(struct connection *connection)
{
	unwatch(connection);
	for (size_t i = 0; i < CONNECTION_PEERS; i++)
		connection->peers[i].fd = fd_close(connection->peers[i].fd);
}

/*
 * close() alone sends no FIN while a parcel holds the socket. Where both directions have
 * come to their ends, that of the peer's was read and ours was sent with the last byte.
 */
static void shut_down(struct connection *connection, struct peer *peer)
{
	const struct flow *into = connection_flow_into(connection, peer);

	if (connection->is_closing || !into || into->state != FLOW_ENDED)
		(void)shutdown(peer->fd, SHUT_RDWR);
}

void connection_end(struct connection *connection)
{
	connection_log(connection, LOG_DEBUG, MESSAGE_ENDED, "Connection %llu ended",
		       (unsigned long long)connection->record->id);
	unwatch(connection);
	for (size_t i = 0; i < CONNECTION_PEERS; i++)
		if (connection->peers[i].fd >= 0) {
			listener_set_orderly_close(connection->peers[i].fd);
			shut_down(connection, &connection->peers[i]);
		}
	release(connection);
}

void connection_abort(struct connection *connection, const char *why)
{
	connection_log(connection, LOG_DEBUG, MESSAGE_RESET,
		       "Connection %llu was reset: %s",
		       (unsigned long long)connection->record->id, why);
	/* First the ledger, so that a crash between the two resets does not leave one
	 * side */
	atomic_fetch_or(&connection->record->flags, SLOT_ABORTED);
	unwatch(connection);
	for (size_t i = 0; i < CONNECTION_PEERS; i++)
		if (connection->peers[i].fd >= 0)
			socket_abort(connection->peers[i].fd);
	release(connection);
}

struct connection *connection_free(struct connection *connection)
{
	if (connection)
		log_job_free(connection->log_job);
	free(connection);
	return NULL;
}

/* ---- lingering ---- */

/* What a side that is to be reset has still to get of what was sent to it, in bytes. */
static size_t n_unsent(const struct connection *connection)
{
	for (size_t i = 0; i < CONNECTION_PEERS; i++) {
		const struct peer *peer = &connection->peers[i];
		struct socket_counts counts;
		size_t n;

		if (peer->fd < 0 || peer->failed)
			continue;
		/* What a closed socket has not sent it never will */
		if (socket_get_counts(peer->fd, &counts) == 0 && counts.is_closed)
			continue;
		if (socket_get_unsent(peer->fd, &n) == 0 && n > 0)
			return n;
	}
	return 0;
}

static void end_lingering(struct connection *connection)
{
	if (connection_has_failed(connection))
		connection_abort(connection, "a peer reset it");
	else if (connection->n_unsent > 0)
		connection_abort(connection, "it was to be closed, and takes no bytes");
	else
		connection_end(connection);
}

void connection_begin_to_linger(struct connection *connection)
{
	connection->n_unsent = n_unsent(connection);
	if (connection->n_unsent == 0) {
		end_lingering(connection);
		return;
	}
	connection->state = CONNECTION_LINGERING;
	connection->since_usec = connection->worker->now_usec;
	worker_set_soon(connection->worker, connection);
}

void connection_linger_on(struct connection *connection)
{
	uint64_t now = connection->worker->now_usec;
	size_t n = n_unsent(connection);

	if (n < connection->n_unsent)
		connection->since_usec = now;
	connection->n_unsent = n;
	if (n == 0 || now - connection->since_usec >= LINGER_USEC_MAX)
		end_lingering(connection);
	else
		worker_set_soon(connection->worker, connection);
}

/* ---- on request ---- */

void connection_close(struct connection *connection)
{
	/* It ends already */
	if (connection->is_closing || connection_has_failed(connection) ||
	    connection->state == CONNECTION_CLOSED)
		return;
	connection_log(connection, LOG_NOTICE, MESSAGE_ENDED,
		       "Connection %llu is closed on request",
		       (unsigned long long)connection->record->id);
	connection->is_closing = true;
	if (connection->state == CONNECTION_CONNECTING) {
		connection_set_in_hand(connection, true);
		connection_end(connection);
		connection_set_in_hand(connection, false);
		return;
	}
	for (unsigned i = 0; i < connection->n_flows; i++)
		flow_finish(&connection->flows[i]);
	connection_set_timer(connection);
	connection_advance(connection);
}

void connection_reset(struct connection *connection)
{
	if (connection->state == CONNECTION_CLOSED)
		return;
	connection_log(connection, LOG_NOTICE, MESSAGE_RESET,
		       "Connection %llu is reset on request",
		       (unsigned long long)connection->record->id);
	connection_set_in_hand(connection, true);
	connection_abort(connection, "on request");
	connection_set_in_hand(connection, false);
}
