/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Commands, a line each, from an fd that epoll can wait for. A line that has been read
 * but not yet taken waits here.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define COMMAND_SIZE 80 /* of the longest, with its newline */

struct commands {
	char text[COMMAND_SIZE];
	size_t n;
	bool has_ended;
};

/* Reads once, when the fd is readable. Returns 0, or a negative errno: -EMSGSIZE if there
 * is no whole line in COMMAND_SIZE bytes. */
int commands_read(struct commands *commands, int fd);

/* Takes the next line without its newline; false if there is none. */
bool commands_take(struct commands *commands, char ret_line[COMMAND_SIZE]);
