/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A running holdfastd, as its control socket shows it (base/instance.h has the names). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <systemd/sd-bus.h>

#include "base/socket.h"
#include "base/time.h"

#define INSTANCE_PATH_SIZE (SOCKET_PATH_MAX + 1)

/*
 * Where the unit holdfast@NAME.service puts the control socket, in ret_path. Returns 0,
 * -EINVAL if name is no instance's, or -ENAMETOOLONG.
 */
int instance_set_path(const char *name, char ret_path[static INSTANCE_PATH_SIZE]);

/* How long an instance may take to answer what costs it nothing. */
#define INSTANCE_ANSWER_USEC (5 * USEC_PER_SEC)

/*
 * Connects to the control socket at path, and waits at most usec microseconds until the
 * instance has answered; the bus is the caller's. Says on stderr why it can't. Returns 0
 * or a negative errno.
 */
int instance_connect(const char *path, uint64_t usec, sd_bus **ret_bus);

/*
 * Calls a method of the instance and waits for its answer, at most usec microseconds.
 * call is borrowed, the reply the caller's. On failure says why on stderr: what was asked
 * of whom, and the instance's own words. Returns 0 or a negative errno.
 */
int instance_call(sd_bus_message *call, const char *name, uint64_t usec,
		  sd_bus_message **ret_reply);

/*
 * Makes a call of a method of the instance, to be filled in. Says on stderr what fails.
 * Returns 0 or a negative errno.
 */
int instance_make_call(sd_bus *bus, const char *interface, const char *method,
		       sd_bus_message **ret_call);

/* Says on stderr that something concerning name has failed, as the others do. Returns
 * error. */
int instance_fail(const char *name, const char *what, int error);

/*
 * Calls a method whose first argument is a connection's id; reset: the second one, if it
 * has one. Returns 0; -ENXIO, in silence, where the instance has no such connection; or
 * another negative errno after saying what fails. ret_reply may be NULL.
 */
int instance_call_id(sd_bus *bus, const char *name, const char *method, uint64_t id,
		     const bool *reset, sd_bus_message **ret_reply);
