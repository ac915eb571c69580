/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A running holdfastd, as its control socket shows it (base/instance.h has the names). */
#pragma once

#include <stdint.h>

#include <systemd/sd-bus.h>

#include "base/socket.h"

#define INSTANCE_PATH_SIZE (SOCKET_PATH_MAX + 1)

/*
 * Where the unit holdfast@NAME.service puts the control socket, in ret_path. Returns 0,
 * -EINVAL if name is no instance's, or -ENAMETOOLONG.
 */
int instance_set_path(const char *name, char ret_path[static INSTANCE_PATH_SIZE]);

/*
 * Connects to the control socket at path; the bus is the caller's. Says on stderr why it
 * can't. Returns 0 or a negative errno.
 */
int instance_connect(const char *path, sd_bus **ret_bus);

/*
 * Calls a method of the instance and waits for its answer, at most usec microseconds.
 * call is borrowed, the reply the caller's. On failure says why on stderr: what was asked
 * of whom, and the instance's own words. Returns 0 or a negative errno.
 */
int instance_call(sd_bus_message *call, const char *name, uint64_t usec,
		  sd_bus_message **ret_reply);
