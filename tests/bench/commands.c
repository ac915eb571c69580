/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "commands.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

int commands_read(struct commands *commands, int fd)
{
	ssize_t n = read(fd, commands->text + commands->n, COMMAND_SIZE - commands->n);

	if (n < 0)
		return -errno;
	if (n == 0)
		commands->has_ended = true;
	commands->n += (size_t)n;
	if (commands->n == COMMAND_SIZE && !memchr(commands->text, '\n', commands->n))
		return -EMSGSIZE;
	return 0;
}

bool commands_take(struct commands *commands, char ret_line[COMMAND_SIZE])
{
	const char *end = memchr(commands->text, '\n', commands->n);
	size_t length;

	if (!end)
		return false;
	length = (size_t)(end - commands->text);
	memcpy(ret_line, commands->text, length);
	ret_line[length] = '\0';
	commands->n -= length + 1;
	memmove(commands->text, end + 1, commands->n);
	return true;
}
