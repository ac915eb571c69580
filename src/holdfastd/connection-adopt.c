/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a connection of the last process is taken up. See connection.h. */
#include <errno.h>
#include <fcntl.h>

#include "base/fd.h"
#include "base/socket.h"
#include "holdfastd/connection.h"
#include "holdfastd/services/relay.h"
#include "holdfastd/worker.h"

/* No byte is read before the upstream has answered. */
static bool has_moved(const struct connection *connection)
{
	for (size_t i = 0; i < LEDGER_FLOWS; i++)
		if (connection->record->flows[i].pipe != 0 ||
		    connection->record->flows[i].n_read != 0)
			return true;
	return false;
}

static int check_adopted(const struct connection *connection,
			 const struct adopted_entry *entry,
			 struct pool_pipe *pipes[LEDGER_FLOWS])
{
	uint32_t flags = connection->record->flags;

	if (flags & SLOT_ABORTED)
		return -ECONNABORTED;
	if (connection->service == SERVICE_RELAY && entry->n_fds < 2 &&
	    flags & SLOT_CONNECTED)
		return -EBADMSG;
	if (connection->service != SERVICE_RELAY && entry->n_fds != 1)
		return -EBADMSG;
	if (connection->service == SERVICE_RELAY && !(flags & SLOT_CONNECTED) &&
	    has_moved(connection))
		return -EBADMSG;
	for (unsigned i = 0; i < LEDGER_FLOWS; i++)
		if ((connection->record->flows[i].pipe != 0) != (pipes[i] != NULL) ||
		    (pipes[i] && i >= connection->n_flows))
			return -EBADMSG;
	return 0;
}

static int adopt_peers(struct connection *connection)
{
	for (size_t i = 0; i < CONNECTION_PEERS; i++) {
		struct peer *peer = &connection->peers[i];
		int flags;

		if (peer->fd < 0)
			continue;
		flags = fcntl(peer->fd, F_GETFL);
		if (flags < 0 || fcntl(peer->fd, F_SETFL, flags | O_NONBLOCK) < 0)
			return -errno;
		if (connection->record->flags & peer->failed_flag)
			peer_fail(peer);
	}
	return 0;
}

static int adopt_flows(struct connection *connection,
		       struct pool_pipe *pipes[LEDGER_FLOWS])
{
	for (unsigned i = 0; i < connection->n_flows; i++) {
		int r = flow_adopt(&connection->flows[i], pipes[i]);

		pipes[i] = NULL;
		if (r < 0)
			return r;
	}
	return 0;
}

static int adopt_state(struct connection *connection, struct adopted_entry *entry,
		       struct pool_pipe *pipes[LEDGER_FLOWS])
{
	int r;

	r = check_adopted(connection, entry, pipes);
	if (r == 0)
		r = adopt_peers(connection);
	if (r < 0)
		return r;
	if (connection->service == SERVICE_RELAY &&
	    !(connection->record->flags & SLOT_CONNECTED))
		return relay_adopt(connection);
	return adopt_flows(connection, pipes);
}

static void discard_pipes(struct worker *worker, struct pool_pipe *pipes[LEDGER_FLOWS])
{
	for (size_t i = 0; i < LEDGER_FLOWS; i++)
		if (pipes[i])
			pipe_pool_discard(&worker->pipes, pipes[i]);
}

void connection_refuse(struct worker *worker, uint32_t slot, struct adopted_entry *entry)
{
	for (int i = 0; i < entry->n_fds; i++) {
		socket_abort(entry->fds[i]);
		(void)fd_close(entry->fds[i]);
	}
	packer_free_slot(&worker->packer, slot);
}

int connection_adopt(struct worker *worker, uint32_t slot, struct adopted_entry *entry,
		     struct pool_pipe *pipes[LEDGER_FLOWS], uint64_t active_usec)
{
	struct ledger_slot *record = &worker->shared->vault->ledger.slots[slot];
	struct connection *connection = NULL;
	int r;

	if (service_is_known(record->service))
		connection =
			connection_new(worker, slot, (enum service_kind)record->service);
	if (!connection) {
		discard_pipes(worker, pipes);
		connection_refuse(worker, slot, entry);
		return -EBADMSG;
	}
	for (int i = 0; i < entry->n_fds; i++)
		peer_set_fd(&connection->peers[i], entry->fds[i]);
	connection->active_usec = active_usec;
	worker_add(worker, connection);
	r = adopt_state(connection, entry, pipes);
	if (r < 0) {
		discard_pipes(worker, pipes);
		connection_abort(connection, "it can't be continued exactly");
		return r;
	}
	record->n_adopts++;
	if (connection->state == CONNECTION_OPEN)
		connection_set_timer(connection);
	worker_set_ready(worker, connection);
	return 0;
}
