/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What each of a worker's connections waits for, and what is said of limits. See
 * worker.h. */
#include <stdarg.h>

#include "base/log.h"
#include "base/time.h"
#include "holdfastd/messages.h"
#include "holdfastd/recover.h"
#include "holdfastd/services/log.h"
#include "holdfastd/worker.h"

/* ---- lists ---- */

void worker_add(struct worker *worker, struct connection *connection)
{
	TAILQ_INSERT_TAIL(&worker->all, connection, all_entry);
	registry_add(&worker->shared->registry, connection->slot, connection->record->id,
		     worker->index, connection);
	atomic_fetch_add(&worker->shared->n_connections, 1);
}

void worker_clear_timer(struct worker *worker, struct connection *connection)
{
	(void)worker;
	if (connection->timer_list)
		TAILQ_REMOVE(connection->timer_list, connection, timer_entry);
	connection->timer_list = NULL;
}

static void set_timer(struct worker *worker, struct connection *connection,
		      struct connection_list *list)
{
	worker_clear_timer(worker, connection);
	TAILQ_INSERT_TAIL(list, connection, timer_entry);
	connection->timer_list = list;
}

void worker_set_connecting(struct worker *worker, struct connection *connection)
{
	set_timer(worker, connection, &worker->connecting);
}

void worker_set_failing(struct worker *worker, struct connection *connection)
{
	set_timer(worker, connection, &worker->failing);
}

void worker_set_soon(struct worker *worker, struct connection *connection)
{
	if (TAILQ_EMPTY(&worker->soon))
		worker->soon_usec = worker->now_usec + LOOK_AGAIN_USEC;
	set_timer(worker, connection, &worker->soon);
}

void worker_set_idle(struct worker *worker, struct connection *connection)
{
	if (worker->shared->options->idle_timeout_usec != USEC_INFINITY &&
	    connection->state == CONNECTION_OPEN)
		set_timer(worker, connection, &worker->idle);
}

void worker_set_young(struct worker *worker, struct connection *connection)
{
	if (connection->is_young ||
	    worker->shared->options->keepalive_idle_usec == USEC_INFINITY)
		return;
	connection->is_young = true;
	connection->young_usec = worker->now_usec;
	TAILQ_INSERT_TAIL(&worker->young, connection, young_entry);
}

void worker_clear_young(struct worker *worker, struct connection *connection)
{
	if (connection->is_young)
		TAILQ_REMOVE(&worker->young, connection, young_entry);
	connection->is_young = false;
}

static void set_turn(struct connection_list *list, struct connection *connection)
{
	if (connection->turn_list)
		return;
	connection->turn_list = list;
	TAILQ_INSERT_TAIL(list, connection, turn_entry);
}

void worker_set_ready(struct worker *worker, struct connection *connection)
{
	set_turn(&worker->ready, connection);
}

void worker_set_busy(struct worker *worker, struct connection *connection)
{
	set_turn(&worker->busy, connection);
}

void worker_clear_turn(struct connection *connection)
{
	if (connection->turn_list)
		TAILQ_REMOVE(connection->turn_list, connection, turn_entry);
	connection->turn_list = NULL;
}

void worker_set_unsettled(struct worker *worker, struct connection *connection)
{
	connection->is_unsettled = true;
	TAILQ_INSERT_HEAD(&worker->unsettled, connection, pipe_entry);
}

void worker_clear_unsettled(struct worker *worker, struct connection *connection)
{
	if (!connection->is_unsettled)
		return;
	connection->is_unsettled = false;
	TAILQ_REMOVE(&worker->unsettled, connection, pipe_entry);
	if (!TAILQ_EMPTY(&worker->unsettled))
		return;
	recover_note_settled(worker);
	worker_wake(worker); /* for the requests that had to wait */
}

void worker_wait_for_pipe(struct worker *worker, struct connection *connection)
{
	if (connection->is_waiting_for_pipe)
		return;
	connection->is_waiting_for_pipe = true;
	if (TAILQ_EMPTY(&worker->pipe_waiters))
		worker->pipes_since_usec = worker->now_usec;
	TAILQ_INSERT_TAIL(&worker->pipe_waiters, connection, pipe_entry);
}

void worker_clear_waiting(struct worker *worker, struct connection *connection)
{
	if (connection->is_waiting_for_pipe)
		TAILQ_REMOVE(&worker->pipe_waiters, connection, pipe_entry);
	connection->is_waiting_for_pipe = false;
}

void worker_wake_accept_waiters(struct shared *shared)
{
	if (shared->n_accept_waiting == 0)
		return;
	for (unsigned i = 0; i < shared->n_workers; i++)
		worker_wake(&shared->workers[i]);
}

void worker_remove(struct worker *worker, struct connection *connection)
{
	struct shared *shared = worker->shared;

	worker_clear_timer(worker, connection);
	worker_clear_young(worker, connection);
	worker_clear_turn(connection);
	worker_clear_waiting(worker, connection);
	worker_clear_unsettled(worker, connection);
	TAILQ_REMOVE(&worker->all, connection, all_entry);
	TAILQ_INSERT_TAIL(&worker->closed, connection, all_entry);
	/* Its slot may be free already, but it can't be another worker's yet: the packer
	 * keeps the last one that it was given */
	registry_remove(&shared->registry, connection->slot);
	shared->last_end_usec = worker->now_usec;
	atomic_fetch_sub(&shared->n_connections, 1);
	worker_wake_accept_waiters(shared);
}

/* Events of this batch may have named them until now; the log thread still may. */
void worker_free_closed(struct worker *worker)
{
	struct connection *connection = TAILQ_FIRST(&worker->closed);

	while (connection) {
		struct connection *next = TAILQ_NEXT(connection, all_entry);

		if (!log_job_is_under_way(connection->log_job)) {
			TAILQ_REMOVE(&worker->closed, connection, all_entry);
			(void)connection_free(connection);
		}
		connection = next;
	}
}

/* ---- limits: said once ---- */

static const char *const limit_names[LIMIT_MAX] = {
	[LIMIT_CONNECTIONS] = "connections",
	[LIMIT_FILES] = "files",
	[LIMIT_STORE] = "store",
	[LIMIT_IN_FLIGHT] = "in-flight",
	[LIMIT_LEDGER] = "ledger",
	[LIMIT_PIPES] = "pipes",
	[LIMIT_MEMORY] = "memory",
};

void worker_limit_reached(struct shared *shared, enum limit limit, const char *format,
			  ...)
{
	uint64_t now = time_now_usec();
	uint64_t last = atomic_exchange(&shared->limit_usec[limit], now);
	struct log_entry *entry;
	va_list arguments;

	if (last != 0 && now - last < LIMIT_QUIET_USEC)
		return;
	va_start(arguments, format);
	entry = log_line_new(LOG_WARNING, MESSAGE_LIMIT);
	log_entry_add(entry, "HOLDFAST_LIMIT=%s", limit_names[limit]);
	log_line_submit(entry, format, arguments);
	va_end(arguments);
}
