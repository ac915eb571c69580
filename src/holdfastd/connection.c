/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/connection.h"

#include <string.h>
#include <sys/epoll.h>

#include "base/log.h"
#include "holdfastd/connection-private.h"
#include "holdfastd/services/log.h"
#include "holdfastd/services/relay.h"
#include "holdfastd/worker.h"

uint64_t connection_pending(const struct connection *connection)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < connection->n_flows; i++)
		n += connection->flows[i].pending;
	return n;
}

static uint64_t n_moved(const struct connection *connection)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < connection->n_flows; i++)
		n += connection->flows[i].n_moved;
	return n;
}

struct flow *connection_flow_into(struct connection *connection, const struct peer *peer)
{
	for (unsigned i = 0; i < connection->n_flows; i++)
		if (connection->flows[i].sink == peer)
			return &connection->flows[i];
	return NULL;
}

static struct flow *flow_out_of(struct connection *connection, const struct peer *peer)
{
	for (unsigned i = 0; i < connection->n_flows; i++)
		if (connection->flows[i].source == peer)
			return &connection->flows[i];
	return NULL;
}

/* ---- what has come of the moving ---- */

static bool is_ended(const struct flow *flow)
{
	return flow->state == FLOW_ENDED || flow->state == FLOW_LOST;
}

bool connection_has_failed(const struct connection *connection)
{
	return connection->peers[PEER_CLIENT].failed ||
	       connection->peers[PEER_UPSTREAM].failed;
}

static void kill_flows_into_failed(struct connection *connection)
{
	for (size_t i = 0; i < CONNECTION_PEERS; i++) {
		struct peer *peer = &connection->peers[i];
		struct flow *into = connection_flow_into(connection, peer);

		if (peer->failed && into && !is_ended(into))
			flow_kill(into, &connection->worker->pipes);
	}
}

static bool is_over(const struct connection *connection)
{
	for (unsigned i = 0; i < connection->n_flows; i++)
		if (!is_ended(&connection->flows[i]))
			return false;
	return true;
}

/* Until then, what the other side sends is still thrown away: it may read only after it
 * wrote. */
static void throw_away_lost(struct connection *connection)
{
	for (unsigned i = 0; i < connection->n_flows; i++)
		if (connection->flows[i].state == FLOW_LOST &&
		    flow_move(&connection->flows[i], &connection->worker->pipes) ==
			    FLOW_HAS_MORE)
			worker_set_busy(connection->worker, connection);
}

static void settle(struct connection *connection)
{
	kill_flows_into_failed(connection);
	if (!is_over(connection))
		return;
	if (connection_has_failed(connection) || connection->is_closing)
		connection_begin_to_linger(connection);
	else
		connection_end(connection);
}

void connection_set_timer(struct connection *connection)
{
	struct worker *worker = connection->worker;

	if (!connection_has_failed(connection) && !connection->is_closing) {
		worker_set_idle(worker, connection);
		return;
	}
	/* The journal, though, may take as long as it likes: no entry is lost to that */
	if (connection->service == SERVICE_LOG) {
		worker_clear_timer(worker, connection);
		return;
	}
	connection->since_usec = worker->now_usec;
	worker_set_failing(worker, connection);
}

static void note_active(struct connection *connection)
{
	connection->active_usec = connection->worker->now_usec;
	connection->record->active_usec = connection->worker->now_usec;
	connection_set_timer(connection);
}

static void note_moved(struct connection *connection)
{
	uint64_t n = n_moved(connection);

	atomic_fetch_add_explicit(&connection->worker->n_bytes_moved,
				  n - connection->n_moved_noted, memory_order_relaxed);
	connection->n_moved_noted = n;
	note_active(connection);
}

static void note_failure(struct connection *connection)
{
	connection->failure_noted = true;
	/* There may be no further event, and what the peer has left is to be read */
	worker_set_ready(connection->worker, connection);
	connection_set_timer(connection);
}

static void move(struct connection *connection)
{
	struct worker *worker = connection->worker;
	uint64_t pending = connection_pending(connection);

	for (unsigned i = 0; i < connection->n_flows; i++) {
		struct flow *flow = &connection->flows[i];
		int r = flow->sink ? flow_move(flow, &worker->pipes)
				   : log_advance(connection);

		if (r == FLOW_HAS_MORE)
			worker_set_busy(worker, connection);
		else if (r == FLOW_NEEDS_PIPE)
			worker_wait_for_pipe(worker, connection);
	}
	/* What was read has moved as well, though it may stay in its pipe for long: a
	 * line of the log that has no end yet */
	if (n_moved(connection) != connection->n_moved_noted ||
	    connection_pending(connection) > pending)
		note_moved(connection);
	if (connection_has_failed(connection) && !connection->failure_noted)
		note_failure(connection);
}

