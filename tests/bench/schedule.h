/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which connections have messages, and when each message is due. All of it follows from
 * four numbers, so nothing is kept for a message on its way, and no time drifts.
 *
 * Messages are numbered in the order in which they fall due, and the active connections
 * take turns: message g is due g / n_active intervals after the start.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct schedule {
	uint32_t n_connections;
	uint32_t n_active; /* 1 to n_connections */
	uint64_t interval_usec;
	uint64_t start_usec;
};

/* When a message is due. */
uint64_t schedule_due_usec(const struct schedule *schedule, uint64_t message);

/* The connection whose turn a message is. They are spread over all, so that no order in
 * which a service serves its connections again favours them. */
uint32_t schedule_connection(const struct schedule *schedule, uint64_t message);

/* Whether a connection has messages, and the number of its first one. */
bool schedule_is_active(const struct schedule *schedule, uint32_t connection,
			uint32_t *ret_first);

/* The number of the n-th message after the first one of a connection. */
uint64_t schedule_message(const struct schedule *schedule, uint32_t first, uint64_t n);
