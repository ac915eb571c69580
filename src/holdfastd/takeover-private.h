/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Between takeover.c and takeover-tell.c, which speaks to the successor, only. */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/leisure.h"
#include "holdfastd/handover.h"
#include "holdfastd/spawn.h"
#include "holdfastd/takeover.h"
#include "holdfastd/worker.h"

#define WHY_SIZE (HANDOVER_TEXT_SIZE + 128)

struct takeover {
	struct shared *shared;
	sd_event *event;
	void (*ended)(void *userdata, enum takeover_result result, pid_t pid,
		      const char *why);
	void *userdata;
	char program[PATH_MAX]; /* that this process was started from */
	char **arguments;

	/* Of the one under way */
	bool is_under_way;
	/* How the CPUs are divided while it gets ready */
	bool are_cpus_divided;
	struct cpus cpus;
	struct spawned successor; /* its fd stays until it has gone */
	int socket;
	sd_event_source *message_source;
	sd_event_source *timer;
	bool is_ready;           /* the successor has said so */
	uint32_t n_parcels;      /* that were passed */
	uint32_t n_parcels_told; /* of them, at the beginning */

	char why[WHY_SIZE];
};

/* Sends a message, with fds that stay the caller's. Returns as handover_send() does. */
int takeover_tell(struct takeover *takeover, enum handover_type type, uint64_t number,
		  const int *fds, size_t n_fds);

/*
 * Passes the parcels that the successor has not been given. Returns 0 or a negative
 * errno: -EAGAIN if it has not read what it was told before, and has to be told again.
 */
int takeover_tell_parcels(struct takeover *takeover);

/* Says all that there is at the beginning. Returns 0 or a negative errno. */
int takeover_tell_state(struct takeover *takeover);
