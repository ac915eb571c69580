/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What peers do to a service, step by step, and what they must see of it whatever happens
 * to its processes meanwhile. Each step is done while the service is at rest.
 *
 * The law: every byte arrives once, in order, and every end of a stream does. A
 * connection may only be reset instead, where the service was killed between accept4(2)
 * and the put (then it is made anew, and no byte of it had been read); and, if calls were
 * made to fail, where may_reset says so. An end of stream before the last byte is never
 * right.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "peers.h"
#include "service.h"
#include "steps.h"

struct connection_ends {
	struct end ends[SIDES];
	bool is_lost; /* was reset without need, as may_reset allows: no step any more */
};

struct scenario {
	enum scenario_kind kind;
	struct service *service;
	const char *service_address; /* IPV4:PORT */
	bool may_reset;
	int upstream_fd; /* listens */

	struct connection_ends connections[CONNECTIONS_MAX];
	int strangers[8]; /* accepted for the upstream, and no byte has come yet */
	unsigned n_strangers;
	int64_t said_offset; /* what is logged has been read up to there */

	unsigned n_refused; /* reset before the first byte was read: in the known window */
	unsigned n_lost;    /* reset by a failing call */
	unsigned n_repeated;  /* log entries */
	unsigned n_abandoned; /* upstream connections in which nothing was said */

	bool is_opening; /* a client's first bytes are on their way */
	unsigned step;   /* in hand, from 1 */
	char why[160];   /* it has failed */
};

/* Opens the upstream's listener. Returns 0 or a negative errno. */
int scenario_init(struct scenario *scenario, enum scenario_kind kind,
		  const char *upstream_address);
void scenario_done(struct scenario *scenario);

/*
 * Goes through all steps. Returns 0, or -1: why tells what was wrong. The counts are for
 * this run only.
 */
int scenario_run(struct scenario *scenario, struct service *service);
