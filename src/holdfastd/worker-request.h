/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the main thread asks of a worker: it is done in the worker's thread, between two
 * batches of events, in steps so small that no peer waits for one. While a takeover stops
 * the workers, requests wait.
 */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

struct worker;

struct worker_request {
	STAILQ_ENTRY(worker_request) entry; /* the worker's while it has the request */
	/*
	 * Does one step, without waiting for anything. Returns whether there are more: it
	 * is called again then, when connections have had their turn. If not, the request
	 * is no longer the worker's, which does not look at it any more.
	 */
	bool (*step)(struct worker *worker, struct worker_request *request);
};

STAILQ_HEAD(worker_requests, worker_request);

/* Gives a request to a worker. Any thread. */
void worker_post(struct worker *worker, struct worker_request *request);

/* The worker's: does one step of one request. */
void worker_do_request(struct worker *worker);
