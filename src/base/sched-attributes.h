/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between slice.c and idle.c only: sched_getattr(2) and sched_setattr(2), which
 * glibc 2.36 has no functions for. A sandbox may forbid them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* struct sched_attr of linux/sched/types.h, as far as its first version goes: that header
 * and glibc's sched.h define each other's structs. */
struct sched_attributes {
	uint32_t size;
	uint32_t policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime; /* of SCHED_OTHER: the slice in ns; to be set, 0: the default */
	uint64_t deadline;
	uint64_t period;
};

/* Of a thread; 0: the caller. */
bool sched_attributes_get(pid_t thread, struct sched_attributes *ret_attributes);
bool sched_attributes_set(pid_t thread, struct sched_attributes *attributes);

/*
 * Calls change for each thread of a process. Those that come meanwhile have the
 * attributes of the threads that start them, which may not have been changed yet: the
 * main thread's turn is the first. Returns whether the threads could be found.
 */
bool sched_attributes_change_all(pid_t process, void (*change)(pid_t thread));
