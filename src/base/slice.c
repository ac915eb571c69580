/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/slice.h"

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The longest that the kernel takes. */
#define SLICE_LONG_NSEC 100000000

/* struct sched_attr of linux/sched/types.h, as far as its first version goes: that header
 * and glibc's sched.h define each other's structs. */
struct attributes {
	uint32_t size;
	uint32_t policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime; /* of SCHED_OTHER: the slice in ns; to be set, 0: the default */
	uint64_t deadline;
	uint64_t period;
};

/* Other policies have no slices, and keep what they have. */
static bool get(struct attributes *ret_attributes)
{
	return syscall(SYS_sched_getattr, 0, ret_attributes, sizeof(*ret_attributes),
		       0) == 0 &&
	       ret_attributes->policy == SCHED_OTHER;
}

static void set(struct attributes *attributes, uint64_t nsec)
{
	attributes->runtime = nsec;
	(void)syscall(SYS_sched_setattr, 0, attributes, 0); /* a help, as said */
}

void slice_lengthen(void)
{
	struct attributes attributes;

	/* An older kernel says 0 */
	if (get(&attributes) && attributes.runtime > 0)
		set(&attributes, SLICE_LONG_NSEC);
}

void slice_reset(void)
{
	struct attributes attributes;

	if (get(&attributes) && attributes.runtime == SLICE_LONG_NSEC)
		set(&attributes, 0);
}
