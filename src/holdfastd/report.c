/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/report.h"

#include "holdfastd/connection.h"
#include "holdfastd/worker.h"

static void name_peers(const struct connection *connection,
		       struct connection_report *report)
{
	int client = connection->peers[PEER_CLIENT].fd;
	int upstream = connection->peers[PEER_UPSTREAM].fd;

	socket_format_peer(client, report->peer, sizeof(report->peer));
	socket_format_local(client, report->listener, sizeof(report->listener));
	if (upstream >= 0)
		socket_format_peer(upstream, report->upstream, sizeof(report->upstream));
}

static void count_bytes(const struct connection *connection,
			struct connection_report *report)
{
	const struct ledger_flow *flows = connection->record->flows;
	uint64_t pending[LEDGER_FLOWS];

	for (size_t i = 0; i < LEDGER_FLOWS; i++) {
		/* What was taken may not have been counted by the process before this
		 * one */
		pending[i] = connection->flows[i].pending;
		if (pending[i] > flows[i].n_read)
			pending[i] = flows[i].n_read;
	}
	report->received = flows[0].n_read;
	report->pending_from = pending[0];
	switch (connection->service) {
	case SERVICE_LOG:
		break;
	case SERVICE_ECHO:
		report->sent = flows[0].n_read - pending[0];
		break;
	case SERVICE_RELAY:
		report->sent = flows[1].n_read - pending[1];
		report->pending_to = pending[1];
		break;
	}
}

static const char *name_state(const struct connection *connection)
{
	if (connection->state == CONNECTION_CONNECTING)
		return "connecting";
	if (connection_has_failed(connection))
		return "resetting";
	if (connection->is_closing)
		return "closing";
	for (unsigned i = 0; i < connection->n_flows; i++)
		if (connection->flows[i].state != FLOW_OPEN)
			return "half-closed";
	return "open";
}

static uint64_t since(const struct connection *connection, uint64_t usec)
{
	uint64_t now = connection->worker->now_usec;

	return usec < now ? now - usec : 0;
}

void report_connection(const struct connection *connection,
		       struct connection_report *ret_report)
{
	const struct ledger_slot *record = connection->record;
	uint32_t n_starts = connection->worker->shared->vault->ledger.header->n_starts;

	*ret_report = (struct connection_report){
		.id = record->id,
		.service = service_name(connection->service),
		.age_usec = since(connection, record->accepted_usec),
		.idle_usec = since(connection, record->active_usec),
		/* The difference of numbers that may have come damaged from the store */
		.n_restarts =
			n_starts > record->opened_by ? n_starts - record->opened_by : 0,
		.worker = connection->worker->index,
		.state = name_state(connection),
	};
	name_peers(connection, ret_report);
	count_bytes(connection, ret_report);
}

void report_instance(const struct shared *shared, struct instance_report *ret_report)
{
	const struct ledger_header *header = shared->vault->ledger.header;
	uint64_t n_bytes = 0;
	uint32_t n_pipes = 0;

	for (unsigned i = 0; i < shared->n_workers; i++) {
		n_bytes += shared->workers[i].n_bytes_moved;
		n_pipes += shared->workers[i].pipes.n_pipes;
	}
	*ret_report = (struct instance_report){
		.service = service_name(shared->options->service),
		.n_connections = shared->n_connections,
		.connections_max = shared->connections_max,
		.n_accepted = header->next_id - 1,
		.bytes_moved = n_bytes,
		.n_restarts = header->n_starts > 0 ? header->n_starts - 1 : 0,
		.n_workers = shared->n_workers,
		.n_parcels = vault_n_parcels(shared->vault),
		.store_is_full = vault_is_full(shared->vault),
		.ledger_version = header->version,
		.ledger_slots = header->n_slots,
		.ledger_slots_used = header->n_slots_used,
		.n_pipes = n_pipes,
	};
}
