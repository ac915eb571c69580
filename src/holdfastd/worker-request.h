/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the main thread asks of a worker: it is done in the worker's thread, between two
 * batches of events, in steps so small that no peer waits for one. While a takeover stops
 * the workers, requests wait.
 */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

#include "base/time.h"

struct worker;

#define REQUEST_REST_USEC (1 * USEC_PER_MSEC)

struct worker_request {
	STAILQ_ENTRY(worker_request) entry; /* the worker's while it has the request */
	/*
	 * Does one step, without waiting for anything. Returns whether there are more: it
	 * is called again then, when connections have had their turn. If not, the request
	 * is no longer the worker's, which does not look at it any more.
	 */
	bool (*step)(struct worker *worker, struct worker_request *request);
	/*
	 * The worker rests for REQUEST_REST_USEC between two steps. Whatever keeps a CPU
	 * busy makes others wait for it, until the scheduler's next tick where that is
	 * how it preempts: the peers would see 4 ms of it in the audit after a takeover.
	 */
	bool is_patient;
};

STAILQ_HEAD(worker_requests, worker_request);

/* Gives a request to a worker. Any thread. */
void worker_post(struct worker *worker, struct worker_request *request);

/* The worker's: does one step of one request. */
void worker_do_request(struct worker *worker);

/* The worker's, when the rest of its patient requests is over. */
void worker_resume_requests(struct worker *worker);
