/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/successor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/leisure.h"
#include "base/log.h"
#include "base/plural.h"
#include "base/time.h"
#include "holdfastd/crash.h"
#include "holdfastd/listener.h"
#include "holdfastd/messages.h"
#include "holdfastd/recover.h"
#include "holdfastd/successor-private.h"
#include "holdfastd/worker.h"
#include "vault/follow.h"

int successor_new(int socket, struct vault *vault, struct successor **ret_successor)
{
	struct successor *successor = calloc(1, sizeof(*successor));
	uint32_t n_slots;
	int r;

	if (!successor)
		return -ENOMEM;
	successor->socket = socket;
	successor->control_fd = -EBADF;
	successor->old_fd = -EBADF;
	successor->vault = vault;
	r = successor_receive_state(successor);
	if (r < 0)
		return r; /* the process ends, and all this with it */
	n_slots = vault->ledger.header->n_slots;
	/* Memory is given by the page when touched: most slots are never used */
	successor->connections = calloc(n_slots, sizeof(*successor->connections));
	successor->marks = calloc(n_slots, sizeof(*successor->marks));
	if (!successor->connections || !successor->marks)
		return successor_fail_state(successor, -ENOMEM);
	*ret_successor = successor;
	return 0;
}

const int *successor_get_listeners(const struct successor *successor, size_t *ret_n)
{
	*ret_n = successor->n_listeners;
	return successor->listeners;
}

int successor_take_control_fd(struct successor *successor)
{
	return take_fd(&successor->control_fd);
}

uint32_t successor_get_n_connections(const struct successor *successor)
{
	return successor->n_connections;
}

/* ---- connections ---- */

static struct worker *worker_of(const struct successor *successor, uint32_t slot)
{
	struct shared *shared = successor->shared;

	return &shared->workers[slot % shared->n_workers];
}

static void give_pipes_back(struct worker *worker, struct pool_pipe *pipes[LEDGER_FLOWS])
{
	for (size_t i = 0; i < LEDGER_FLOWS; i++) {
		slot_ref ref = pipes[i] ? pipes[i]->ref : 0;
		struct adopted_entry entry = {.n_fds = 1, .kind = SLOT_PIPE};

		if (!pipes[i])
			continue;
		entry.generation = slot_ref_generation(ref);
		entry.fds[0] = pipe_pool_forget(&worker->pipes, pipes[i]);
		adopt_give_back(worker->shared->vault, slot_ref_slot(ref), &entry);
	}
}

/* Gives up what was made of a slot at an earlier look. */
static void drop(void *userdata, uint32_t slot)
{
	struct successor *successor = userdata;
	struct connection *connection = successor->connections[slot];
	struct pool_pipe *pipes[LEDGER_FLOWS];
	struct adopted_entry entry;

	if (successor->marks[slot] & MARK_REFUSED)
		successor->n_refused--;
	successor->marks[slot] &= (uint8_t)~MARK_REFUSED;
	if (!connection)
		return;
	successor->connections[slot] = NULL;
	successor->n_connections--;
	successor->pending_bytes -= connection_pending(connection);
	connection_unprepare(connection, &entry, pipes);
	adopt_give_back(successor->vault, slot, &entry);
	give_pipes_back(worker_of(successor, slot), pipes);
}

/*
 * It may be half of a change, or name a pipe whose parcel is still to come: it is looked
 * at again, and refused only if it is the same at the end.
 */
static int refuse(struct successor *successor, uint32_t slot)
{
	follow_note(successor->vault, slot);
	successor->marks[slot] |= MARK_REFUSED;
	successor->n_refused++;
	return 0;
}

/* Those that have something to do of which no event will tell. */
static bool has_to_look(const struct connection *connection)
{
	return connection->state != CONNECTION_OPEN ||
	       connection_pending(connection) > 0 || connection_has_failed(connection);
}

static int keep(struct successor *successor, uint32_t slot, struct connection *connection)
{
	int r;

	successor->connections[slot] = connection;
	successor->n_connections++;
	successor->pending_bytes += connection_pending(connection);
	if (successor->is_sorted)
		worker_place_idle(connection->worker, connection);
	if (has_to_look(connection))
		worker_set_ready(connection->worker, connection);
	r = connection_watch(connection);
	if (r != -EPERM)
		return r;
	/* Its fds are nothing that can be waited for */
	drop(successor, slot);
	return refuse(successor, slot);
}

static int prepare(struct successor *successor, uint32_t slot,
		   struct adopted_entry *entry)
{
	struct ledger_slot *record = &successor->vault->ledger.slots[slot];
	struct worker *worker = worker_of(successor, slot);
	struct pool_pipe *pipes[LEDGER_FLOWS];
	struct connection *connection;
	int r;

