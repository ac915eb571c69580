/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the service log has logged of its connections, read from its stderr. */
#pragma once

#include <stdint.h>

#define ENTRY_BYTES_MAX 8u /* of --buffer= */

/*
 * Calls take with the bytes of each entry in the whole lines of fd from *offset on, and
 * moves that on. Returns 0, or what take returned if that was negative.
 */
int entries_read(int fd, int64_t *offset,
		 int (*take)(void *userdata, const uint8_t *bytes, unsigned n),
		 void *userdata);
