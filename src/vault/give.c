/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/give.h"

#include <errno.h>

#include "vault/proof.h"

/*
 * The memory is kept for the next takeover: a worker may be about to note something at
 * any time, even when this one is over.
 */
int give_begin(struct vault *vault)
{
	int r;

	if (!vault->changes.words) {
		r = changes_new(vault->ledger.header->n_slots, &vault->changes);
		if (r < 0)
			return r;
	}
	(void)proof_end(vault);
	if (vault->stores_nothing)
		return -ENOSPC;
	for (uint32_t i = 0; i < vault->changes.n_words; i++)
		(void)changes_take(&vault->changes, i);
	for (uint32_t i = 0; i < vault->parcels_end; i++)
		vault->parcels[i].is_passed = false;
	vault->activity = VAULT_GROWING;
	atomic_store(&vault->noting, &vault->changes);
	return 0;
}

/* Whether the manager is known to have it. */
static bool is_stored(const struct vault_parcel *parcel)
{
	switch ((enum parcel_state)parcel->state) {
	case PARCEL_NONE:
	case PARCEL_UPLOADED:
		return false;
	case PARCEL_SPARE:
	case PARCEL_CURRENT:
	case PARCEL_SEALED:
		return true;
	}
	return false;
}

const struct vault_parcel *give_next_parcel(struct vault *vault, uint32_t *index)
{
	for (uint32_t i = *index; i < vault->parcels_end; i++) {
		const struct vault_parcel *parcel = &vault->parcels[i];

		if (parcel->is_passed || !is_stored(parcel))
			continue;
		*index = i;
		return parcel;
	}
	return NULL;
}

void give_note_passed(struct vault *vault, uint32_t index)
{
	vault->parcels[index].is_passed = true;
}

bool give_settle(struct vault *vault)
{
	vault->activity = VAULT_STILL;
	return vault->probe.barrier_fd < 0;
}

void give_end(struct vault *vault)
{
	atomic_store(&vault->noting, NULL);
	vault->activity = VAULT_ACTIVE;
}
