/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The distribution of latencies, in memory of fixed size: the maximum is exact, a
 * quantile is at most 1/32 too high and never too low.
 */
#pragma once

#include <stdint.h>

/* 32 buckets for each power of two, up to 2^32 microseconds (71 minutes) */
#define LATENCY_BUCKETS 896

struct latency {
	uint64_t n;
	uint64_t max_usec;
	uint32_t counts[LATENCY_BUCKETS];
};

void latency_init(struct latency *latency);
void latency_add(struct latency *latency, uint64_t usec);

/* What per_mille of 1000 latencies do not exceed; 0 where there are none. */
uint64_t latency_quantile(const struct latency *latency, unsigned int per_mille);
