/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "entries.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINES_BYTES 8192

/* "... conn read 3 bytes, val: [49 50 51 0 0 0 0 0]". Returns n, or 0: it is no entry. */
static unsigned entry_parse(const char *line, uint8_t bytes[ENTRY_BYTES_MAX])
{
	const char *text = strstr(line, "conn read ");
	unsigned n;

	if (!text || sscanf(text, "conn read %u bytes", &n) != 1)
		return 0;
	text = strchr(text, '[');
	if (!text || n > ENTRY_BYTES_MAX)
		return 0;
	for (unsigned i = 0; i < n; i++) {
		char *end;

		bytes[i] = (uint8_t)strtoul(text + 1, &end, 10);
		text = end;
	}
	return n;
}

int entries_read(int fd, int64_t *offset,
		 int (*take)(void *userdata, const uint8_t *bytes, unsigned n),
		 void *userdata)
{
	char lines[LINES_BYTES + 1], *line = lines, *end;
	ssize_t n = pread(fd, lines, LINES_BYTES, *offset);
	int r = 0;

	lines[n > 0 ? n : 0] = '\0';
	while (r >= 0 && (end = strchr(line, '\n'))) {
		uint8_t bytes[ENTRY_BYTES_MAX];
		unsigned size;

		*end = '\0';
		size = entry_parse(line, bytes);
		if (size > 0)
			r = take(userdata, bytes, size);
		*offset += end + 1 - line;
		line = end + 1;
	}
	return r;
}
