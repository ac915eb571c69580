/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/utf8.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

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

static bool is_control(const char *text, size_t length)
{
	return (unsigned char)*text < ' ' || *text == 0x7f ||
	       /* C1, U+0080 to U+009F */
	       (length == 2 && (unsigned char)*text == 0xc2 &&
		(unsigned char)text[1] < 0xa0);
}

size_t utf8_copy_printable(const char *text, size_t size, char *ret_copy)
{
	size_t n_characters = 0, used = 0;

	while (*text) {
		size_t length = utf8_length(text);
		bool is_printable = length > 0 && !is_control(text, length);
		size_t n = is_printable ? length : 1;

		if (used + n >= size)
			break;
		memcpy(ret_copy + used, is_printable ? text : "?", n);
		used += n;
		text += length > 0 ? length : 1;
		n_characters++;
	}
	ret_copy[used] = '\0';
	return n_characters;
}

const char *utf8_printable(const char *text, char buffer[static UTF8_PRINTABLE_SIZE])
{
	(void)utf8_copy_printable(text, UTF8_PRINTABLE_SIZE, buffer);
	return buffer;
}
