/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a connection ends that somebody wants to end. See connection.h. */
#include "base/log.h"
#include "holdfastd/connection.h"
#include "holdfastd/messages.h"
#include "holdfastd/worker.h"

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
