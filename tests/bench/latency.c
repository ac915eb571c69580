/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "latency.h"

#include <string.h>

/*
 * Below 64 a bucket is one value. Above, the five bits that follow the highest one choose
 * among the 32 buckets of that power of two.
 */
static unsigned int bucket_of(uint64_t usec)
{
	uint32_t value = usec > UINT32_MAX ? UINT32_MAX : (uint32_t)usec;
	unsigned int shift = value < 64 ? 0 : 26 - (unsigned int)__builtin_clz(value);

	return shift * 32 + (value >> shift);
}

/* The highest value of a bucket. */
static uint64_t bucket_end(unsigned int bucket)
{
	unsigned int shift = bucket < 64 ? 0 : bucket / 32 - 1;

	return (((uint64_t)bucket - shift * 32 + 1) << shift) - 1;
}

void latency_init(struct latency *latency)
{
	memset(latency, 0, sizeof(*latency));
}

void latency_add(struct latency *latency, uint64_t usec)
{
	latency->n++;
	latency->counts[bucket_of(usec)]++;
	if (usec > latency->max_usec)
		latency->max_usec = usec;
}

uint64_t latency_quantile(const struct latency *latency, unsigned int per_mille)
{
	uint64_t n_wanted = (latency->n * per_mille + 999) / 1000;
	uint64_t n_passed = 0;

	if (latency->n == 0)
		return 0;
	for (unsigned int i = 0; i < LATENCY_BUCKETS; i++) {
		n_passed += latency->counts[i];
		if (n_passed >= n_wanted && bucket_end(i) < latency->max_usec)
			return bucket_end(i);
		if (n_passed >= n_wanted)
			break;
	}
	return latency->max_usec;
}
