/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A gate: where the main thread holds up the workers, each at the end of what it was
 * doing. While it is closed and all wait at it, no byte moves and no record changes, and
 * what they have done is visible to the main thread; when it opens, what the main thread
 * has done is visible to them.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct gate {
	_Atomic bool is_closed; /* a hint for workers, to end what they do soon */
	pthread_mutex_t lock;   /* of: */
	pthread_cond_t changed;
	unsigned n_waiting;
};

void gate_init(struct gate *gate);

/* The main thread's: closes it. Workers that sleep have to be woken to notice. */
void gate_close(struct gate *gate);

/*
 * Waits until n workers wait at the closed gate, at most until until_usec
 * (CLOCK_MONOTONIC). Returns whether they do.
 */
bool gate_wait_for_all(struct gate *gate, unsigned n, uint64_t until_usec);

void gate_open(struct gate *gate);

/* A worker's: whether it ought to come to the gate. */
static inline bool gate_is_closed(const struct gate *gate)
{
	return atomic_load_explicit(&gate->is_closed, memory_order_relaxed);
}

/* A worker's: waits until the gate is open. */
void gate_pass(struct gate *gate);
