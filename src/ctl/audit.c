/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/instance.h"
#include "base/plural.h"
#include "base/time.h"
#include "ctl/instance.h"
#include "ctl/utf8.h"
#include "ctl/verbs.h"

/* The service audits thousands of connections in a second: this is for one that hangs. */
#define ANSWER_TIMEOUT_USEC (60 * USEC_PER_SEC)

/* What INSTANCE_AUDIT answers, before the rows. */
struct summary {
	uint64_t n_right, n_not_audited, n_wrong, n_unlisted;
};

struct row {
	uint64_t id;
	const char *service, *peer, *source, *verdict, *why;
	int64_t consumed, recorded, pending, delivered;
};

static int ask(sd_bus *bus, const struct request *request, sd_bus_message **ret_reply)
{
	sd_bus_message *call = NULL;
	int r;

	r = sd_bus_message_new_method_call(bus, &call, NULL, INSTANCE_OBJECT,
					   INSTANCE_INTERFACE, INSTANCE_AUDIT);
	if (r >= 0)
		r = sd_bus_message_append(call, "b", (int)request->all);
	if (r < 0)
		(void)fprintf(stderr, "holdfastctl: can't ask: %s\n", strerror(-r));
	else
		r = instance_call(call, request->targets.list[0].name,
				  ANSWER_TIMEOUT_USEC, ret_reply);
	(void)sd_bus_message_unref(call);
	return r;
}

static void print_row(const struct row *row)
{
	(void)printf("%10" PRIu64 " %-7s %-8s %15" PRId64 " %15" PRId64 " %10" PRId64
		     " %15" PRId64 " %-11s %s%s%s\n",
		     row->id, PRINTABLE(row->service), PRINTABLE(row->source),
		     row->consumed, row->recorded, row->pending, row->delivered,
		     PRINTABLE(row->verdict), PRINTABLE(row->peer), *row->why ? ": " : "",
		     PRINTABLE(row->why));
}

static void print_header(void)
{
	(void)printf("%10s %-7s %-8s %15s %15s %10s %15s %-11s %s\n", "CONNECTION",
		     "SERVICE", "FROM", "CONSUMED", "RECORDED", "PENDING", "DELIVERED",
		     "VERDICT", "CLIENT");
}

static void put_row(const struct row *row, struct json *json)
{
	json_open_object(json);
	json_name(json, "connection");
	json_number(json, row->id);
	json_name(json, "service");
	json_string(json, row->service);
	json_name(json, "from");
	json_string(json, row->source);
	json_name(json, "consumed");
	json_integer(json, row->consumed);
	json_name(json, "recorded");
	json_integer(json, row->recorded);
	json_name(json, "pending");
	json_integer(json, row->pending);
	json_name(json, "delivered");
	json_integer(json, row->delivered);
	json_name(json, "verdict");
	json_string(json, row->verdict);
	json_name(json, "client");
	json_string(json, row->peer);
	json_name(json, "why");
	json_string(json, row->why);
	json_close(json);
}

/* json: NULL for text. */
static int print_rows(sd_bus_message *reply, struct json *json)
{
	bool is_first = true;
	struct row row;
	int r;

	r = sd_bus_message_enter_container(reply, 'a', "(" INSTANCE_AUDITED ")");
	while (r >= 0 && (r = sd_bus_message_read(reply, "(" INSTANCE_AUDITED ")",
						  &row.id, &row.service, &row.peer,
						  &row.source, &row.verdict, &row.why,
						  &row.consumed, &row.recorded,
						  &row.pending, &row.delivered)) > 0) {
		if (json) {
			put_row(&row, json);
			continue;
		}
		if (is_first)
			print_header();
		is_first = false;
		print_row(&row);
	}
	return r;
}

static void print_summary(const struct summary *summary)
{
	uint64_t n = summary->n_right + summary->n_not_audited + summary->n_wrong;

	if (summary->n_unlisted > 0)
		(void)printf("(%" PRIu64 " more are not listed)\n", summary->n_unlisted);
	n -= summary->n_not_audited;
	(void)printf("%" PRIu64 " connection%s audited, ", n, plural(n));
	if (summary->n_wrong > 0)
		(void)printf("%" PRIu64 " wrong: they were reset", summary->n_wrong);
	else
		(void)printf("all right");
	if (summary->n_not_audited > 0)
		(void)printf("; %" PRIu64 " not auditable", summary->n_not_audited);
	(void)printf("\n");
}

static void put_summary(const struct summary *summary, struct json *json)
{
	json_name(json, "right");
	json_number(json, summary->n_right);
	json_name(json, "wrong");
	json_number(json, summary->n_wrong);
	json_name(json, "not_audited");
	json_number(json, summary->n_not_audited);
	json_name(json, "unlisted");
	json_number(json, summary->n_unlisted);
}

static int print_json(sd_bus_message *reply, const struct summary *summary,
		      enum json_mode mode)
{
	struct json json = json_begin(stdout, mode);
	int r;

	json_open_object(&json);
	put_summary(summary, &json);
	json_name(&json, "flows");
	json_open_array(&json);
	r = print_rows(reply, &json);
	json_close(&json);
	json_close(&json);
	json_end(&json);
	return r;
}

static int print(sd_bus_message *reply, enum json_mode mode, struct summary *ret_summary)
{
	struct summary summary = {0};
	int r;

	r = sd_bus_message_read(reply, "tttt", &summary.n_right, &summary.n_not_audited,
				&summary.n_wrong, &summary.n_unlisted);
	if (r >= 0 && mode != JSON_OFF)
		r = print_json(reply, &summary, mode);
	else if (r >= 0)
		r = print_rows(reply, NULL);
	if (r < 0) {
		(void)fprintf(stderr, "holdfastctl: can't understand the answer: %s\n",
			      strerror(-r));
		return r;
	}
	if (mode == JSON_OFF)
		print_summary(&summary);
	*ret_summary = summary;
	return 0;
}

int verb_audit(const struct request *request)
{
	sd_bus_message *reply = NULL;
	struct summary summary = {0};
	sd_bus *bus;
	int r;

	r = instance_connect(request->targets.list[0].path, ANSWER_TIMEOUT_USEC, &bus);
	if (r < 0)
		return STATUS_FAILURE;
	r = ask(bus, request, &reply);
	if (r >= 0)
		r = print(reply, request->json, &summary);
	(void)sd_bus_message_unref(reply);
	/* Not flushed: there is nothing more to say */
	(void)sd_bus_close_unref(bus);
	return r < 0 || summary.n_wrong > 0 || ferror(stdout) || fflush(stdout)
		       ? STATUS_FAILURE
		       : EXIT_SUCCESS;
}
