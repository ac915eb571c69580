/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/inspection.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/fd.h"
#include "base/instance.h"
#include "holdfastd/control.h"
#include "holdfastd/report.h"
#include "holdfastd/worker.h"

enum query_kind {
	QUERY_LIST,
	QUERY_GET,
	QUERY_CLOSE,
	QUERY_RESET,
};

/* What the registry has said of a slot. */
struct found {
	uint32_t slot;
	unsigned worker;
	uint64_t id;
};

/* Belongs to the main thread, but for the time that a worker has its request. */
struct query {
	struct worker_request request; /* first */
	TAILQ_ENTRY(query) entry;      /* of those that scan, or that were answered */
	struct inspection *inspection;
	struct control_call *call;
	enum query_kind kind;
	uint64_t id;   /* all but lists: the one that is looked for */
	uint32_t slot; /* the next one to look at */
	uint32_t n_max;
	uint32_t n;
	unsigned worker; /* that is asked, or to be asked next */
	uint32_t at;     /* how far it has come */
	struct found *found;
	struct connection_report *reports; /* of each found; id 0: it is gone */
};

TAILQ_HEAD(queries, query);

struct inspection {
	struct shared *shared;
	sd_event_source *scanner;
	sd_event_source *listener; /* to answered_fd */
	int answered_fd;
	unsigned n_queries;
	struct queries scanning;

	pthread_mutex_t lock; /* of: */
	struct queries answered;
};

/* ---- queries ---- */

static void query_free(struct query *query)
{
	if (!query)
		return;
	free(query->found);
	free(query->reports);
	free(query);
}

static struct query *query_new(uint32_t n_max)
{
	struct query *query = calloc(1, sizeof(*query));

	if (!query)
		return NULL;
	query->n_max = n_max;
	query->found = calloc(n_max, sizeof(*query->found));
	query->reports = calloc(n_max, sizeof(*query->reports));
	if (query->found && query->reports)
		return query;
	query_free(query);
	return NULL;
}

static void answer_one(struct query *query)
{
	char text[64];

	if (query->n > 0 && query->reports[0].id != 0) {
		if (query->kind == QUERY_GET)
			control_call_report(query->call, &query->reports[0]);
		else
			control_call_done(query->call);
		return;
	}
	(void)snprintf(text, sizeof(text), "there is no connection %llu",
		       (unsigned long long)query->id);
	control_call_fail(query->call, -ENXIO, text);
}

static void finish(struct query *query)
{
	struct inspection *inspection = query->inspection;
	bool has_all = query->slot >= registry_end(&inspection->shared->registry);

	if (query->kind == QUERY_LIST)
		control_call_list(query->call, has_all ? 0 : query->slot, query->reports,
				  query->n);
	else
		answer_one(query);
	inspection->n_queries--;
	query_free(query);
}

/* ---- in the worker's thread ---- */

static void do_one(struct worker *worker, struct query *query, uint32_t i)
{
	const struct found *found = &query->found[i];
	struct connection *connection =
		registry_get(&worker->shared->registry, found->slot, found->id,
			     worker->index);

	if (!connection)
		return;
	report_connection(connection, &query->reports[i]);
	if (query->kind == QUERY_CLOSE)
		connection_close(connection);
	else if (query->kind == QUERY_RESET)
		connection_reset(connection);
}

static void give_back(struct query *query)
{
	struct inspection *inspection = query->inspection;

	pthread_mutex_lock(&inspection->lock);
	TAILQ_INSERT_TAIL(&inspection->answered, query, entry);
	pthread_mutex_unlock(&inspection->lock);
	/* Fails only when the counter is full, and then it is readable already */
	(void)eventfd_write(inspection->answered_fd, 1);
}

static bool do_step(struct worker *worker, struct worker_request *request)
{
	struct query *query = (struct query *)(void *)request;

	for (unsigned n = 0; query->at < query->n; query->at++) {
		if (query->found[query->at].worker != worker->index)
			continue;
		if (n++ == INSPECTION_STEP)
			return true;
		do_one(worker, query, query->at);
	}
	give_back(query);
	return false;
}

/* ---- in the main thread ---- */

static bool has_any_of(const struct query *query, unsigned worker)
{
	for (uint32_t i = 0; i < query->n; i++)
		if (query->found[i].worker == worker)
			return true;
	return false;
}

/* One worker after the other: each has a part of what was found. */
static void ask_next(struct query *query)
{
	struct shared *shared = query->inspection->shared;

	for (; query->worker < shared->n_workers; query->worker++) {
		struct worker *worker = &shared->workers[query->worker];

		if (!has_any_of(query, query->worker))
			continue;
		query->worker++;
		query->at = 0;
		worker_post(worker, &query->request);
		return;
	}
	finish(query);
}

