/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a connection begins. See connection.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/socket.h"
#include "holdfastd/accept.h"
#include "holdfastd/connection.h"
#include "holdfastd/messages.h"
#include "holdfastd/services/log.h"
#include "holdfastd/services/relay.h"
#include "holdfastd/worker.h"

static const uint32_t reset_flags[CONNECTION_PEERS] = {
	[PEER_CLIENT] = SLOT_CLIENT_RESET,
	[PEER_UPSTREAM] = SLOT_UPSTREAM_RESET,
};

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
