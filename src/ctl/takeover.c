/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/instance.h"
#include "base/time.h"
#include "ctl/instance.h"
#include "ctl/verbs.h"

/* The service gives a takeover up much earlier, and says so: this is for one that hangs. */
#define ANSWER_TIMEOUT_USEC (300 * USEC_PER_SEC)

static int fail(const char *what, int error)
{
	(void)fprintf(stderr, "holdfastctl: %s: %s\n", what, strerror(-error));
	return error;
}

static int make_call(sd_bus *bus, char **command_line, sd_bus_message **ret_call)
{
	sd_bus_message *call = NULL;
	int r;

	r = sd_bus_message_new_method_call(bus, &call, NULL, INSTANCE_OBJECT,
					   INSTANCE_INTERFACE, INSTANCE_TAKEOVER);
	if (r >= 0)
		r = sd_bus_message_append_strv(call, command_line);
	if (r < 0) {
		(void)sd_bus_message_unref(call);
		return fail("can't ask with this command line", r);
	}
	*ret_call = call;
	return 0;
}

static int ask(sd_bus *bus, const struct request *request, uint32_t *ret_pid)
{
	sd_bus_message *call = NULL, *reply = NULL;
	int r;

	r = make_call(bus, request->command_line, &call);
	if (r < 0)
		return r;
	r = instance_call(call, request->targets.list[0].name, ANSWER_TIMEOUT_USEC,
			  &reply);
	if (r >= 0) {
		r = sd_bus_message_read(reply, "u", ret_pid);
		if (r < 0)
			(void)fail("can't understand the answer", r);
	}
	(void)sd_bus_message_unref(reply);
	(void)sd_bus_message_unref(call);
	return r;
}

int verb_takeover(const struct request *request)
{
	const struct target *target = &request->targets.list[0];
	sd_bus *bus;
	uint32_t pid = 0;
	int r;

	r = instance_connect(target->path, ANSWER_TIMEOUT_USEC, &bus);
	if (r < 0)
		return STATUS_FAILURE;
	r = ask(bus, request, &pid);
	/* Not flushed: there is nothing more to say */
	(void)sd_bus_close_unref(bus);
	if (r < 0)
		return STATUS_FAILURE;
	return printf("taken over by pid %u\n", pid) < 0 || fflush(stdout)
		       ? STATUS_FAILURE
		       : EXIT_SUCCESS;
}
