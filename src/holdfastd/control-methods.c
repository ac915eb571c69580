/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What can be asked over the control socket: a method or property each. */
#include "holdfastd/control-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/instance.h"

/* ---- calls ---- */

static int call_new(struct control_client *client, sd_bus_message *message,
		    struct control_call **ret_call)
{
	struct control_call *call;

	/* One at a time: so many are enough, and so few are bounded */
	if (client->call)
		return -EBUSY;
	call = calloc(1, sizeof(*call));
	if (!call)
		return -ENOMEM;
	*call = (struct control_call){
		.client = client,
		.message = sd_bus_message_ref(message),
	};
	client->call = call;
	*ret_call = call;
	return 0;
}

void control_call_drop(struct control_call *call)
{
	call->client->call = NULL;
	call->client = NULL;
	call->message = sd_bus_message_unref(call->message);
}

void control_call_free(struct control_call *call)
{
	if (call->client)
		control_call_drop(call);
	free(call);
}

/* r: of sending the reply. A client that can't get it is told by the end. */
void control_call_finish(struct control_call *call, int r)
{
	struct control_client *client = call->client;

	control_call_free(call);
	if (r < 0)
		control_client_end(client);
	else
		control_client_touch(client);
}

void control_call_succeed(struct control_call *call, pid_t pid)
{
	if (call && call->client)
		control_call_finish(call, sd_bus_reply_method_return(call->message, "u",
								     (uint32_t)pid));
	else
		free(call);
}

static int append_connection(sd_bus_message *message,
			     const struct connection_report *report)
{
	return sd_bus_message_append(message, INSTANCE_CONNECTION, report->id,
				     report->service, report->peer, report->listener,
				     report->upstream, report->age_usec,
				     report->idle_usec, report->received, report->sent,
				     report->pending_from, report->pending_to,
				     report->n_restarts, report->worker, report->state);
}

static int append_struct(sd_bus_message *message, const struct connection_report *report)
{
	int r;

	if ((r = sd_bus_message_open_container(message, 'r', INSTANCE_CONNECTION)) < 0 ||
	    (r = append_connection(message, report)) < 0)
		return r;
	return sd_bus_message_close_container(message);
}

static int append_list(sd_bus_message *message, uint32_t next,
		       const struct connection_report *reports, uint32_t n)
{
	int r;

	if ((r = sd_bus_message_append(message, "u", next)) < 0 ||
	    (r = sd_bus_message_open_container(message, 'a',
					       "(" INSTANCE_CONNECTION ")")) < 0)
		return r;
	for (uint32_t i = 0; i < n; i++)
		if (reports[i].id != 0 && (r = append_struct(message, &reports[i])) < 0)
			return r;
	return sd_bus_message_close_container(message);
}

static int reply_list(sd_bus_message *call, uint32_t next,
		      const struct connection_report *reports, uint32_t n)
{
	sd_bus_message *reply = NULL;
	int r;

	r = sd_bus_message_new_method_return(call, &reply);
	if (r >= 0)
		r = append_list(reply, next, reports, n);
	if (r >= 0)
		r = sd_bus_send(NULL, reply, NULL);
	(void)sd_bus_message_unref(reply);
	return r;
}

void control_call_list(struct control_call *call, uint32_t next,
		       const struct connection_report *reports, uint32_t n)
{
	if (call->client)
		control_call_finish(call, reply_list(call->message, next, reports, n));
	else
		free(call);
}

static int reply_report(sd_bus_message *call, const struct connection_report *report)
{
	sd_bus_message *reply = NULL;
	int r;

	r = sd_bus_message_new_method_return(call, &reply);
	if (r >= 0)
		r = append_connection(reply, report);
	if (r >= 0)
		r = sd_bus_send(NULL, reply, NULL);
	(void)sd_bus_message_unref(reply);
	return r;
}

void control_call_report(struct control_call *call,
			 const struct connection_report *report)
{
	if (call->client)
		control_call_finish(call, reply_report(call->message, report));
	else
		free(call);
}

