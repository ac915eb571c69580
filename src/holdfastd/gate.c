/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/gate.h"

#include <time.h>

#include "base/time.h"

void gate_init(struct gate *gate)
{
	pthread_condattr_t attributes;

	/* None of these fails with these arguments (pthread_cond_init(3) on Linux) */
	pthread_mutex_init(&gate->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&gate->changed, &attributes);
	pthread_condattr_destroy(&attributes);
	gate->is_closed = false;
	gate->n_waiting = 0;
}

void gate_close(struct gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->is_closed = true;
	pthread_mutex_unlock(&gate->lock);
}

bool gate_wait_for_all(struct gate *gate, unsigned n, uint64_t until_usec)
{
	struct timespec until = {
		.tv_sec = (time_t)(until_usec / USEC_PER_SEC),
		.tv_nsec = (long)(until_usec % USEC_PER_SEC * 1000),
	};
	bool all;
	int r = 0;

	pthread_mutex_lock(&gate->lock);
	while (gate->n_waiting < n && r == 0)
		r = pthread_cond_timedwait(&gate->changed, &gate->lock, &until);
	all = gate->n_waiting == n;
	pthread_mutex_unlock(&gate->lock);
	return all;
}

void gate_open(struct gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	gate->is_closed = false;
	pthread_cond_broadcast(&gate->changed);
	pthread_mutex_unlock(&gate->lock);
}

void gate_pass(struct gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	if (gate->is_closed) {
		gate->n_waiting++;
		pthread_cond_broadcast(&gate->changed);
		while (gate->is_closed)
			pthread_cond_wait(&gate->changed, &gate->lock);
		gate->n_waiting--;
	}
	pthread_mutex_unlock(&gate->lock);
}
