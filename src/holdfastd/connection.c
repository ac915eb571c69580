/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/socket.h"
#include "base/time.h"
#include "holdfastd/accept.h"
#include "holdfastd/listener.h"
#include "holdfastd/messages.h"
#include "holdfastd/services/log.h"
#include "holdfastd/services/relay.h"
#include "holdfastd/worker.h"

static const uint32_t reset_flags[CONNECTION_PEERS] = {
	[PEER_CLIENT] = SLOT_CLIENT_RESET,
	[PEER_UPSTREAM] = SLOT_UPSTREAM_RESET,
};

static void add_relay_fields(const struct connection *connection, struct log_entry *entry)
{
	/* A service that relays no longer has none, though its connections go on */
	const struct upstream *upstream = connection->worker->shared->upstream;

	if (upstream)
		log_entry_add(entry, "HOLDFAST_UPSTREAM=%s", upstream_name(upstream));
	log_entry_add(entry, "HOLDFAST_BYTES_FROM_UPSTREAM=%llu",
		      (unsigned long long)connection->record->flows[1].n_read);
}

static void add_fields(const struct connection *connection, struct log_entry *entry)
{
	const struct ledger_slot *record = connection->record;
	uint32_t n_starts = connection->worker->shared->vault->ledger.header->n_starts;
	char name[SOCKET_NAME_SIZE];

	log_entry_add(entry, "HOLDFAST_CONNECTION=%llu", (unsigned long long)record->id);
	log_entry_add(entry, "HOLDFAST_SERVICE=%s", service_name(connection->service));
	socket_format_peer(connection->peers[PEER_CLIENT].fd, name, sizeof(name));
	log_entry_add(entry, "HOLDFAST_PEER=%s", name);
	socket_format_local(connection->peers[PEER_CLIENT].fd, name, sizeof(name));
	log_entry_add(entry, "HOLDFAST_LISTENER=%s", name);
	log_entry_add(entry, "HOLDFAST_RESTARTS=%u", n_starts - record->opened_by);
	log_entry_add(entry, "HOLDFAST_BYTES_FROM_CLIENT=%llu",
		      (unsigned long long)record->flows[0].n_read);
	if (connection->service == SERVICE_RELAY)
		add_relay_fields(connection, entry);
}

struct log_entry *connection_log_new(const struct connection *connection, int level,
				     const char *message_id)
{
	struct log_entry *entry = log_line_new(level, message_id);

	if (entry)
		add_fields(connection, entry);
	return entry;
}

void connection_log(const struct connection *connection, int level,
		    const char *message_id, const char *format, ...)
{
	struct log_entry *entry = connection_log_new(connection, level, message_id);
	va_list arguments;

	va_start(arguments, format);
	log_line_submit(entry, format, arguments);
	va_end(arguments);
}

/* ---- the end ---- */

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

static struct flow *flow_into(struct connection *connection, const struct peer *peer)
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

/*
 * close() alone sends no FIN while a parcel holds the socket. Where both directions have
 * come to their ends, that of the peer's was read and ours was sent with the last byte.
 */
static void shut_down(struct connection *connection, struct peer *peer)
{
	const struct flow *into = flow_into(connection, peer);

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
		struct flow *into = flow_into(connection, peer);

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

static void begin_to_linger(struct connection *connection)
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

/* Another look at one that lingers: is everything sent, or does nothing move any more? */
static void linger_on(struct connection *connection)
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

/* Until then, what the other side sends is still thrown away: it may read only after it
 * wrote. */
static void throw_away_lost(struct connection *connection)
{
	for (unsigned i = 0; i < connection->n_flows; i++)
		if (connection->flows[i].state == FLOW_LOST &&
		    flow_move(&connection->flows[i], &connection->worker->pipes) ==
			    FLOW_HAS_MORE)
			worker_set_ready(connection->worker, connection);
}

static void settle(struct connection *connection)
{
	kill_flows_into_failed(connection);
	if (!is_over(connection))
		return;
	if (connection_has_failed(connection) || connection->is_closing)
		begin_to_linger(connection);
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

	for (unsigned i = 0; i < connection->n_flows; i++) {
		struct flow *flow = &connection->flows[i];
		int r = flow->sink ? flow_move(flow, &worker->pipes)
				   : log_advance(connection);

		if (r == FLOW_HAS_MORE)
			worker_set_ready(worker, connection);
		else if (r == FLOW_NEEDS_PIPE)
			worker_wait_for_pipe(worker, connection);
	}
	if (n_moved(connection) != connection->n_moved_noted)
		note_moved(connection);
	if (connection_has_failed(connection) && !connection->failure_noted)
		note_failure(connection);
}

/* ---- what to wait for ---- */

static uint32_t wanted_events(struct connection *connection, const struct peer *peer)
{
	const struct flow *out = flow_out_of(connection, peer);
	const struct flow *into = flow_into(connection, peer);
	uint32_t events = 0;

	if (peer->hung)
		return PEER_UNWATCHED;
	if (connection->state == CONNECTION_CONNECTING)
		return peer == &connection->peers[PEER_UPSTREAM] ? EPOLLOUT : 0;
	if (out && out->state == FLOW_LOST)
		events |= EPOLLIN;
	if (out && out->state == FLOW_OPEN && !connection->is_waiting_for_pipe &&
	    (out->sink ? out->pending == 0 : log_wants_more(connection)))
		events |= EPOLLIN | EPOLLPRI;
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
		linger_on(connection);
		break;
	case CONNECTION_OPEN:
		connection_abort(connection, explain_timeout(connection));
		break;
	case CONNECTION_CLOSED:
		break;
	}
	connection_set_in_hand(connection, false);
}

