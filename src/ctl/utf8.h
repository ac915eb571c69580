/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

/* The bytes of the first character of text, or 0 where it does not begin with valid
 * UTF-8 (as RFC 3629 has it). The end of the text is a character of one byte. */
size_t utf8_length(const char *text);

/* Room for what an instance says in a line. */
#define UTF8_PRINTABLE_SIZE 512

/*
 * Copies text with a '?' for each byte that is not to reach a terminal, and no more
 * characters than fit into size bytes. Returns how many there are.
 */
size_t utf8_copy_printable(const char *text, size_t size, char *ret_copy);

/* The same, for arguments of printf(3). Returns buffer. */
const char *utf8_printable(const char *text, char buffer[static UTF8_PRINTABLE_SIZE]);
#define PRINTABLE(text) utf8_printable(text, (char[UTF8_PRINTABLE_SIZE]){0})
