/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/plural.h"
#include "ctl/format.h"
#include "ctl/pager.h"
#include "ctl/properties.h"
#include "ctl/utf8.h"
#include "ctl/verbs.h"

static void print_adopt(const struct instance_report *report)
{
	char pending[FORMAT_SIZE], pause[FORMAT_SIZE];

	if (strcmp(report->adopt_kind, "none") == 0) {
		(void)printf(" Last adopt: none, nothing was there\n");
		return;
	}
	(void)printf(" Last adopt: %s, %u connection%s with %s pending, %u refused, in %s\n",
		     PRINTABLE(report->adopt_kind), report->adopt_n_connections,
		     plural(report->adopt_n_connections),
		     format_bytes(report->adopt_pending, pending),
		     report->adopt_n_refused,
		     format_pause(report->adopt_pause_usec, pause));
}

static void print_text(const char *name, const struct properties *properties)
{
	const struct instance_report *report = &properties->report;
	const char *begin = pager_has_color() ? "\x1b[0;1m" : "";
	const char *end = pager_has_color() ? "\x1b[0m" : "";
	char text[FORMAT_SIZE];

	(void)printf("%s%s%s\n", begin, name, end);
	(void)printf("    Service: %s\n", PRINTABLE(report->service));
	(void)printf("    Process: pid %u, version %s, up %s, %u workers\n",
		     properties->pid, PRINTABLE(properties->version),
		     format_timespan(report->uptime_usec, text), report->n_workers);
	(void)printf("Connections: %u (limit: %u), %llu accepted in all\n",
		     report->n_connections, report->connections_max,
		     (unsigned long long)report->n_accepted);
	(void)printf("      Moved: %s by this process\n",
		     format_bytes(report->bytes_moved, text));
	(void)printf("   Restarts: %u survived\n", report->n_restarts);
	print_adopt(report);
	(void)printf("    Parcels: %u%s\n", report->n_parcels,
		     report->store_is_full ? ", the fd store is full" : "");
	(void)printf("     Ledger: version %u, %u of %u slots used\n",
		     report->ledger_version, report->ledger_slots_used,
		     report->ledger_slots);
	(void)printf("      Pipes: %u\n", report->n_pipes);
}

static void put_json(const char *name, const struct properties *properties,
		     struct json *json)
{
	const struct instance_report *report = &properties->report;

	json_open_object(json);
	json_name(json, "instance");
	json_string(json, name);
	json_name(json, "version");
	json_string(json, properties->version);
	json_name(json, "pid");
	json_number(json, properties->pid);
#define PUT_s json_string
#define PUT_t json_number
#define PUT_u json_number
#define PUT_b json_bool
#define PUT(type, name, field)   \
	json_name(json, #field); \
	PUT_##type(json, report->field);
	INSTANCE_PROPERTIES(PUT)
#undef PUT
	json_close(json);
}

int verb_status(const struct request *request)
{
	struct json json = json_begin(stdout, request->json);
	bool was_well = true, is_first = true;

	if (!request->no_pager)
		pager_open();
	if (request->json != JSON_OFF)
		json_open_array(&json);
	for (size_t i = 0; i < request->targets.n; i++) {
		const struct target *target = &request->targets.list[i];
		struct properties properties;

		if (properties_get(target, &properties) < 0) {
			was_well = false;
		} else if (request->json != JSON_OFF) {
			put_json(target->name, &properties, &json);
		} else {
			(void)fputs(is_first ? "" : "\n", stdout);
			print_text(target->name, &properties);
			is_first = false;
		}
		properties_done(&properties);
	}
	if (request->json != JSON_OFF) {
		json_close(&json);
		json_end(&json);
	}
	return finish_output(was_well);
}
