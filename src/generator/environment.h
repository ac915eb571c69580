/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reads a file as the EnvironmentFile= of systemd.exec(5) is read: the same quotes,
 * continued lines and comments, and the last assignment counts.
 *
 * One difference is left: after a comment that ends in a backslash, the next line counts
 * here, as it does since systemd 254.
 *
 * It refuses nothing, since systemd leaves out what it can't read, and knows nothing of
 * what the variables mean.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/*
 * Finds the value that text (size bytes, which need not end in a zero) gives to the
 * variable name. ret_value: always ended by a zero, cut to value_size - 1 bytes; empty
 * where it is not assigned. Returns whether it is.
 */
bool environment_find(const char *text, size_t size, const char *name, char *ret_value,
		      size_t value_size);
