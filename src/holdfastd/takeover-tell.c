/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a successor is told: listeners, ledger, parcels. See takeover.h. */
#include <unistd.h>

#include "base/time.h"
#include "holdfastd/takeover-private.h"
#include "vault/give.h"

int takeover_tell(struct takeover *takeover, enum handover_type type, uint64_t number,
		  const int *fds, size_t n_fds)
{
	struct handover message = {
		.type = type,
		.number = number,
		.usec = time_now_usec(),
		.n_fds = (uint32_t)n_fds,
	};

	return handover_send(takeover->socket, &message, fds);
}

static int tell_listeners(struct takeover *takeover)
{
	const struct shared *shared = takeover->shared;

	for (size_t i = 0; i < shared->n_listeners; i += HANDOVER_FDS_MAX) {
		size_t n = shared->n_listeners - i;
		int r = takeover_tell(takeover, HANDOVER_LISTENERS, 0,
				      shared->listeners + i,
				      n < HANDOVER_FDS_MAX ? n : HANDOVER_FDS_MAX);

		if (r < 0)
			return r;
	}
	return 0;
}

/* Fills message with parcels that the successor has not been given, from *index on. */
static void add_parcels(struct takeover *takeover, struct handover *message, int *fds,
			uint32_t *index)
{
	const struct vault_parcel *parcel;

	while (message->n_fds < HANDOVER_FDS_MAX - 1 &&
	       (parcel = give_next_parcel(takeover->shared->vault, index))) {
		bool grows = parcel->state != PARCEL_SEALED;

		message->parcels[message->n_parcels++] = *index << 1 | grows;
		fds[message->n_fds++] = parcel->store_fd;
		if (grows)
			fds[message->n_fds++] = parcel->send_fd;
		(*index)++;
	}
}

int takeover_tell_parcels(struct takeover *takeover)
{
	uint32_t index = 0;

	for (;;) {
		struct handover message = {.type = HANDOVER_PARCELS};
		int fds[HANDOVER_FDS_MAX], r;

		add_parcels(takeover, &message, fds, &index);
		if (message.n_parcels == 0)
			return 0;
		r = handover_send(takeover->socket, &message, fds);
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < message.n_parcels; i++)
			give_note_passed(takeover->shared->vault,
					 message.parcels[i] >> 1);
		takeover->n_parcels += message.n_parcels;
	}
}

int takeover_tell_state(struct takeover *takeover)
{
	struct vault *vault = takeover->shared->vault;
	int fds[] = {vault->ledger.fd, vault->changes.fd};
	int r;

	r = takeover_tell(takeover, HANDOVER_BEGIN, (uint64_t)getpid(), fds, 2);
	if (r == 0 && takeover->shared->control_fd >= 0)
		r = takeover_tell(takeover, HANDOVER_CONTROL, 0,
				  &takeover->shared->control_fd, 1);
	if (r == 0)
		r = tell_listeners(takeover);
	if (r == 0)
		r = takeover_tell_parcels(takeover);
	takeover->n_parcels_told = takeover->n_parcels;
	return r < 0 ? r : takeover_tell(takeover, HANDOVER_END_OF_STATE, 0, NULL, 0);
}
