/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes a process run only while nobody else wants its CPU (SCHED_IDLE; sched(7)),
 * for work that nobody waits for beside work that somebody does: whoever wakes up goes
 * first at once. A thread that woke up all the time beside the start of programs waited
 * at the longest for 0.3 ms, for 0.5 ms where they had long slices (slice.h), and for
 * 0.75 ms where they were as ordinary as itself (medians of windows of 40 ms; 0.25 ms
 * beside nothing).
 *
 * Such a process may starve: whoever is to be waited for has to be ordinary by then.
 *
 * It is a help and never needed, as slice.h is.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/*
 * For a process that this one has started just now, and for the threads that it will
 * start. Returns whether it is so. It is not where idle_end() could not take it back
 * (which needs CAP_SYS_NICE, or an RLIMIT_NICE of 20 minus the nice value, as
 * LimitNICE=+0 in a unit gives it), and where this process itself is not of the ordinary
 * policy. (tests/kernel/idle-needs-leave-to-end.c)
 */
bool idle_begin(pid_t pid);

/* Makes it ordinary again, all its threads. */
void idle_end(pid_t pid);

/*
 * Makes all threads of this process so, for good: the kernel takes a process apart in the
 * last of them, and whoever has handed over has nothing else to do. It may take long on a
 * busy machine, which nobody waits for.
 */
void idle_for_good(void);
