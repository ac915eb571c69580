/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cpu-clock.h"

#include <errno.h>
#include <time.h>

#include "base/time.h"

int cpu_clock_add(pid_t pid, uint64_t *usec)
{
	struct timespec time;
	clockid_t clock;
	int r = clock_getcpuclockid(pid, &clock);

	if (r != 0)
		return -r;
	if (clock_gettime(clock, &time) < 0)
		return -errno;
	*usec += (uint64_t)time.tv_sec * USEC_PER_SEC + (uint64_t)time.tv_nsec / 1000;
	return 0;
}