void control_call_done(struct control_call *call)
{
	if (call->client)
		control_call_finish(call,
				    sd_bus_reply_method_return(call->message, NULL));
	else
		free(call);
}

void control_call_fail(struct control_call *call, int error, const char *text)
{
	if (call && call->client)
		control_call_finish(call, sd_bus_reply_method_errnof(call->message, error,
								     "%s", text));
	else
		free(call);
}

/* ---- the object ---- */

int control_call_begin(struct control_client *client, sd_bus_message *message,
		       struct control_call **ret_call, sd_bus_error *ret_error)
{
	int r;

	if (client->control->is_leaving) {
		(void)sd_bus_error_set_errnof(ret_error, ESHUTDOWN,
					      "this process is about to end");
		return -ESHUTDOWN; /* what the call above returns */
	}
	r = call_new(client, message, ret_call);
	if (r < 0)
		(void)sd_bus_error_set_errnof(
			ret_error, r, "%s",
			r == -EBUSY ? "the call before this one is not answered yet"
				    : strerror(-r));
	return r;
}

/* r: of the handler, which owns the call unless it is negative. */
static int begun(struct control_call *call, int r, const char *text,
		 sd_bus_error *ret_error)
{
	if (r >= 0)
		return 1;
	control_call_free(call);
	return sd_bus_error_set_errnof(ret_error, r, "%s", text);
}

static int begin_takeover(struct control_client *client, sd_bus_message *message,
			  char *const *command_line, sd_bus_error *ret_error)
{
	struct control *control = client->control;
	char error[CONTROL_ERROR_SIZE] = "refused";
	struct control_call *call;
	int r;

	r = control_call_begin(client, message, &call, ret_error);
	if (r < 0)
		return r;
	r = control->handlers->takeover(control->userdata, command_line, call, error,
					sizeof(error));
	return begun(call, r, error, ret_error);
}

static int on_takeover(sd_bus_message *message, void *userdata, sd_bus_error *ret_error)
{
	char **command_line = NULL;
	int r;

	r = sd_bus_message_read_strv(message, &command_line);
	if (r < 0)
		return r;
	r = begin_takeover(userdata, message,
			   command_line && command_line[0] ? command_line : NULL,
			   ret_error);
	for (char **word = command_line; word && *word; word++)
		free(*word);
	free(command_line);
	return r;
}

/* Of a handler that has no words of its own. */
static const char *explain(int error)
{
	return error == -EBUSY ? "too many questions at once" : strerror(-error);
}

static int on_list(sd_bus_message *message, void *userdata, sd_bus_error *ret_error)
{
	struct control_client *client = userdata;
	struct control *control = client->control;
	struct control_call *call;
	uint32_t after, max;
	int r;

	r = sd_bus_message_read(message, "uu", &after, &max);
	if (r >= 0)
		r = control_call_begin(client, message, &call, ret_error);
	if (r < 0)
		return r;
	r = control->handlers->list(control->userdata, after, max, call);
	return begun(call, r, explain(r), ret_error);
}

static int on_get(sd_bus_message *message, void *userdata, sd_bus_error *ret_error)
{
	struct control_client *client = userdata;
	struct control *control = client->control;
	struct control_call *call;
	uint64_t id;
	int r;

	r = sd_bus_message_read(message, "t", &id);
	if (r >= 0)
		r = control_call_begin(client, message, &call, ret_error);
	if (r < 0)
		return r;
	r = control->handlers->get(control->userdata, id, call);
	return begun(call, r, explain(r), ret_error);
}

static int on_close(sd_bus_message *message, void *userdata, sd_bus_error *ret_error)
{
	struct control_client *client = userdata;
	struct control *control = client->control;
	struct control_call *call;
	uint64_t id;
	int reset, r;

	r = sd_bus_message_read(message, "tb", &id, &reset);
	if (r >= 0)
		r = control_call_begin(client, message, &call, ret_error);
	if (r < 0)
		return r;
	r = control->handlers->close(control->userdata, id, reset, call);
	return begun(call, r, explain(r), ret_error);
}

/* ---- its properties ---- */

