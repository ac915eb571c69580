/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Time in microseconds, as libsystemd counts it. */
#pragma once

#include <stdint.h>
#include <time.h>

#define USEC_PER_MSEC 1000ULL
#define USEC_PER_SEC 1000000ULL
#define USEC_INFINITY UINT64_MAX

/*
 * CLOCK_MONOTONIC in microseconds. It goes on over a restart of the process, so that
 * times in the ledger can be compared by the next process of the same boot.
 */
static inline uint64_t time_now_usec(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail for this clock */
	return (uint64_t)t.tv_sec * USEC_PER_SEC + (uint64_t)t.tv_nsec / 1000;
}
