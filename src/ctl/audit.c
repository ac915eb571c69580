/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/instance.h"
#include "base/time.h"
#include "ctl/instance.h"
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
		     row->id, row->service, row->source, row->consumed, row->recorded,
		     row->pending, row->delivered, row->verdict, row->peer,
		     *row->why ? ": " : "", row->why);
}

static int print_rows(sd_bus_message *reply)
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
		if (is_first)
			(void)printf("%10s %-7s %-8s %15s %15s %10s %15s %-11s %s\n",
				     "CONNECTION", "SERVICE", "FROM", "CONSUMED",
				     "RECORDED", "PENDING", "DELIVERED", "VERDICT",
				     "CLIENT");
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
	(void)printf("%" PRIu64 " connections audited, ", n - summary->n_not_audited);
	if (summary->n_wrong > 0)
		(void)printf("%" PRIu64 " wrong: they were reset", summary->n_wrong);
	else
		(void)printf("all right");
	if (summary->n_not_audited > 0)
		(void)printf("; %" PRIu64 " not auditable", summary->n_not_audited);
	(void)printf("\n");
}

static int print(sd_bus_message *reply, struct summary *ret_summary)
{
	struct summary summary = {0};
	int r;

	r = sd_bus_message_read(reply, "tttt", &summary.n_right, &summary.n_not_audited,
				&summary.n_wrong, &summary.n_unlisted);
	if (r >= 0)
		r = print_rows(reply);
	if (r < 0) {
		(void)fprintf(stderr, "holdfastctl: can't understand the answer: %s\n",
			      strerror(-r));
		return r;
	}
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
		r = print(reply, &summary);
	(void)sd_bus_message_unref(reply);
	/* Not flushed: there is nothing more to say */
	(void)sd_bus_close_unref(bus);
	return r < 0 || summary.n_wrong > 0 || ferror(stdout) || fflush(stdout)
		       ? STATUS_FAILURE
		       : EXIT_SUCCESS;
}
