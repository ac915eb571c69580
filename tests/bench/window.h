/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A window: the messages that fall due between two marks, and how long each has taken.
 *
 * A message belongs to the window that it fell due in, whenever it is answered. All
 * messages are numbered in the order in which they fall due, so a window is a range of
 * numbers, and is complete when it has as many latencies.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "latency.h"

#define WINDOW_NAME_SIZE 64

struct window {
	char name[WINDOW_NAME_SIZE];
	uint64_t first; /* number of the first message */
	uint64_t end;   /* of the first of the next window; UINT64_MAX while open */
	uint64_t late_max_usec; /* from a message's due time until we could send it */
	uint64_t peer_max_usec; /* from sending until the kernel had the answer */
	struct latency latency; /* from being due until the answer was read */
};

/* Letters, digits, dots, hyphens and underscores, fewer than WINDOW_NAME_SIZE. */
bool window_name_is_valid(const char *name);

/* Begins a window with message first. name is valid. */
void window_open(struct window *window, const char *name, uint64_t first);

/* No message from end on belongs to it. */
void window_close(struct window *window, uint64_t end);

/* Whether it is closed and all its messages have been answered. */
bool window_is_complete(const struct window *window);

/* Prints it as one line of JSON. */
void window_print(const struct window *window);
