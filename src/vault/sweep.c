/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/sweep.h"

#include <errno.h>

#include "base/time.h"
#include "vault/packer.h"
#include "vault/vault.h"

/* Whether dead entries are the most: worth a sweep now, not only at a tick. */
static bool is_mostly_dead(uint32_t n_dead, uint32_t n_entries)
{
	return n_dead > n_entries / 2;
}

/* Whether the entry is its slot's valid one, and still in parcel number index. */
static bool is_valid_here(const struct vault *vault, const struct label *label,
			  uint32_t index)
{
	const struct ledger_slot *record;

	if (!label_is_sane(label, vault->ledger.header->n_slots))
		return false;
	record = &vault->ledger.slots[label->slot];
	return record->state == label->kind && record->generation == label->generation &&
	       vault->locations[label->slot] == index + 1;
}

/* Puts the entry at the peek offset elsewhere. Returns a parcel_peek() result, 0 only at
 * the end. */
static int move_entry(struct vault *vault, uint32_t index)
{
	struct vault_parcel *parcel = &vault->parcels[index];
	struct parcel_entry entry;
	int peeked = parcel_peek(parcel->store_fd, &entry), r = 0;

	if (peeked <= 0)
		return peeked;
	if (peeked == PARCEL_CROWDED)
		return -EMFILE;
	if (peeked == PARCEL_ENTRY && is_valid_here(vault, &entry.label, index)) {
		r = packer_move(vault->packer, &entry, index);
		if (r == 0)
			parcel->n_moved++;
	}
	parcel_entry_done(&entry);
	return r < 0 && r != -ESTALE ? r : peeked;
}

/* Puts what is alive in parcel number index elsewhere. Returns 0 or a negative errno. */
static int move_entries(struct vault *vault, uint32_t index)
{
	struct vault_parcel *parcel = &vault->parcels[index];
	int r;

	r = parcel_rewind(parcel->store_fd, 0);
	if (r < 0)
		return r;
	for (;;) {
		struct label label;

		/* Most are dead, and to have their fds and close them takes time */
		r = parcel_peek_label(parcel->store_fd, &label);
		if (r <= 0)
			return r;
		if (r != PARCEL_ENTRY || !is_valid_here(vault, &label, index))
			continue;
		r = parcel_step_back(parcel->store_fd);
		if (r == 0)
			r = move_entry(vault, index);
		if (r <= 0)
			return r;
	}
}

static bool has_room_for(struct vault *vault, const struct vault_parcel *parcel)
{
	uint32_t n_alive = parcel->n_entries - parcel->n_dead - parcel->n_moved;
	int current = vault->packer->current;
	uint32_t room = vault_n_spares(vault) * PARCEL_ENTRIES_MAX;

	if (current >= 0)
		room += PARCEL_ENTRIES_MAX - vault->parcels[current].n_entries;
	return n_alive <= room;
}

static void sweep(struct vault *vault, uint32_t index)
{
	struct vault_parcel *parcel = &vault->parcels[index];

	/*
	 * What can't be moved now is tried again when there are spares, or at a tick.
	 * Begun only where all of it finds room: half a move would use up room and make
	 * none
	 */
	if (parcel->n_dead + parcel->n_moved < parcel->n_entries &&
	    has_room_for(vault, parcel))
		(void)move_entries(vault, index);
	/*
	 * An entry that a worker has just taken out of its location is not yet counted:
	 * then the sums differ, and the next round drops the parcel
	 */
	if (parcel->n_dead + parcel->n_moved == parcel->n_entries) {
		vault_drop_parcel(vault, index);
		/* There is room in the store again */
		vault->retry_usec = 0;
		vault->retry_delay_usec = VAULT_RETRY_USEC_MIN;
	}
}

static bool is_worth_a_sweep(const struct vault_parcel *parcel, bool tick)
{
	uint32_t n_dead = parcel->n_dead;

	if (parcel->state != PARCEL_SEALED)
		return false;
	if (is_mostly_dead(n_dead + parcel->n_moved, parcel->n_entries))
		return true;
	if (parcel->n_moved > 0 || parcel->n_entries - n_dead < VAULT_MERGE_BELOW)
		return true;
	return tick && n_dead > 0 && n_dead == parcel->n_dead_at_tick;
}

void sweep_all(struct vault *vault, bool tick)
{
	for (uint32_t i = 0; i < vault->parcels_end; i++) {
		struct vault_parcel *parcel = &vault->parcels[i];

		if (parcel->state == PARCEL_NONE)
			continue;
		if (is_worth_a_sweep(parcel, tick))
			sweep(vault, i);
	}
}

void sweep_ask_for_rotation(struct vault *vault)
{
	bool wanted = false;

	for (uint32_t i = 0; i < vault->parcels_end; i++) {
		struct vault_parcel *parcel = &vault->parcels[i];

		if (parcel->state == PARCEL_CURRENT && parcel->n_dead > 0 &&
		    parcel->n_dead == parcel->n_dead_at_tick) {
			pthread_mutex_lock(&vault->lock);
			if (parcel->state == PARCEL_CURRENT)
				atomic_store(&parcel->owner->rotate, true);
			wanted = true;
			pthread_mutex_unlock(&vault->lock);
		}
		parcel->n_dead_at_tick = parcel->n_dead;
	}
	packer_rotate_if_wanted(vault->packer);
	if (wanted)
		vault_wake_packers(vault);
}