static int on_answered(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct inspection *inspection = userdata;
	struct queries answered = TAILQ_HEAD_INITIALIZER(answered);
	struct query *query;
	eventfd_t n;

	(void)source;
	(void)events;
	(void)eventfd_read(fd, &n); /* fails only when there is nothing to read */
	pthread_mutex_lock(&inspection->lock);
	TAILQ_CONCAT(&answered, &inspection->answered, entry);
	pthread_mutex_unlock(&inspection->lock);
	while ((query = TAILQ_FIRST(&answered))) {
		TAILQ_REMOVE(&answered, query, entry);
		ask_next(query);
	}
	return 0;
}

/* Returns whether there is no more to be found. */
static bool scan_slice(struct query *query)
{
	const struct registry *registry = &query->inspection->shared->registry;
	uint32_t end = registry_end(registry);

	for (uint32_t n = 0; n < INSPECTION_SLICE; n++) {
		struct found *found = &query->found[query->n];

		if (query->slot >= end || query->n == query->n_max)
			return true;
		found->slot = query->slot++;
		if (registry_look(registry, found->slot, &found->id, &found->worker) &&
		    (query->kind == QUERY_LIST || found->id == query->id))
			query->n++;
	}
	return query->n == query->n_max;
}

static int on_scan(sd_event_source *source, void *userdata)
{
	struct inspection *inspection = userdata;
	struct query *query = TAILQ_FIRST(&inspection->scanning);

	TAILQ_REMOVE(&inspection->scanning, query, entry);
	if (scan_slice(query))
		ask_next(query);
	else
		TAILQ_INSERT_TAIL(&inspection->scanning, query, entry);
	return sd_event_source_set_enabled(source, TAILQ_EMPTY(&inspection->scanning)
							   ? SD_EVENT_OFF
							   : SD_EVENT_ON);
}

static int begin(struct inspection *inspection, const struct query *wanted,
		 struct control_call *call)
{
	struct query *query;
	int r;

	if (inspection->n_queries == INSPECTION_QUERIES_MAX)
		return -EBUSY;
	query = query_new(wanted->n_max);
	if (!query)
		return -ENOMEM;
	r = sd_event_source_set_enabled(inspection->scanner, SD_EVENT_ON);
	if (r < 0) {
		query_free(query);
		return r;
	}
	query->request.step = do_step;
	query->inspection = inspection;
	query->call = call;
	query->kind = wanted->kind;
	query->id = wanted->id;
	query->slot = wanted->slot;
	inspection->n_queries++;
	TAILQ_INSERT_TAIL(&inspection->scanning, query, entry);
	return 0;
}

int inspection_list(struct inspection *inspection, uint32_t after, uint32_t max,
		    struct control_call *call)
{
	struct query query = {
		.kind = QUERY_LIST,
		.slot = after,
		.n_max = max == 0 || max > INSTANCE_PAGE_MAX ? INSTANCE_PAGE_MAX : max,
	};

	return begin(inspection, &query, call);
}

int inspection_get(struct inspection *inspection, uint64_t id, struct control_call *call)
{
	struct query query = {.kind = QUERY_GET, .id = id, .n_max = 1};

	return begin(inspection, &query, call);
}

int inspection_close(struct inspection *inspection, uint64_t id, bool reset,
		     struct control_call *call)
{
	struct query query = {
		.kind = reset ? QUERY_RESET : QUERY_CLOSE,
		.id = id,
		.n_max = 1,
	};

	return begin(inspection, &query, call);
}

static int add_sources(struct inspection *inspection, sd_event *event)
{
	int r;

	if ((r = sd_event_add_io(event, &inspection->listener, inspection->answered_fd,
				 EPOLLIN, on_answered, inspection)) < 0 ||
	    (r = sd_event_add_defer(event, &inspection->scanner, on_scan, inspection)) <
		    0 ||
	    (r = sd_event_source_set_enabled(inspection->scanner, SD_EVENT_OFF)) < 0 ||
	    (r = sd_event_source_set_priority(inspection->listener, CONTROL_PRIORITY)) <
		    0)
		return r;
	return sd_event_source_set_priority(inspection->scanner, CONTROL_PRIORITY);
}

int inspection_new(struct shared *shared, sd_event *event,
		   struct inspection **ret_inspection)
{
	struct inspection *inspection = calloc(1, sizeof(*inspection));
	int r;

	if (!inspection)
		return -ENOMEM;
	inspection->shared = shared;
	TAILQ_INIT(&inspection->scanning);
	TAILQ_INIT(&inspection->answered);
	pthread_mutex_init(&inspection->lock, NULL);
	inspection->answered_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = inspection->answered_fd < 0 ? -errno : add_sources(inspection, event);
	if (r < 0) {
		(void)sd_event_source_disable_unref(inspection->listener);
		(void)sd_event_source_disable_unref(inspection->scanner);
		(void)fd_close(inspection->answered_fd);
		free(inspection);
		return r;
	}
	*ret_inspection = inspection;
	return 0;
}
