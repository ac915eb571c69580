/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a takeover asks of the workers, of the old process and of the new one. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "holdfastd/worker.h"

static int compare_active(const void *a, const void *b)
{
	uint64_t x = (*(struct connection *const *)a)->active_usec;
	uint64_t y = (*(struct connection *const *)b)->active_usec;

	return x < y ? -1 : x > y;
}

int worker_sort_idle(struct worker *worker)
{
	struct connection *connection, **list;
	size_t n = 0;

	TAILQ_FOREACH(connection, &worker->idle, timer_entry)
	n++;
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		list[i] = TAILQ_FIRST(&worker->idle);
		worker_clear_timer(worker, list[i]);
	}
	qsort(list, n, sizeof(*list), compare_active);
	for (size_t i = 0; i < n; i++)
		worker_set_idle(worker, list[i]);
	free(list);
	return 0;
}

void worker_place_idle(struct worker *worker, struct connection *connection)
{
	struct connection *before;

	if (connection->timer_list != &worker->idle)
		return;
	TAILQ_REMOVE(&worker->idle, connection, timer_entry);
	TAILQ_FOREACH_REVERSE(before, &worker->idle, connection_list, timer_entry)
	if (before->active_usec <= connection->active_usec)
		break;
	if (before)
		TAILQ_INSERT_AFTER(&worker->idle, before, connection, timer_entry);
	else
		TAILQ_INSERT_HEAD(&worker->idle, connection, timer_entry);
}

static bool hold_up_all(struct shared *shared, uint64_t until_usec)
{
	gate_close(&shared->gate);
	for (unsigned i = 0; i < shared->n_workers; i++)
		worker_wake(&shared->workers[i]);
	return gate_wait_for_all(&shared->gate, shared->n_workers, until_usec);
}

bool worker_halt_all(struct shared *shared, uint64_t until_usec)
{
	shared->is_ending = true;
	return hold_up_all(shared, until_usec);
}

bool worker_stop_all(struct shared *shared, uint64_t until_usec)
{
	if (hold_up_all(shared, until_usec))
		return true;
	gate_open(&shared->gate);
	return false;
}

void worker_set_cpus_all(struct shared *shared, const cpu_set_t *cpus)
{
	for (unsigned i = 0; i < shared->n_workers; i++)
		(void)pthread_setaffinity_np(shared->workers[i].thread, sizeof(*cpus),
					     cpus);
}

void worker_let_go_all(struct shared *shared, uint64_t until_usec)
{
	unsigned n = 0;

	for (unsigned i = 0; i < shared->n_workers; i++) {
		struct connection *connection;

		TAILQ_FOREACH(connection, &shared->workers[i].all, all_entry)
		{
			connection_let_go(connection);
			if (++n % LET_GO_STEP != 0)
				continue;
			if (time_now_usec() > until_usec)
				return;
			(void)usleep(LET_GO_BREATH_USEC);
		}
	}
}
