/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The audit as it is asked for over the control socket: see control-private.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/instance.h"
#include "holdfastd/auditor.h"
#include "holdfastd/control-private.h"

static int append_row(sd_bus_message *message, const struct audit_row *row)
{
	const struct audit_flow *found = &row->found;

	return sd_bus_message_append(message, "(" INSTANCE_AUDITED ")", row->id,
				     service_name(row->service), row->peer,
				     audit_source_name(row->flow),
				     audit_verdict_name(found->verdict),
				     found->why ? found->why : "", found->consumed,
				     found->recorded, found->pending, found->delivered);
}

static int append_result(sd_bus_message *message, const struct audit_result *result)
{
	const uint64_t *n = result->tally.n;
	int r;

	r = sd_bus_message_append(message, "tttt", n[AUDIT_RIGHT], n[AUDIT_NOT_AUDITED],
				  n[AUDIT_WRONG], (uint64_t)result->n_unlisted);
	if (r >= 0)
		r = sd_bus_message_open_container(message, 'a', "(" INSTANCE_AUDITED ")");
	for (uint32_t i = 0; i < result->n_rows && r >= 0; i++)
		r = append_row(message, &result->rows[i]);
	return r < 0 ? r : sd_bus_message_close_container(message);
}

static int reply(sd_bus_message *call, const struct audit_result *result)
{
	sd_bus_message *message = NULL;
	int r;

	r = sd_bus_message_new_method_return(call, &message);
	if (r >= 0)
		r = append_result(message, result);
	if (r >= 0)
		r = sd_bus_send(NULL, message, NULL);
	(void)sd_bus_message_unref(message);
	return r;
}

void control_call_audited(struct control_call *call, const struct audit_result *result)
{
	if (call->client)
		control_call_finish(call, reply(call->message, result));
	else
		control_call_free(call);
}

int control_on_audit(sd_bus_message *message, void *userdata, sd_bus_error *ret_error)
{
	struct control_client *client = userdata;
	struct control *control = client->control;
	struct control_call *call;
	int all, r;

	r = sd_bus_message_read(message, "b", &all);
	if (r >= 0)
		r = control_call_begin(client, message, &call, ret_error);
	if (r < 0)
		return r;
	r = control->handlers->audit(control->userdata, all, call);
	if (r >= 0)
		return 1;
	control_call_free(call);
	return sd_bus_error_set_errnof(ret_error, r, "%s",
				       r == -EBUSY ? "another audit waits already"
						   : strerror(-r));
}