	r = recover_take_pipes(worker, slot, pipes);
	if (r == 0)
		r = connection_prepare(worker, slot, entry, pipes, record->active_usec,
				       &connection);
	if (r == 0)
		return keep(successor, slot, connection);
	give_pipes_back(worker, pipes);
	adopt_give_back(successor->vault, slot, entry);
	return r == -ENOMEM ? r : refuse(successor, slot);
}

static int list_pipe(struct successor *successor, uint32_t slot)
{
	uint32_t *larger;

	if (successor->marks[slot] & MARK_LISTED)
		return 0;
	larger = reallocarray(successor->pipes, successor->n_pipes + 1, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	larger[successor->n_pipes++] = slot;
	successor->pipes = larger;
	successor->marks[slot] |= MARK_LISTED;
	return 0;
}

static int take(void *userdata, uint32_t slot)
{
	struct successor *successor = userdata;
	struct ledger_slot *record = &successor->vault->ledger.slots[slot];
	struct adopted_entry entry;

	if (record->state == SLOT_PIPE)
		return list_pipe(successor, slot);
	if (record->state != SLOT_CONNECTION ||
	    !adopt_take(successor->vault, slot, &entry))
		return 0;
	if (ledger_slot_is_sane(&successor->vault->ledger, slot))
		return prepare(successor, slot, &entry);
	adopt_give_back(successor->vault, slot, &entry);
	return refuse(successor, slot);
}

/* Nobody waits for this process before it is told to go. */
static void breathe(void *userdata)
{
	const struct successor *successor = userdata;

	if (!successor->is_told_to_go)
		(void)usleep(SUCCESSOR_BREATH_USEC);
}

static int look(struct successor *successor)
{
	static const struct follower follower = {.drop = drop,
						 .take = take,
						 .breathe = breathe};
	struct shared *shared = successor->shared;
	int n;

	for (unsigned i = 0; i < shared->n_workers; i++)
		shared->workers[i].now_usec = time_now_usec();
	n = follow_look(successor->vault, &follower, successor);
	for (unsigned i = 0; i < shared->n_workers; i++)
		worker_free_closed(&shared->workers[i]);
	return n;
}

/*
 * Receives what there is, and looks. Returns 1 if told to go, 0 after SUCCESSOR_LOOK_USEC
 * without it, or a negative errno: -EPIPE if the other process has ended.
 */
static int look_and_wait(struct successor *successor, struct handover *ret_go)
{
	int r = look(successor);

	while (r >= 0) {
		r = successor_receive(successor, time_now_usec() + SUCCESSOR_LOOK_USEC,
				      ret_go);
		if (r == HANDOVER_GONE)
			return -EPIPE;
		if (r == HANDOVER_MESSAGE && ret_go->type == HANDOVER_GO)
			return 1;
	}
	return r == -ETIME ? 0 : r;
}

/* New connections of a relay must find an upstream, as they do now. */
static int wait_for_upstream(struct successor *successor)
{
	struct upstream *upstream = successor->shared->upstream;
	struct handover message;
	int r = 0;

	while (r == 0 && upstream && upstream_get_state(upstream) == UPSTREAM_RESOLVING)
		r = look_and_wait(successor, &message);
	if (r != 0)
		return r < 0 ? r : -EBADMSG;
	return upstream && upstream_get_state(upstream) == UPSTREAM_FAILED
		       ? -EADDRNOTAVAIL
		       : 0;
}

/* Until few things change from one look to the next. */
static int prepare_all(struct successor *successor)
{
	struct shared *shared = successor->shared;
	int n = INT32_MAX;

	for (unsigned i = 0; i < SUCCESSOR_LOOKS_MAX && n > SUCCESSOR_FEW_CHANGES; i++) {
		n = look(successor);
		if (n < 0)
			return n;
	}
	for (unsigned i = 0; i < shared->n_workers; i++) {
		int r = worker_sort_idle(&shared->workers[i]);

		if (r < 0)
			return r;
	}
	successor->is_sorted = true;
	return wait_for_upstream(successor);
}

/* ---- going ---- */

static int wait_for_go(struct successor *successor, struct handover *ret_go)
{
	int r;

	do
		r = look_and_wait(successor, ret_go);
	while (r == 0);
	return r;
}

static void refuse_rest(struct successor *successor)
{
	struct vault *vault = successor->vault;
	uint32_t n = successor->n_refused > 0 ? vault->ledger.header->n_slots_used : 0;

	for (uint32_t slot = 0; slot < n; slot++) {
		struct worker *worker = worker_of(successor, slot);
		struct pool_pipe *pipes[LEDGER_FLOWS];
		struct adopted_entry entry;

		if (!(successor->marks[slot] & MARK_REFUSED) ||
		    !adopt_take(vault, slot, &entry))
			continue;
		/* A pipe for which there is no memory is left to follow_done() */
		(void)recover_take_pipes(worker, slot, pipes);
		connection_refuse(worker, slot, &entry, pipes);
	}
}

/*
 * From here on this is the service. Nobody has moved a byte yet. All that the peers need
 * not wait for comes after it.
 */
static int begin_to_serve(struct successor *successor)
{
	struct shared *shared = successor->shared;
	struct ledger_header *header = successor->vault->ledger.header;
	struct handover serving = {.type = HANDOVER_SERVING,
				   .number = successor->n_connections};
	int r;

	header->n_starts++;
	crash_init(header);
	refuse_rest(successor);
	for (uint32_t i = 0; i < successor->n_pipes; i++)
		recover_free_pipe(shared, successor->pipes[i]);
	follow_go_on(successor->vault);
	/* Where the other process has died meanwhile, its manager starts a third one */
	r = handover_send(successor->socket, &serving, NULL);
	if (r < 0)
		return r;
	gate_open(&shared->gate);
	return 0;
}

static void clean_up(struct successor *successor, uint32_t n_slots)
{
	struct shared *shared = successor->shared;

	successor->n_refused += follow_done(successor->vault, n_slots);
	for (size_t i = 0; i < shared->n_listeners; i++)
		listener_set_options(shared->listeners[i],
				     shared->options->keepalive_idle_usec);
	free(successor->connections);
	free(successor->marks);
	free(successor->pipes);
	successor->connections = NULL;
	successor->marks = NULL;
	successor->pipes = NULL;
}

static void say(const struct successor *successor)
{
	struct log_entry *line;

	if (successor->n_connections > 0)
		log_info("recv tcpconn and read");
	line = log_line_new(LOG_NOTICE, MESSAGE_TAKEOVER);
	log_entry_add(line, "HOLDFAST_OLD_PID=%llu", successor->old_pid);
	log_entry_add(line, "HOLDFAST_NEW_PID=%d", (int)getpid());
	log_entry_add(line, "HOLDFAST_CONNECTIONS=%u", successor->n_connections);
	log_entry_add(line, "HOLDFAST_PENDING=%llu",
		      (unsigned long long)successor->pending_bytes);
	log_entry_add(line, "HOLDFAST_REFUSED=%u", successor->n_refused);
	log_entry_add(line, "HOLDFAST_PAUSE_USEC=%llu",
		      (unsigned long long)successor->pause_usec);
	log_line_send(line,
		      "Took over %u connection%s with %llu pending byte%s from pid %llu, refused %u; "
		      "paused for %.3f ms",
		      successor->n_connections, plural(successor->n_connections),
		      (unsigned long long)successor->pending_bytes,
		      plural(successor->pending_bytes), successor->old_pid,
		      successor->n_refused,
		      (double)successor->pause_usec / USEC_PER_MSEC);
}

static int get_ready(struct successor *successor, struct handover *ret_go)
{
	struct handover ready = {.type = HANDOVER_READY};
	int r;

	r = prepare_all(successor);
	if (r < 0)
		return r;
	ready.number = successor->n_connections;
	/* From now on the peers may wait for it */
	leisure_end();
	r = handover_send(successor->socket, &ready, NULL);
	if (r == 0)
		r = wait_for_go(successor, ret_go);
	if (r < 0)
		return r;
	/* The last look: nothing changes any more, and the peers wait for it */
	successor->is_told_to_go = true;
	return look(successor);
}

int successor_take_over(struct successor *successor, struct shared *shared)
{
	struct handover go = {0};
	uint32_t n_slots;
	int r;

	successor->shared = shared;
	r = get_ready(successor, &go);
	if (r < 0)
		return successor_fail_state(successor, r);
	n_slots = successor->vault->ledger.header->n_slots_used;
	if (!ledger_take_offer(&successor->vault->ledger, go.number))
		return successor_fail(successor, -ETIME,
				      "the running process has not waited");
	r = begin_to_serve(successor);
	if (r < 0) {
		log_line(LOG_ERR, MESSAGE_TAKEOVER_FAILED, "Can't serve: %s",
			 strerror(-r));
		return r;
	}
	successor->pause_usec = time_now_usec() - go.usec;
	/* Beside its workers */
	leisure_begin(NULL);
	clean_up(successor, n_slots);
	leisure_end();
	say(successor);
	return 0;
}

/* ---- after it ---- */

void successor_get_result(const struct successor *successor,
			  struct successor_result *ret_result)
{
	*ret_result = (struct successor_result){
		.n_connections = successor->n_connections,
		.n_refused = successor->n_refused,
		.pending_bytes = successor->pending_bytes,
		.pause_usec = successor->pause_usec,
	};
}
