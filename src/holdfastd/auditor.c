/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/auditor.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/fd.h"
#include "holdfastd/worker.h"

/* What one worker does of an audit. */
struct part {
	struct worker_request request; /* first */
	struct auditor *auditor;
	struct audit_tally tally;
};

/* An audit that is wanted. */
struct order {
	bool all;
	void (*done)(void *userdata, const struct audit_result *result); /* NULL: none */
	void *userdata;
};

struct auditor {
	struct shared *shared;
	sd_event_source *listener; /* to done_fd */
	int done_fd;               /* the last worker is through */
	struct part *parts;        /* of each worker */

	/* Of the audit under way */
	uint64_t number;
	_Atomic unsigned n_left; /* workers that are not through */
	struct order order;
	struct audit_row *rows;  /* NULL: there is no memory for any */
	_Atomic uint32_t n_rows; /* with those for which there was no place */

	struct order next; /* to be begun after it */
};

/* ---- in the worker's thread ---- */

static void list_flow(struct auditor *auditor, const struct connection *connection,
		      unsigned i, const struct audit_flow *found)
{
	uint32_t n = atomic_fetch_add(&auditor->n_rows, 1);
	struct audit_row *row;

	if (n >= AUDITOR_ROWS_MAX || !auditor->rows)
		return;
	row = &auditor->rows[n];
	row->id = connection->record->id;
	row->service = connection->service;
	row->flow = i;
	row->found = *found;
	socket_format_peer(connection->peers[PEER_CLIENT].fd, row->peer,
			   sizeof(row->peer));
}

static void audit_one(struct part *part, struct connection *connection)
{
	struct audit audit;

	audit_connection(connection, AUDIT_SERVING, &audit, &part->tally);
	for (unsigned i = 0; i < audit.n_flows; i++)
		if (part->auditor->order.all || audit.flows[i].verdict == AUDIT_WRONG)
			list_flow(part->auditor, connection, i, &audit.flows[i]);
	if (audit.verdict != AUDIT_WRONG)
		return;
	audit_log(connection, &audit);
	connection_set_in_hand(connection, true);
	connection_abort(connection, "it has not passed its audit");
	connection_set_in_hand(connection, false);
}

/* From here on the worker's part is the main thread's. */
static void be_through(struct auditor *auditor)
{
	int fd = auditor->done_fd;

	/* Fails only when the counter is full, and then it is readable already */
	if (atomic_fetch_sub(&auditor->n_left, 1) == 1)
		(void)eventfd_write(fd, 1);
}

/* Those that were audited go to the end of the list, behind all that were not. */
static bool do_step(struct worker *worker, struct worker_request *request)
{
	struct part *part = (struct part *)(void *)request;

	for (unsigned n = 0; n < AUDITOR_STEP; n++) {
		struct connection *connection = TAILQ_FIRST(&worker->all);

		if (!connection || connection->audit == part->auditor->number) {
			be_through(part->auditor);
			return false;
		}
		TAILQ_REMOVE(&worker->all, connection, all_entry);
		TAILQ_INSERT_TAIL(&worker->all, connection, all_entry);
		connection->audit = part->auditor->number;
		audit_one(part, connection);
	}
	return true;
}

/* ---- in the main thread ---- */

static int compare_rows(const void *a, const void *b)
{
	const struct audit_row *x = a, *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	return (int)x->flow - (int)y->flow;
}

static void start(struct auditor *auditor, const struct order *order)
{
	struct shared *shared = auditor->shared;

	/* Memory is given by the page when touched: most rows never are */
	auditor->rows = calloc(AUDITOR_ROWS_MAX, sizeof(*auditor->rows));
	auditor->number++;
	auditor->n_left = shared->n_workers;
	auditor->n_rows = 0;
	auditor->order = *order;
	for (unsigned i = 0; i < shared->n_workers; i++) {
		auditor->parts[i] = (struct part){
			.request.step = do_step,
			.request.is_patient = true,
			.auditor = auditor,
		};
		worker_post(&shared->workers[i], &auditor->parts[i].request);
	}
}

static void report(const struct auditor *auditor)
{
	uint32_t n = auditor->n_rows, n_max = auditor->rows ? AUDITOR_ROWS_MAX : 0;
	struct audit_result result = {
		.rows = auditor->rows,
		.n_rows = n < n_max ? n : n_max,
	};

	result.n_unlisted = n - result.n_rows;
	for (unsigned i = 0; i < auditor->shared->n_workers; i++)
		audit_add_tally(&result.tally, &auditor->parts[i].tally);
	if (auditor->rows)
		qsort(auditor->rows, result.n_rows, sizeof(*auditor->rows), compare_rows);
	auditor->order.done(auditor->order.userdata, &result);
}

static void finish(struct auditor *auditor)
{
	struct order next;

	report(auditor);
	next = auditor->next;
	free(auditor->rows);
	auditor->rows = NULL;
	auditor->order = auditor->next = (struct order){0};
	if (next.done)
		start(auditor, &next);
}

static int on_done(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct auditor *auditor = userdata;
	eventfd_t n = 0;

	(void)source;
	(void)events;
	(void)eventfd_read(fd, &n); /* fails only when there is nothing to read */
	finish(auditor);
	return 0;
}

int auditor_new(struct shared *shared, sd_event *event, struct auditor **ret_auditor)
{
	struct auditor *auditor = calloc(1, sizeof(*auditor));
	int r;

	if (!auditor)
		return -ENOMEM;
	auditor->shared = shared;
	auditor->parts = calloc(shared->n_workers, sizeof(*auditor->parts));
	auditor->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!auditor->parts)
		r = -ENOMEM;
	else if (auditor->done_fd < 0)
		r = -errno;
	else
		r = sd_event_add_io(event, &auditor->listener, auditor->done_fd, EPOLLIN,
				    on_done, auditor);
	if (r < 0) {
		(void)fd_close(auditor->done_fd);
		free(auditor->parts);
		free(auditor);
		return r;
	}
	*ret_auditor = auditor;
	return 0;
}

int auditor_begin(struct auditor *auditor, bool all,
		  void (*done)(void *userdata, const struct audit_result *result),
		  void *userdata)
{
	struct order order = {.all = all, .done = done, .userdata = userdata};

	if (!auditor->order.done)
		start(auditor, &order);
	else if (!auditor->next.done)
		auditor->next = order;
	else
		return -EBUSY;
	return 0;
}
