/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Work in bulk that nobody waits for, beside work that somebody does: a takeover's new
 * process gets ready while the old one serves. Two things keep the one from delaying the
 * other, both without a privilege:
 *
 * A time slice is how much of a CPU a thread asks for at once. One with a long slice gets
 * no less of it, but later: of those that wait, the scheduler takes the one whose slice
 * would be over first (EEVDF; Documentation/scheduler/sched-eevdf.rst of the kernel). So
 * one that wakes up for a moment's work, and has had as much as the other, goes before
 * it: beside a thread with a slice of 100 ms it waited for 0.11 ms in the worst percent
 * of cases, for 0.3 ms with the system's slice (3 ms), and for 0.7 ms beside one of 0.1
 * ms. Linux has it per thread since 6.12 (sched_setattr(2);
 * tests/kernel/slice-is-inherited.c).
 *
 * A CPU of its own: the one works there, and the others keep to the rest until it is done
 * (sched_setaffinity(2); tests/kernel/cpus-are-inherited.c). A thread that wakes up again
 * and again waits beside the start of a program for 4 ms in the worst tenth of cases, and
 * on another CPU for no longer than if nothing was started.
 *
 * They are helps and never needed: where they can't be had (one CPU, an older kernel, a
 * filter of system calls), things are as they were, and nobody is told.
 */
#pragma once

#include <stdbool.h>

#include <sched.h>

/* How CPUs are divided, each part a set that is not empty. */
struct cpus {
	cpu_set_t all;
	cpu_set_t one;  /* for the work that nobody waits for */
	cpu_set_t rest; /* for the other */
};

/*
 * Divides the CPUs that the calling thread may use; one of its own is that on which it
 * runs. Returns whether they can be divided: all is undefined else.
 */
bool cpus_divide(struct cpus *ret_cpus);

/*
 * The calling thread's work is such, from now on, on cpus->one (NULL: on all CPUs); and
 * that of what it starts, also by exec. Only system calls: it may be called in a child
 * that shares its parent's memory.
 */
void leisure_begin(const struct cpus *cpus);

/* All threads of this process, at its end: from now on on cpus->one. */
void leisure_begin_end(const struct cpus *cpus);

/*
 * To be called in a process that was started at leisure, before it has a second thread.
 * Its threads' CPUs are to be those of the main thread of the process that made socket,
 * one of a pair (SO_PEERCRED of unix(7)), from leisure_end() on.
 */
void leisure_learn(int socket);

/*
 * How the CPUs were divided for this process's start, of which leisure_learn() has told;
 * returns whether they were.
 */
bool leisure_get_cpus(struct cpus *ret_cpus);

/* The calling thread gets the slice of the system and the CPUs that were learned. Each
 * thread does so that has inherited it. */
void leisure_end(void);
