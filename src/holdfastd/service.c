/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/service.h"

#include <errno.h>
#include <string.h>

static const char *const names[] = {
	[SERVICE_LOG] = "log",
	[SERVICE_ECHO] = "echo",
	[SERVICE_RELAY] = "relay",
};

const char *service_name(unsigned kind)
{
	return kind >= SERVICE_LOG && kind <= SERVICE_RELAY ? names[kind] : "unknown";
}

int service_from_name(const char *name)
{
	for (int kind = SERVICE_LOG; kind <= SERVICE_RELAY; kind++)
		if (strcmp(name, names[kind]) == 0)
			return kind;
	return -EINVAL;
}
