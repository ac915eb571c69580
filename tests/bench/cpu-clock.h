/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/*
 * Adds to *usec the CPU time, user and system, that a process has used until now, with
 * all its threads, also those that have ended. Returns 0, or a negative errno (-ESRCH:
 * there is no such process).
 */
int cpu_clock_add(pid_t pid, uint64_t *usec);
