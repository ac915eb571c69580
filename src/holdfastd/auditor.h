/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The auditor: has all connections audited while they are served, each by its worker
 * between two events (worker-request.h), a few at a time: so no byte of another has to
 * wait, and no fd is used but by its owner. Those that are there from the beginning to
 * the end are audited exactly once.
 *
 * A connection that does not pass is logged and reset: it has a hole, or its record is
 * damaged, and a hole is not continued.
 *
 * Beside being asked for, this is the audit of a takeover. There nothing is looked at
 * while the peers wait: the process that stops is alive, has nothing half done, and its
 * counts are true. And nothing is missed by being late, as the counts are of whole
 * streams: what a takeover had lost would be missing in them for ever.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "holdfastd/audit.h"

/* Connections that a worker audits in a row. */
#define AUDITOR_STEP 16u
/* Flows that one audit lists. Further ones are only counted; the journal has all that are
 * wrong. */
#define AUDITOR_ROWS_MAX 16384u

struct auditor;
struct shared;

/* One flow that was audited. */
struct audit_row {
	uint64_t id; /* of the connection */
	enum service_kind service;
	unsigned flow;
	char peer[SOCKET_NAME_SIZE];
	struct audit_flow found;
};

struct audit_result {
	struct audit_tally tally;
	const struct audit_row *rows; /* by id */
	uint32_t n_rows;
	uint32_t n_unlisted; /* rows for which there was no place */
};

/* shared: borrowed, with its workers. event: a reference is held. Returns 0 or a negative
 * errno. */
int auditor_new(struct shared *shared, sd_event *event, struct auditor **ret_auditor);

/*
 * Begins an audit, after the one that is under way; done is called, from the event loop,
 * when all workers are through. all: to list all flows, not just those that are wrong.
 * Returns 0, or -EBUSY while another one waits already.
 */
int auditor_begin(struct auditor *auditor, bool all,
		  void (*done)(void *userdata, const struct audit_result *result),
		  void *userdata);
