/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper/say.h"

#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_prefixed;
static int max_level = LOG_INFO;

void say_start(bool is_verbose)
{
	const char *stream = getenv("JOURNAL_STREAM");
	char own[64];
	struct stat status;

	max_level = is_verbose ? LOG_DEBUG : LOG_INFO;
	if (!stream || fstat(STDERR_FILENO, &status) < 0)
		return;
	(void)snprintf(own, sizeof(own), "%ju:%ju", (uintmax_t)status.st_dev,
		       (uintmax_t)status.st_ino);
	is_prefixed = strcmp(stream, own) == 0;
}

void say_line(int level, const char *format, ...)
{
	struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
	char line[SAY_MAX];
	size_t size, i;
	va_list arguments;
	int start = 0, n;

	if (level > max_level)
		return;
	if (is_prefixed)
		start = snprintf(line, sizeof(line), "<%d>", level);
	start +=
		snprintf(line + start, sizeof(line) - (size_t)start, "holdfast-keeper: ");

	va_start(arguments, format);
	n = vsnprintf(line + start, sizeof(line) - (size_t)start, format, arguments);
	va_end(arguments);
	if (n < 0)
		return;

	size = strlen(line);
	for (i = 0; i < size; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[size++] = '\n'; /* in the place of the terminating NUL, so there is room */

	/*
	 * A pipe that polls writable has room for PIPE_BUF bytes, more than a line has.
	 * Where the write fails, there is nobody left to tell.
	 */
	if (poll(&room, 1, 0) == 1 && (room.revents & POLLOUT))
		(void)!write(STDERR_FILENO, line, size);
}
