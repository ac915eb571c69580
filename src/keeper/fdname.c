/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper/fdname.h"

#include <stddef.h>
#include <string.h>

static bool is_legal(char c)
{
	return c >= 0x20 && c <= 0x7e && c != ':';
}

bool fd_name_is_valid(const char *name)
{
	size_t size = 0;

	while (name[size])
		if (!is_legal(name[size++]))
			return false;
	return size <= FD_NAME_MAX;
}

void fd_name_from_text(const char *text, char ret_name[FD_NAME_MAX + 1])
{
	size_t i;

	if (!*text)
		text = "listener";
	for (i = 0; i < FD_NAME_MAX && text[i]; i++)
		ret_name[i] = is_legal(text[i]) ? text[i] : '_';
	ret_name[i] = '\0';
}
