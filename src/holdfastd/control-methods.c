/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What can be asked over the control socket: a method or property each. */
#include "holdfastd/control-private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/instance.h"

/* ---- calls ---- */

struct control_call {
	struct control_client *client; /* NULL: it has gone */
	sd_bus_message *message;
};

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

static void call_free(struct control_call *call)
{
	if (call->client)
		control_call_drop(call);
	free(call);
}

/* r: of sending the reply. A client that can't get it is told by the end. */
static void call_finish(struct control_call *call, int r)
{
	struct control_client *client = call->client;

	call_free(call);
	if (r < 0)
		control_client_end(client);
	else
		control_client_touch(client);
}

void control_call_succeed(struct control_call *call, pid_t pid)
{
	if (call && call->client)
		call_finish(call, sd_bus_reply_method_return(call->message, "u",
							     (uint32_t)pid));
	else
		free(call);
}

void control_call_fail(struct control_call *call, int error, const char *text)
{
	if (call && call->client)
		call_finish(call,
			    sd_bus_reply_method_errnof(call->message, error, "%s", text));
	else
		free(call);
}

/* ---- the object ---- */

static int begin_takeover(struct control_client *client, sd_bus_message *message,
			  char *const *command_line, sd_bus_error *ret_error)
{
	struct control *control = client->control;
	char error[CONTROL_ERROR_SIZE] = "refused";
	struct control_call *call;
	int r;

	if (control->is_leaving)
		return sd_bus_error_set_errnof(ret_error, ESHUTDOWN,
					       "this process is about to end");
	r = call_new(client, message, &call);
	if (r < 0)
		return sd_bus_error_set_errnof(
			ret_error, r, "%s",
			r == -EBUSY ? "the call before this one is not answered yet"
				    : strerror(-r));
	r = control->handlers->takeover(control->userdata, command_line, call, error,
					sizeof(error));
	if (r >= 0)
		return 1;
	call_free(call);
	return sd_bus_error_set_errnof(ret_error, r, "%s", error);
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

const sd_bus_vtable control_vtable[] = {
	SD_BUS_VTABLE_START(0),
	SD_BUS_PROPERTY("Version", "s", get_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_PROPERTY("PID", "u", get_pid, 0, SD_BUS_VTABLE_PROPERTY_CONST),
	SD_BUS_METHOD_WITH_ARGS(INSTANCE_TAKEOVER, SD_BUS_ARGS("as", command_line),
				SD_BUS_RESULT("u", pid), on_takeover, 0),
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
