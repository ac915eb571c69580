/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

/* The bytes of the first character of text, or 0 where it does not begin with valid
 * UTF-8 (as RFC 3629 has it). The end of the text is a character of one byte. */
size_t utf8_length(const char *text);
