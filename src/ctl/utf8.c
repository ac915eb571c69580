/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/utf8.h"

#include <stdint.h>

/* By the first byte: how many there are, and the least that they may stand for. */
static size_t sequence(unsigned char first, uint32_t *ret_value, uint32_t *ret_least)
{
	if (first < 0x80) {
		*ret_value = first;
		*ret_least = 0;
		return 1;
	}
	if ((first & 0xe0) == 0xc0) {
		*ret_value = first & 0x1f;
		*ret_least = 0x80;
		return 2;
	}
	if ((first & 0xf0) == 0xe0) {
		*ret_value = first & 0x0f;
		*ret_least = 0x800;
		return 3;
	}
	*ret_value = first & 0x07;
	*ret_least = 0x10000;
	return (first & 0xf8) == 0xf0 ? 4 : 0;
}

size_t utf8_length(const char *text)
{
	uint32_t value, least;
	size_t n = sequence((unsigned char)text[0], &value, &least);

	for (size_t i = 1; i < n; i++) {
		unsigned char byte = (unsigned char)text[i];

		if ((byte & 0xc0) != 0x80)
			return 0;
		value = value << 6 | (byte & 0x3f);
	}
	if (value < least || value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
		return 0;
	return n;
}
