/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * OpenMetrics text. Only counters and gauges: an older parser of textfile collectors
 * refuses a file with a type that it does not know, and takes the rest as comments.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/time.h"
#include "ctl/properties.h"
#include "ctl/utf8.h"
#include "ctl/verbs.h"

struct answer {
	const struct target *target;
	bool has_come;
	struct properties properties;
};

/* The family's name after holdfast_, with its unit if it has one; whether it only grows,
 * and its samples' names end in _total; the value; what it is. */
#define METRICS(X)                                                                    \
	X("uptime_seconds", "seconds", false, seconds(report->uptime_usec),           \
	  "How long the process has run")                                             \
	X("connections", NULL, false, report->n_connections,                          \
	  "Connections that are open")                                                \
	X("connections_max", NULL, false, report->connections_max,                    \
	  "Connections that may be open")                                             \
	X("accepted_connections", NULL, true, report->n_accepted,                     \
	  "Connections that were accepted, by all processes")                         \
	X("moved_bytes", "bytes", true, report->bytes_moved,                          \
	  "Bytes that this process has delivered")                                    \
	X("restarts", NULL, true, report->n_restarts, "Restarts that were survived")  \
	X("workers", NULL, false, report->n_workers, "Worker threads")                \
	X("parcels", NULL, false, report->n_parcels, "Parcels in the fd store")       \
	X("store_full", NULL, false, report->store_is_full,                           \
	  "Whether the fd store takes no more")                                       \
	X("ledger_slots", NULL, false, report->ledger_slots, "Slots of the ledger")   \
	X("ledger_slots_used", NULL, false, report->ledger_slots_used,                \
	  "Slots of the ledger that were ever used")                                  \
	X("pipes", NULL, false, report->n_pipes, "Pipes, free and lent")              \
	X("adopted_connections", NULL, false, report->adopt_n_connections,            \
	  "Connections that this process has adopted")                                \
	X("adopted_bytes", "bytes", false, report->adopt_pending,                     \
	  "Pending bytes that this process has adopted")                              \
	X("adopt_refused", NULL, false, report->adopt_n_refused,                      \
	  "Connections that this process could not adopt")                            \
	X("adopt_pause_seconds", "seconds", false, seconds(report->adopt_pause_usec), \
	  "How long nobody served while this process adopted")

static double seconds(uint64_t usec)
{
	return (double)usec / (double)USEC_PER_SEC;
}

static void put_label(const char *name, const char *value)
{
	(void)printf("%s=\"", name);
	while (*value) {
		size_t length = utf8_length(value);

		if (*value == '\n')
			(void)fputs("\\n", stdout);
		else if (*value == '"' || *value == '\\')
			(void)printf("\\%c", *value);
		else if (length > 0)
			(void)fwrite(value, 1, length, stdout);
		else
			(void)fputs("\xef\xbf\xbd", stdout);
		value += length > 0 ? length : 1;
	}
	(void)putchar('"');
}

static void put_family(const char *name, const char *unit, bool is_counter,
		       const char *help)
{
	(void)printf("# TYPE holdfast_%s %s\n", name, is_counter ? "counter" : "gauge");
	if (unit)
		(void)printf("# UNIT holdfast_%s %s\n", name, unit);
	(void)printf("# HELP holdfast_%s %s.\n", name, help);
}

static void put_sample(const char *name, bool is_counter, const struct target *target,
		       double value)
{
	(void)printf("holdfast_%s%s{", name, is_counter ? "_total" : "");
	put_label("instance", target->name);
	(void)printf("} %.15g\n", value);
}

static void put_up(const struct answer *answers, size_t n)
{
	put_family("up", NULL, false, "Whether the instance has answered");
	for (size_t i = 0; i < n; i++)
		put_sample("up", false, answers[i].target, answers[i].has_come);
	put_family("build_info", NULL, false, "Always 1");
	for (size_t i = 0; i < n; i++) {
		if (!answers[i].has_come)
			continue;
		(void)fputs("holdfast_build_info{", stdout);
		put_label("instance", answers[i].target->name);
		(void)putchar(',');
		put_label("version", answers[i].properties.version);
		(void)putchar(',');
		put_label("service", answers[i].properties.report.service);
		(void)fputs("} 1\n", stdout);
	}
}

static void put_metrics(const struct answer *answers, size_t n)
{
	put_up(answers, n);
#define PUT(name, unit, is_counter, value, help)                                      \
	put_family(name, unit, is_counter, help);                                     \
	for (size_t i = 0; i < n; i++) {                                              \
		const struct instance_report *report = &answers[i].properties.report; \
		if (answers[i].has_come)                                              \
			put_sample(name, is_counter, answers[i].target,               \
				   (double)(value));                                  \
	}
	METRICS(PUT)
#undef PUT
	(void)puts("# EOF");
}

int verb_metrics(const struct request *request)
{
	size_t n = request->targets.n;
	struct answer *answers = calloc(n + 1, sizeof(*answers));
	bool was_well = answers != NULL;

	for (size_t i = 0; i < n && answers; i++) {
		answers[i].target = &request->targets.list[i];
		answers[i].has_come =
			properties_get(answers[i].target, &answers[i].properties) == 0;
		was_well = was_well && answers[i].has_come;
	}
	if (answers)
		put_metrics(answers, n);
	for (size_t i = 0; i < n && answers; i++)
		properties_done(&answers[i].properties);
	free(answers);
	return finish_output(was_well);
}