static int get_version(sd_bus *bus, const char *path, const char *interface,
		       const char *property, sd_bus_message *reply, void *userdata,
		       sd_bus_error *ret_error)
{
	(void)bus;
	(void)path;
	(void)interface;
	(void)property;
	(void)userdata;
	(void)ret_error;
	return sd_bus_message_append(reply, "s", HOLDFAST_VERSION);
}

static int get_pid(sd_bus *bus, const char *path, const char *interface,
		   const char *property, sd_bus_message *reply, void *userdata,
		   sd_bus_error *ret_error)
{
	(void)bus;
	(void)path;
	(void)interface;
	(void)property;
	(void)userdata;
	(void)ret_error;
	return sd_bus_message_append(reply, "u", (uint32_t)getpid());
}

static int append_field(sd_bus_message *reply, const char *name,
			const struct instance_report *report)
{
#define TYPE_s(value) (value)
#define TYPE_t(value) (&(value))
#define TYPE_u(value) (&(value))
#define TYPE_b(value) (&(value))
#define APPEND(type, its_name, field)                               \
	if (strcmp(name, its_name) == 0)                            \
		return sd_bus_message_append_basic(reply, #type[0], \
						   TYPE_##type(report->field));
	INSTANCE_PROPERTIES(APPEND)
#undef APPEND
	return -EINVAL;
}

static int get_field(sd_bus *bus, const char *path, const char *interface,
		     const char *property, sd_bus_message *reply, void *userdata,
		     sd_bus_error *ret_error)
{
	const struct control *control = ((struct control_client *)userdata)->control;
	struct instance_report report = {0};

	(void)bus;
	(void)path;
	(void)interface;
	(void)ret_error;
	control->handlers->report(control->userdata, &report);
	return append_field(reply, property, &report);
}

#define FIELD_PROPERTY(type, name, field) SD_BUS_PROPERTY(name, #type, get_field, 0, 0),

const sd_bus_vtable control_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("Version", "s", get_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("PID", "u", get_pid, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	INSTANCE_PROPERTIES(FIELD_PROPERTY)
		SD_BUS_METHOD_WITH_ARGS(INSTANCE_TAKEOVER,
					SD_BUS_ARGS("as", command_line),
					SD_BUS_RESULT("u", pid), on_takeover, 0),
	SD_BUS_METHOD_WITH_ARGS(INSTANCE_LIST, SD_BUS_ARGS("u", after, "u", max),
				SD_BUS_RESULT("u", next, "a(" INSTANCE_CONNECTION ")",
					      connections),
				on_list, 0),
	SD_BUS_METHOD_WITH_ARGS(INSTANCE_GET, SD_BUS_ARGS("t", id),
				SD_BUS_RESULT("t", id, "s", service, "s", peer, "s",
					      listener, "s", upstream, "t", age_usec, "t",
					      idle_usec, "t", received, "t", sent, "t",
					      pending_from, "t", pending_to, "u",
					      n_restarts, "u", worker, "s", state),
				on_get, 0),
	SD_BUS_METHOD_WITH_ARGS(INSTANCE_CLOSE, SD_BUS_ARGS("t", id, "b", reset),
				SD_BUS_NO_RESULT, on_close, 0),
	SD_BUS_METHOD_WITH_ARGS(INSTANCE_AUDIT, SD_BUS_ARGS("b", all),
				SD_BUS_RESULT("t", right, "t", not_audited, "t", wrong,
					      "t", unlisted, "a(" INSTANCE_AUDITED ")",
					      flows),
				control_on_audit, 0),
	SD_BUS_VTABLE_END,
};

/* ---- what a bus would answer ---- */

/* busctl begins as on a bus, where every client has to get a name. This one is as good as
 * any: nobody else is there to be told from. */
static int on_hello(sd_bus_message *message, void *userdata, sd_bus_error *ret_error)
{
	(void)userdata;
	(void)ret_error;
	return sd_bus_reply_method_return(message, "s", ":1.1");
}

const sd_bus_vtable control_hello_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_METHOD_WITH_ARGS("Hello", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", name),
				on_hello, SD_BUS_VTABLE_HIDDEN),
	SD_BUS_VTABLE_END,
};
