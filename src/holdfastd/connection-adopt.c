/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How a connection of the last process is taken up. See connection.h. */
#include <errno.h>
#include <fcntl.h>

#include "base/fd.h"
#include "base/socket.h"
#include "holdfastd/audit.h"
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

/* Sockets whose failure is in the ledger already. */
static void take_up_peers(struct connection *connection,
			  const struct adopted_entry *entry)
{
	for (int i = 0; i < entry->n_fds; i++) {
		struct peer *peer = &connection->peers[i];

		peer_set_fd(peer, entry->fds[i]);
		if (connection->record->flags & peer->failed_flag)
			peer_set_failed(peer);
	}
}

static int take_up(struct connection *connection, struct adopted_entry *entry,
		   struct pool_pipe *pipes[LEDGER_FLOWS])
{
	int r = check_adopted(connection, entry, pipes);

	for (unsigned i = 0; i < connection->n_flows && r == 0; i++)
		r = flow_take_up(&connection->flows[i], pipes[i]);
	if (r < 0)
		return r;
	take_up_peers(connection, entry);
	return 0;
}

int connection_prepare(struct worker *worker, uint32_t slot, struct adopted_entry *entry,
		       struct pool_pipe *pipes[LEDGER_FLOWS], uint64_t active_usec,
		       struct connection **ret_connection)
{
	struct ledger_slot *record = &worker->shared->vault->ledger.slots[slot];
	uint32_t service = record->service; /* once: another process may change it */
	struct connection *connection;
	int r;

	if (!service_is_known(service))
		return -EBADMSG;
	connection = connection_new(worker, slot, (enum service_kind)service);
	if (!connection)
		return -ENOMEM;
	r = take_up(connection, entry, pipes);
	if (r < 0) {
		(void)connection_free(connection);
		return r;
	}
	connection->generation = entry->generation;
	connection->active_usec = active_usec;
	worker_add(worker, connection);
	if (service == SERVICE_RELAY && !(record->flags & SLOT_CONNECTED)) {
		relay_take_up(connection);
	} else {
		connection_set_timer(connection);
		if (service == SERVICE_RELAY)
			worker_set_young(worker, connection);
	}
	*ret_connection = connection;
	return 0;
}

void connection_unprepare(struct connection *connection, struct adopted_entry *entry,
			  struct pool_pipe *ret_pipes[LEDGER_FLOWS])
{
	*entry = (struct adopted_entry){
		.kind = SLOT_CONNECTION,
		.generation = connection->generation,
	};
	for (size_t i = 0; i < CONNECTION_PEERS; i++) {
		struct peer *peer = &connection->peers[i];

		/* DEL of a registered fd does not fail */
		(void)peer_watch(peer, connection->worker->epoll_fd, PEER_UNWATCHED);
		if (peer->fd >= 0)
			entry->fds[entry->n_fds++] = take_fd(&peer->fd);
	}
	for (size_t i = 0; i < LEDGER_FLOWS; i++)
		ret_pipes[i] = connection->flows[i].pipe;
	connection->addresses = upstream_list_unref(connection->addresses);
	connection->state = CONNECTION_CLOSED;
	worker_remove(connection->worker, connection);
}

static void discard_pipes(struct worker *worker, struct pool_pipe *pipes[LEDGER_FLOWS])
{
	for (size_t i = 0; i < LEDGER_FLOWS; i++)
		if (pipes[i])
			pipe_pool_discard(&worker->pipes, pipes[i]);
}

void connection_refuse(struct worker *worker, uint32_t slot, struct adopted_entry *entry,
		       struct pool_pipe *pipes[LEDGER_FLOWS])
{
	/* First the ledger, so that a crash between the two resets does not leave one
	 * side */
	atomic_fetch_or(&worker->shared->vault->ledger.slots[slot].flags, SLOT_ABORTED);
	for (int i = 0; i < entry->n_fds; i++) {
		socket_abort(entry->fds[i]);
		(void)fd_close(entry->fds[i]);
	}
	discard_pipes(worker, pipes);
	packer_free_slot(&worker->packer, slot);
}

/* The store keeps the flags of its fds, but it is not ours alone. */
static int set_nonblocking(struct connection *connection)
{
	for (size_t i = 0; i < CONNECTION_PEERS; i++) {
		int fd = connection->peers[i].fd, flags;

		if (fd < 0)
			continue;
		flags = fcntl(fd, F_GETFL);
		if (flags < 0 ||
		    (!(flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0))
			return -errno;
	}
	return 0;
}

/* Returns -EBADMSG where there is more to be made good than can be. */
static int settle(struct connection *connection, struct audit_tally *tally)
{
	struct audit audit;
	int r = set_nonblocking(connection);

	if (r < 0)
		return r;
	if (connection->state == CONNECTION_OPEN)
		for (unsigned i = 0; i < connection->n_flows; i++)
			flow_settle_urgent(&connection->flows[i]);
	audit_connection(connection, AUDIT_ADOPTING, &audit, tally);
	if (audit.verdict == AUDIT_WRONG) {
		audit_log(connection, &audit);
		return -EBADMSG;
	}
	if (connection->state == CONNECTION_OPEN)
		for (unsigned i = 0; i < connection->n_flows; i++) {
			struct flow *flow = &connection->flows[i];
			size_t source = (size_t)(flow->source - connection->peers);

			flow_settle_count(flow, audit.counts[source]);
		}
	return 0;
}

bool connection_settle(struct connection *connection)
{
	struct worker *worker = connection->worker;
	int r = settle(connection, &worker->audited);

	/* It may be the last one, and then the sum of all is told */
	worker_clear_unsettled(worker, connection);
	if (r < 0)
		connection_abort(connection, "it can't be continued exactly");
	return r == 0;
}

int connection_adopt(struct worker *worker, uint32_t slot, struct adopted_entry *entry,
		     struct pool_pipe *pipes[LEDGER_FLOWS], uint64_t active_usec)
{
	struct connection *connection;
	int r;

	r = connection_prepare(worker, slot, entry, pipes, active_usec, &connection);
	if (r < 0 && r != -ENOMEM)
		connection_refuse(worker, slot, entry, pipes);
	if (r < 0)
		return r;
	worker_set_unsettled(worker, connection);
	return 0;
}
