/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All ends of a scenario together: what is to be sent goes out, what has come is taken and
 * judged by the law in scenario.h, and the service has its turns, until something is so.
 * Functions return -1 when the scenario has failed, and then its why says what was wrong.
 */
#pragma once

#include "scenario.h"

/* Sets why. Return -1. */
__attribute__((format(printf, 2, 3))) int scenario_fail(struct scenario *scenario,
							const char *format, ...);
int scenario_fail_at(struct scenario *scenario, const struct end *end, const char *what);

/* Whether a client that was being opened has been closed, and was never read from. */
bool exchange_is_refused(const struct scenario *scenario, const struct end *client);

/* Sends and takes what can be. Returns whether anything has moved, or -1. */
int exchange_once(struct scenario *scenario);

/* Lets the service come to rest. Returns 0 or -1. */
int exchange_settle(struct scenario *scenario);

/* Goes on as far as it goes without waiting for a timer. Returns 0 or -1. */
int exchange_all(struct scenario *scenario);

/* Goes on until is_done says so of end, or its connection is lost. Returns 0 or -1. */
int exchange_until(struct scenario *scenario,
		   bool (*is_done)(const struct scenario *scenario,
				   const struct end *end),
		   const struct end *end);
