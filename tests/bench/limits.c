/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "limits.h"

#include <sys/resource.h>

void limits_raise(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit); /* the worst is what it was */
}
