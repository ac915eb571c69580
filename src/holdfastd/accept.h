/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Accepting, for one worker. A connection is accepted only when there is room for it in
 * every respect: below --connections-max=, in a parcel, with an upstream to go to.
 * Otherwise it waits in the accept queue, where nothing of it can be lost, and the reason
 * is said once.
 */
#pragma once

#include <stdint.h>

struct worker;

/* Waits for connections from now on. */
void accept_watch(struct worker *worker);

/* Stops accepting: for usec microseconds, or until woken (USEC_INFINITY). */
void accept_pause(struct worker *worker, uint64_t usec);

/* Ends a pause; does nothing where there is none. */
void accept_resume(struct worker *worker);

/* Accepts what waits at a listener, one of the shared ones, up to n connections. */
void accept_some(struct worker *worker, const int *listener, int n);
