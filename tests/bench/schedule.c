/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "schedule.h"

uint64_t schedule_due_usec(const struct schedule *schedule, uint64_t message)
{
	return schedule->start_usec +
	       message * schedule->interval_usec / schedule->n_active;
}

uint32_t schedule_connection(const struct schedule *schedule, uint64_t message)
{
	uint64_t turn = message % schedule->n_active;

	return (uint32_t)(turn * schedule->n_connections / schedule->n_active);
}

bool schedule_is_active(const struct schedule *schedule, uint32_t connection,
			uint32_t *ret_first)
{
	uint64_t scaled = (uint64_t)connection * schedule->n_active;
	uint64_t first = (scaled + schedule->n_connections - 1) / schedule->n_connections;

	if (first >= schedule->n_active ||
	    schedule_connection(schedule, first) != connection)
		return false;
	*ret_first = (uint32_t)first;
	return true;
}

uint64_t schedule_message(const struct schedule *schedule, uint32_t first, uint64_t n)
{
	return first + n * schedule->n_active;
}
