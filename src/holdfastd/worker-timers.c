/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What becomes due for a worker's connections. See worker.h. */
#include "base/time.h"
#include "holdfastd/accept.h"
#include "holdfastd/services/log.h"
#include "holdfastd/services/relay.h"
#include "holdfastd/worker.h"

static uint64_t list_due_usec(const struct connection_list *list, uint64_t timeout_usec)
{
	const struct connection *first = TAILQ_FIRST(list);

	if (!first || timeout_usec == USEC_INFINITY)
		return USEC_INFINITY;
	return first->since_usec + timeout_usec;
}

static uint64_t idle_due_usec(const struct worker *worker)
{
	const struct connection *first = TAILQ_FIRST(&worker->idle);

	return first ? first->active_usec + worker->shared->options->idle_timeout_usec
		     : USEC_INFINITY;
}

static uint64_t young_due_usec(const struct worker *worker)
{
	const struct connection *first = TAILQ_FIRST(&worker->young);

	return first ? first->young_usec + YOUNG_USEC : USEC_INFINITY;
}

static uint64_t min_usec(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t due_usec(const struct worker *worker)
{
	uint64_t due = list_due_usec(&worker->connecting,
				     worker->shared->options->connect_timeout_usec);

	due = min_usec(due, idle_due_usec(worker));
	due = min_usec(due, young_due_usec(worker));
	if (!worker->is_accepting)
		due = min_usec(due, worker->accept_again_usec);
	if (!TAILQ_EMPTY(&worker->soon))
		due = min_usec(due, worker->soon_usec);
	due = min_usec(due, list_due_usec(&worker->failing, LINGER_USEC_MAX));
	if (!STAILQ_EMPTY(&worker->resting))
		due = min_usec(due, worker->rested_usec);
	if (!TAILQ_EMPTY(&worker->pipe_waiters))
		due = min_usec(due, worker->now_usec + PIPE_RETRY_USEC);
	return due;
}

int worker_wait_msec(const struct worker *worker)
{
	uint64_t due = due_usec(worker);

	if (!TAILQ_EMPTY(&worker->ready) || !TAILQ_EMPTY(&worker->busy))
		return 0;
	if (due == USEC_INFINITY)
		return -1;
	if (due <= worker->now_usec)
		return 0;
	due = (due - worker->now_usec + USEC_PER_MSEC - 1) / USEC_PER_MSEC;
	return due > INT32_MAX ? INT32_MAX : (int)due;
}

static void run_soon(struct worker *worker)
{
	struct connection_list list = TAILQ_HEAD_INITIALIZER(list);
	struct connection *connection;

	/* Those that put themselves back are for the next time */
	TAILQ_CONCAT(&list, &worker->soon, timer_entry);
	TAILQ_FOREACH(connection, &list, timer_entry)
	connection->timer_list = &list;
	while ((connection = TAILQ_FIRST(&list))) {
		worker_clear_timer(worker, connection);
		connection_timeout(connection);
	}
}

void worker_note_told(struct worker *worker, int n, uint64_t called_usec)
{
	const struct shared *shared = worker->shared;

	if (n >= WORKER_EVENTS_MAX && worker->n_untold > (size_t)n) {
		worker->n_untold -= (size_t)n;
		return;
	}
	worker->told_usec = n < WORKER_EVENTS_MAX ? called_usec : worker->since_usec;
	worker->since_usec = called_usec;
	worker->n_untold =
		CONNECTION_PEERS * shared->n_connections + shared->n_listeners + 1;
}

/* Whether it is not for its peers that no byte moves: for a turn, a pipe or the journal. */
static bool waits_for_us(const struct connection *connection)
{
	return connection->turn_list || connection->is_waiting_for_pipe ||
	       log_job_is_under_way(connection->log_job);
}

void worker_run_idle(struct worker *worker)
{
	while (idle_due_usec(worker) <= worker->told_usec) {
		struct connection *connection = TAILQ_FIRST(&worker->idle);

		if (waits_for_us(connection)) {
			connection->active_usec = worker->now_usec;
			worker_set_idle(worker, connection);
		} else {
			connection_timeout(connection);
		}
	}
}

static void run_young(struct worker *worker)
{
	for (unsigned n = 0;
	     n < WORKER_GROWN_MAX && young_due_usec(worker) <= worker->now_usec; n++) {
		struct connection *connection = TAILQ_FIRST(&worker->young);

		worker_clear_young(worker, connection);
		relay_keep_alive(connection);
	}
}

void worker_run_timers(struct worker *worker)
{
	uint64_t connect_timeout = worker->shared->options->connect_timeout_usec;

	while (list_due_usec(&worker->connecting, connect_timeout) <= worker->now_usec) {
		struct connection *connection = TAILQ_FIRST(&worker->connecting);

		worker_clear_timer(worker, connection);
		connection_timeout(connection);
	}
	while (list_due_usec(&worker->failing, LINGER_USEC_MAX) <= worker->now_usec)
		connection_timeout(TAILQ_FIRST(&worker->failing));
	if (!TAILQ_EMPTY(&worker->soon) && worker->soon_usec <= worker->now_usec)
		run_soon(worker);
	run_young(worker);
	if (!worker->is_accepting && worker->accept_again_usec <= worker->now_usec)
		accept_resume(worker);
	if (!STAILQ_EMPTY(&worker->resting) && worker->rested_usec <= worker->now_usec)
		worker_resume_requests(worker);
}
