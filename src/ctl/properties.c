/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/properties.h"

#include <string.h>

#include "ctl/instance.h"

static int read_variant(sd_bus_message *message, const char *name,
			struct properties *properties)
{
	if (strcmp(name, "Version") == 0)
		return sd_bus_message_read(message, "v", "s", &properties->version);
	if (strcmp(name, "PID") == 0)
		return sd_bus_message_read(message, "v", "u", &properties->pid);
#define READ(type, its_name, field)                             \
	if (strcmp(name, its_name) == 0)                        \
		return sd_bus_message_read(message, "v", #type, \
					   &properties->report.field);
	INSTANCE_PROPERTIES(READ)
#undef READ
	return sd_bus_message_skip(message, "v"); /* of a newer version */
}

static int read_all(sd_bus_message *message, struct properties *properties)
{
	const char *name;
	int r;

	r = sd_bus_message_enter_container(message, 'a', "{sv}");
	if (r < 0)
		return r;
	while ((r = sd_bus_message_enter_container(message, 'e', "sv")) > 0) {
		r = sd_bus_message_read(message, "s", &name);
		if (r >= 0)
			r = read_variant(message, name, properties);
		if (r >= 0)
			r = sd_bus_message_exit_container(message);
		if (r < 0)
			return r;
	}
	return r;
}

static int ask(sd_bus *bus, const struct target *target, sd_bus_message **ret_reply)
{
	sd_bus_message *call;
	int r;

	r = instance_make_call(bus, "org.freedesktop.DBus.Properties", "GetAll", &call);
	if (r < 0)
		return r;
	r = sd_bus_message_append(call, "s", INSTANCE_INTERFACE);
	if (r >= 0)
		r = instance_call(call, target->name, INSTANCE_ANSWER_USEC, ret_reply);
	(void)sd_bus_message_unref(call);
	return r;
}

int properties_get(const struct target *target, struct properties *ret_properties)
{
	sd_bus *bus;
	int r;

	*ret_properties = (struct properties){.version = ""};
	ret_properties->report.service = ret_properties->report.adopt_kind = "";
	r = instance_connect(target->path, INSTANCE_ANSWER_USEC, &bus);
	if (r < 0)
		return r;
	r = ask(bus, target, &ret_properties->reply);
	if (r >= 0) {
		r = read_all(ret_properties->reply, ret_properties);
		if (r < 0)
			(void)instance_fail(target->name, "can't understand the answer",
					    r);
	}
	(void)sd_bus_close_unref(bus);
	return r < 0 ? r : 0;
}

void properties_done(struct properties *properties)
{
	properties->reply = sd_bus_message_unref(properties->reply);
}
