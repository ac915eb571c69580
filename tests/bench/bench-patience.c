/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The part of the bench that looks for what takes too long. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/time.h"
#include "bench.h"

static int give_up_on(struct bench *bench, const struct conversation *conversation)
{
	(void)snprintf(bench->complaint.text, sizeof(bench->complaint.text),
		       "connection %" PRIu32 ": nothing in %" PRIu64 " s (%" PRIu64
		       " messages due, %" PRIu64 " answered)",
		       conversation->number,
		       (uint64_t)(bench->options->timeout_usec / USEC_PER_SEC),
		       conversation->n_due, conversation->n_answered);
	return -ETIMEDOUT;
}

/* Since when the conversation owes us something, or USEC_INFINITY. */
static uint64_t owing_since_usec(const struct bench *bench,
				 const struct conversation *conversation)
{
	uint32_t first;
	uint64_t message;

	if (bench->phase == PHASE_ENDING)
		return conversation->has_ended ? USEC_INFINITY : bench->phase_usec;
	if (conversation->n_answered == conversation->n_due)
		return USEC_INFINITY;
	if (conversation->n_answered == 0 ||
	    !schedule_is_active(&bench->schedule, conversation->number, &first))
		return bench->phase_usec;
	message = schedule_message(&bench->schedule, first, conversation->n_answered - 1);
	return schedule_due_usec(&bench->schedule, message);
}

int bench_check_patience(struct bench *bench)
{
	uint64_t now_usec = time_now_usec();

	if (now_usec < bench->check_usec)
		return 0;
	bench->check_usec = now_usec + BENCH_CHECK_INTERVAL_USEC;
	for (uint32_t i = 0; i < bench->n_opened; i++) {
		const struct conversation *conversation = &bench->conversations[i];
		uint64_t since_usec = owing_since_usec(bench, conversation);

		if (since_usec < now_usec &&
		    now_usec - since_usec > bench->options->timeout_usec)
			return give_up_on(bench, conversation);
	}
	return 0;
}
