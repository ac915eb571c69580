/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What an instance tells of itself as a whole. */
#pragma once

#include <systemd/sd-bus.h>

#include "base/instance.h"
#include "ctl/targets.h"

struct properties {
	const char *version;
	uint32_t pid;
	struct instance_report report;
	sd_bus_message *reply; /* which has the strings */
};

/* Asks an instance. What it does not tell is 0, or an empty string. Returns 0, or a
 * negative errno after saying on stderr what fails. */
int properties_get(const struct target *target, struct properties *ret_properties);
void properties_done(struct properties *properties);
