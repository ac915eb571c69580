/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper/restart.h"

#include <stdlib.h>

#include "base/time.h"

#define DELAY_MIN_USEC (RESTART_DELAY_MIN_MSEC * USEC_PER_MSEC)

void restart_init(struct restart *restart)
{
	*restart = (struct restart){
		.delay_max_usec = RESTART_DELAY_MAX_SEC * USEC_PER_SEC,
		.delay_usec = DELAY_MIN_USEC,
		.last_status = RESTART_STATUS_NONE,
		.exit_status = EXIT_SUCCESS,
	};
}

void restart_begin(struct restart *restart, uint64_t now_usec)
{
	restart->started_usec = now_usec;
	restart->last_status = RESTART_STATUS_NONE;
	restart->is_asked = false;
}

static uint64_t bounded_delay(const struct restart *restart, uint64_t usec)
{
	return usec < restart->delay_max_usec ? usec : restart->delay_max_usec;
}

enum restart_action restart_decide(struct restart *restart, uint64_t now_usec)
{
	uint64_t delay_usec;

	if (restart->is_leaving)
		return RESTART_NEVER;
	if (restart->is_asked)
		return RESTART_NOW;

	if (now_usec - restart->started_usec >= RESTART_STEADY_SEC * USEC_PER_SEC)
		restart->delay_usec = DELAY_MIN_USEC;
	delay_usec = bounded_delay(restart, restart->delay_usec);
	restart->delay_usec = bounded_delay(restart, 2 * delay_usec);
	restart->not_before_usec = now_usec + delay_usec;

	if (restart->last_status < 0 || !restart->is_prevented[restart->last_status])
		return RESTART_LATER;
	if (restart->last_status == RESTART_STATUS_IDLE)
		return RESTART_ON_CONNECTION;
	if (restart->is_holding)
		return RESTART_LATER;
	restart->exit_status = restart->last_status;
	return RESTART_NEVER;
}

uint64_t restart_wait_usec(const struct restart *restart, uint64_t now_usec)
{
	uint64_t not_before_usec = restart->not_before_usec;

	return not_before_usec > now_usec ? not_before_usec - now_usec : 0;
}
