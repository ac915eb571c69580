/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the journal is told of a connection. See connection.h. */
#include <stdarg.h>

#include "base/log.h"
#include "base/socket.h"
#include "holdfastd/connection.h"
#include "holdfastd/worker.h"

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
