/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The time slice of a thread: for how long the scheduler lets it run while others wait. A
 * thread with a short slice gets no less of a CPU, but in smaller pieces, so that one
 * that wakes up for a moment's work waits less for it. Linux has it per thread since 6.12
 * (sched_setattr(2), EEVDF; tests/kernel/slice-is-inherited.c).
 *
 * For work in bulk beside which somebody is waited for. It is a help and never needed:
 * where it can't be set (an older kernel, a filter without sched_setattr()), things are
 * as they were, and nobody is told.
 */
#pragma once

/* The calling thread's, until slice_reset(); inherited by what it starts, also by exec. */
void slice_shorten(void);

/* As the system has it, where slice_shorten() was in force. */
void slice_reset(void);
