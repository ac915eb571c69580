/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What successor.c, successor-state.c, which receives, and successor-release.c, which comes
 * after it, share.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "base/leisure.h"
#include "holdfastd/handover.h"
#include "holdfastd/successor.h"

struct connection;

enum mark {
	MARK_REFUSED = 1 << 0, /* can't be continued exactly, as far as is to be seen */
	MARK_LISTED = 1 << 1,  /* in the list of pipes */
};

struct successor {
	int socket;
	struct vault *vault;
	struct shared *shared;
	unsigned long long old_pid;
	int control_fd; /* until it is taken */
	int *listeners;
	size_t n_listeners;
	bool has_state;

	/* By slot, as of the last look */
	struct connection **connections;
	uint8_t *marks;  /* enum mark */
	uint32_t *pipes; /* the slots of all that were seen */
	uint32_t n_pipes;
	uint32_t n_connections;
	uint32_t n_refused;
	uint64_t pending_bytes;
	uint64_t pause_usec;
	bool is_told_to_go;
	bool is_sorted; /* the workers' idle lists are in order */

	/* Once it serves */
	sd_event_source *source;
	sd_event_source *timer;
	struct cpus cpus;
	int old_fd; /* a pidfd of the other process, while that exits */
	int (*released)(void *userdata, bool is_heard);
	void *userdata;
};

/*
 * Receives until the whole state of the serving process is here. Returns 0, or a negative
 * errno after it has said why.
 */
int successor_receive_state(struct successor *successor);

/*
 * Receives one message, waiting until until_usec. Returns as handover_receive() does; a
 * message about the state has been taken, HANDOVER_GO is the caller's.
 */
int successor_receive(struct successor *successor, uint64_t until_usec,
		      struct handover *ret_message);

/* Logs why this process can't take over, and tells the other one. Returns r. */
__attribute__((format(printf, 3, 4))) int successor_fail(struct successor *successor,
							 int r, const char *format, ...);

/* The same for an error of receiving or following. */
int successor_fail_state(struct successor *successor, int r);