/* ---- the beginning ---- */

static void init_flows(struct connection *connection)
{
	struct peer *client = &connection->peers[PEER_CLIENT];
	struct peer *upstream = &connection->peers[PEER_UPSTREAM];
	struct ledger_slot *record = connection->record;

	switch (connection->service) {
	case SERVICE_LOG:
		flow_init(&connection->flows[0], client, NULL, record, 0);
		connection->n_flows = 1;
		break;
	case SERVICE_ECHO:
		flow_init(&connection->flows[0], client, client, record, 0);
		connection->n_flows = 1;
		break;
	case SERVICE_RELAY:
		flow_init(&connection->flows[0], client, upstream, record, 0);
		flow_init(&connection->flows[1], upstream, client, record, 1);
		connection->n_flows = 2;
		break;
	}
}

struct connection *connection_new(struct worker *worker, uint32_t slot,
				  enum service_kind service)
{
	struct connection *connection = calloc(1, sizeof(*connection));

	if (!connection)
		return NULL;
	connection->worker = worker;
	connection->slot = slot;
	connection->record = &worker->shared->vault->ledger.slots[slot];
	connection->service = service;
	connection->state = CONNECTION_OPEN;
	for (size_t i = 0; i < CONNECTION_PEERS; i++)
		peer_init(&connection->peers[i], connection, &connection->record->flags,
			  reset_flags[i]);
	init_flows(connection);
	if (service == SERVICE_LOG && log_job_new(connection, &connection->log_job) < 0) {
		free(connection);
		return NULL;
	}
	return connection;
}

static void fill_record(struct connection *connection)
{
	struct ledger_slot *record = connection->record;
	struct ledger_header *header = connection->worker->shared->vault->ledger.header;

	record->id = atomic_fetch_add(&header->next_id, 1);
	record->service = connection->service;
	record->opened_by = header->n_starts;
	record->accepted_usec = connection->worker->now_usec;
	record->active_usec = connection->worker->now_usec;
}

static void explain_put(struct worker *worker, int r)
{
	if (r == -ETOOMANYREFS)
		worker_limit_reached(worker->shared, LIMIT_IN_FLIGHT,
				     "This user has too many files parked: raise LimitNOFILE= or "
				     "lower --connections-max=; connections are refused");
	else
		worker_limit_reached(worker->shared, LIMIT_STORE,
				     "The fd store takes no connection (%s): connections wait",
				     strerror(-r));
}

int connection_put(struct connection *connection, uint32_t generation)
{
	struct worker *worker = connection->worker;
	int fds[CONNECTION_PEERS], n = 0, r;

	for (size_t i = 0; i < CONNECTION_PEERS; i++)
		if (connection->peers[i].fd >= 0)
			fds[n++] = connection->peers[i].fd;
	r = packer_put(&worker->packer, connection->slot, generation, fds, n);
	if (r < 0) {
		explain_put(worker, r);
		accept_pause(worker, ACCEPT_RETRY_USEC);
	}
	return r;
}

/* An unprotected connection is worse than none: no byte of it has been read yet. */
static int protect(struct connection *connection)
{
	packer_publish(&connection->worker->packer, connection->slot, SLOT_CONNECTION);
	return connection_put(connection, connection->record->generation);
}

void connection_open(struct worker *worker, int client_fd)
{
	struct connection *connection = NULL;
	uint32_t slot;

	if (packer_take_slot(&worker->packer, &slot) < 0) {
		worker_limit_reached(worker->shared, LIMIT_LEDGER,
				     "The ledger is full: connections are refused");
		goto refuse;
	}
	connection = connection_new(worker, slot, worker->shared->options->service);
	if (!connection) {
		packer_free_slot(&worker->packer, slot);
		worker_limit_reached(worker->shared, LIMIT_MEMORY,
				     "No memory: connections are refused");
		goto refuse;
	}
	peer_set_fd(&connection->peers[PEER_CLIENT], client_fd);
	connection->active_usec = worker->now_usec;
	fill_record(connection);
	worker_add(worker, connection);
	if (connection->service == SERVICE_RELAY && relay_start(connection) < 0)
		return;
	if (protect(connection) < 0) {
		connection_abort(connection, "it could not be protected");
		return;
	}
	connection_log(connection, LOG_DEBUG, MESSAGE_OPENED, "Connection %llu accepted",
		       (unsigned long long)connection->record->id);
	worker_set_idle(worker, connection);
	connection_advance(connection);
	return;
refuse:
	socket_abort(client_fd);
	(void)fd_close(client_fd);
	accept_pause(worker, ACCEPT_RETRY_USEC);
}
