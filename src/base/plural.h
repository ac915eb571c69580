/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

/* What "connection" ends in when there are n of them, or "restart". */
static inline const char *plural(uint64_t n)
{
	return n == 1 ? "" : "s";
}
