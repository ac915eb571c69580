/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/service.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

static const struct {
	enum service_kind kind;
	const char *name;
} services[] = {
	{SERVICE_LOG, "log"},
	{SERVICE_ECHO, "echo"},
	{SERVICE_RELAY, "relay"},
};

#define N_SERVICES (sizeof(services) / sizeof(services[0]))

bool service_is_known(unsigned kind)
{
	for (size_t i = 0; i < N_SERVICES; i++)
		if (services[i].kind == kind)
			return true;
	return false;
}

const char *service_name(unsigned kind)
{
	for (size_t i = 0; i < N_SERVICES; i++)
		if (services[i].kind == kind)
			return services[i].name;
	return "unknown";
}

int service_from_name(const char *name)
{
	for (size_t i = 0; i < N_SERVICES; i++)
		if (strcmp(name, services[i].name) == 0)
			return (int)services[i].kind;
	return -EINVAL;
}
