/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/slice.h"

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/sched-attributes.h"

/* The longest that the kernel takes. */
#define SLICE_LONG_NSEC 100000000

/* Other policies have no slices, and keep what they have. */
static bool get(struct sched_attributes *ret_attributes)
{
	return sched_attributes_get(0, ret_attributes) &&
	       ret_attributes->policy == SCHED_OTHER;
}

static void set(struct sched_attributes *attributes, uint64_t nsec)
{
	attributes->runtime = nsec;
	(void)sched_attributes_set(0, attributes); /* a help, as said */
}

void slice_lengthen(void)
{
	struct sched_attributes attributes;

	/* An older kernel says 0 */
	if (get(&attributes) && attributes.runtime > 0)
		set(&attributes, SLICE_LONG_NSEC);
}

void slice_reset(void)
{
	struct sched_attributes attributes;

	if (get(&attributes) && attributes.runtime == SLICE_LONG_NSEC)
		set(&attributes, 0);
}
