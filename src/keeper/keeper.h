/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The keeper: the service manager's half of socket activation and of the fd store, for
 * containers and machines without systemd. Written against sd_listen_fds(3) and
 * sd_notify(3), so it knows nothing of the service that it runs.
 *
 * It holds listeners and store from its start to its end, whatever the service does.
 * There is at most one service: what is left of one (its process group) is killed and
 * reaped before the next is started, so that never two read one socket. Processes that
 * leave the group with setsid(2) are not followed.
 *
 * Only the main process is heard (NotifyAccess=main). What it said last counts, even when
 * it has died since: the notify socket is drained before its end is acted upon.
 *
 * One thread, one sd-event loop, one timer. What is polled and what the timer means
 * follows from the phase alone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "keeper/listeners.h"
#include "keeper/restart.h"

#define KEEPER_STORE_MAX_DEFAULT 4096
#define KEEPER_STORE_MAX_LIMIT 100000
#define KEEPER_STOP_TIMEOUT_SEC 90
/* The keeper changes the state of the listeners and of restart only. */
struct keeper_options {
	struct listeners listeners;
	size_t store_max;
	uint64_t watchdog_usec; /* 0: none */
	uint64_t stop_timeout_usec;
	struct restart restart;
	bool is_on_demand;
	char **command;
};

/*
 * Runs the service until SIGTERM, SIGINT or an exit status that ends the keeper.
 * Says itself what went wrong. Returns the exit status of the process.
 */
int keeper_run(struct keeper_options *options);