/* ---- what to wait for ---- */

static uint32_t wanted_events(struct connection *connection, const struct peer *peer)
{
	const struct flow *out = flow_out_of(connection, peer);
	const struct flow *into = connection_flow_into(connection, peer);
	uint32_t events = 0;

	if (peer->hung)
		return PEER_UNWATCHED;
	if (connection->state == CONNECTION_CONNECTING)
		return peer == &connection->peers[PEER_UPSTREAM] ? EPOLLOUT : 0;
	if (out && out->state == FLOW_LOST)
		events |= EPOLLIN;
	if (out && out->state == FLOW_OPEN && !connection->is_waiting_for_pipe &&
	    (out->sink ? out->pending == 0 : log_wants_more(connection)))
		events |= EPOLLIN | EPOLLPRI | EPOLLRDHUP;
	if (into && into->pending > 0)
		events |= EPOLLOUT;
	return events;
}

int connection_watch(struct connection *connection)
{
	for (size_t i = 0; i < CONNECTION_PEERS; i++) {
		struct peer *peer = &connection->peers[i];
		int r;

		r = peer_watch(peer, connection->worker->epoll_fd,
			       wanted_events(connection, peer));
		if (r < 0)
			return r;
	}
	return 0;
}

static void watch_or_abort(struct connection *connection)
{
	int r = connection_watch(connection);

	if (r == 0)
		return;
	worker_limit_reached(connection->worker->shared, LIMIT_MEMORY,
			     "Can't watch a connection (%s): it is reset", strerror(-r));
	connection_abort(connection, "it can't be watched");
}

void connection_set_in_hand(struct connection *connection, bool in_hand)
{
	struct worker *worker = connection->worker;
	slot_ref ref = slot_ref_make(connection->slot, connection->record->generation);

	atomic_store_explicit(&worker->shared->vault->ledger.header
				       ->in_hand[worker->index],
			      in_hand ? ref : 0, memory_order_relaxed);
	if (!in_hand)
		vault_note_change(worker->shared->vault, connection->slot);
}

void connection_advance(struct connection *connection)
{
	if (connection->state == CONNECTION_CLOSED)
		return;
	connection_set_in_hand(connection, true);
	if (connection->is_unsettled)
		(void)connection_settle(connection);
	if (connection->state == CONNECTION_CONNECTING)
		relay_advance(connection);
	if (connection->state == CONNECTION_OPEN) {
		move(connection);
		settle(connection);
	}
	if (connection->state == CONNECTION_LINGERING)
		throw_away_lost(connection);
	if (connection->state != CONNECTION_CLOSED)
		watch_or_abort(connection);
	connection_set_in_hand(connection, false);
}

void connection_note_events(struct peer *peer, uint32_t events)
{
	struct connection *connection = peer->connection;
	bool is_upstream = peer == &connection->peers[PEER_UPSTREAM];

	peer_note_events(peer, events);
	/* An upstream that refuses a connect is not yet a side of the connection */
	if (events & EPOLLERR &&
	    !(is_upstream && connection->state == CONNECTION_CONNECTING)) {
		peer_fail(peer);
		/* The worker may have to stop before the connection has its turn */
		vault_note_change(connection->worker->shared->vault, connection->slot);
	}
}

static const char *explain_timeout(const struct connection *connection)
{
	if (connection_has_failed(connection))
		return "a peer reset it, and the other takes no bytes";
	return connection->is_closing ? "it was to be closed, and takes no bytes"
				      : "idle for too long";
}

void connection_timeout(struct connection *connection)
{
	connection_set_in_hand(connection, true);
	switch (connection->state) {
	case CONNECTION_CONNECTING:
		relay_timeout(connection);
		break;
	case CONNECTION_LINGERING:
		connection_linger_on(connection);
		break;
	case CONNECTION_OPEN:
		connection_abort(connection, explain_timeout(connection));
		break;
	case CONNECTION_CLOSED:
		break;
	}
	connection_set_in_hand(connection, false);
}
