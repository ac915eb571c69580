/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/sweep.h"

#include <errno.h>

#include "base/time.h"
#include "vault/packer.h"
#include "vault/vault.h"

static_assert(VAULT_MERGE_BELOW / PARCEL_PACK_MAX + 2 <
		      VAULT_MERGE_BELOW / SWEEP_LOOSE_BELOW,
	      "what has been packed is not to be packed again");

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

/* A parcel that is being emptied. */
struct move {
	struct vault *vault;
	uint32_t index;
	struct parcel_pack pack; /* what is to be put elsewhere next */
};

/* Puts elsewhere what has come together. Returns 0 or a negative errno. */
static int put_pack(struct move *move)
{
	int r = 0;

	if (move->pack.n_entries > 0)
		r = packer_move(move->vault->packer, &move->pack, move->index);
	parcel_pack_done(&move->pack);
	return r;
}

/* Takes over what is valid in the message at the peek offset. Returns a parcel_peek()
 * result, 0 only at the end. */
static int move_message(struct move *move)
{
	struct parcel_reader reader;
	int r;

	parcel_reader_init(&reader, move->vault->parcels[move->index].store_fd);
	do {
		struct parcel_entry entry;

		r = parcel_peek(&reader, &entry);
		if (r == PARCEL_CROWDED)
			r = -EMFILE;
		if (r <= 0)
			break;
		if (r == PARCEL_ENTRY &&
		    is_valid_here(move->vault, &entry.label, move->index)) {
			parcel_pack_add(&move->pack, &entry);
			if (move->pack.n_entries == PARCEL_PACK_MAX) {
				int put = put_pack(move);

				r = put < 0 ? put : r;
			}
		}
		parcel_entry_done(&entry);
	} while (r > 0 && parcel_has_more(&reader));
	parcel_reader_done(&reader);
	return r;
}

/* Whether one of the labels is of an entry that is valid here. */
static bool any_valid_here(const struct move *move, const struct label *labels, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (is_valid_here(move->vault, &labels[i], move->index))
			return true;
	return false;
}

/* Puts what is alive in parcel number index elsewhere. Returns 0 or a negative errno. */
static int move_entries(struct vault *vault, uint32_t index)
{
	struct vault_parcel *parcel = &vault->parcels[index];
	struct move move = {.vault = vault, .index = index};
	int r, put;

	r = parcel_rewind(parcel->store_fd, 0);
	if (r < 0)
		return r;
	do {
		struct label labels[PARCEL_PACK_MAX];
		size_t n;

		/* Most are dead, and to have their fds and close them takes time */
		r = parcel_peek_labels(parcel->store_fd, labels, &n);
		if (r != PARCEL_ENTRY || !any_valid_here(&move, labels, n))
			continue;
		r = parcel_step_back(parcel->store_fd, n);
		if (r == 0)
			r = move_message(&move);
	} while (r > 0);
	put = put_pack(&move);
	return r < 0 ? r : put;
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

/*
 * Whether the fds in all parcels stay fewer than RLIMIT_NOFILE allows this user to have in
 * flight (unix(7)), even if each packer fills a further parcel before anything is swept.
 */
static bool is_far_from_the_limit(const struct vault *vault)
{
	uint64_t n_entries = (uint64_t)vault->n_packers * PARCEL_ENTRIES_MAX;

	for (uint32_t i = 0; i < vault->parcels_end; i++)
		if (vault->parcels[i].state != PARCEL_NONE)
			n_entries += vault->parcels[i].n_entries;
	return n_entries * PARCEL_FDS_MAX <= vault->files_max;
}

/*
 * Of short connections nearly all are dead in the parcel that was sealed last, and soon
 * all will be: then it is dropped without a look at its entries.
 */
static bool may_be_dropped_soon(const struct vault *vault, uint32_t index, bool tick)
{
	const struct vault_parcel *parcel = &vault->parcels[index];

	return index == vault->last_sealed && !tick && !vault->full &&
	       parcel->n_dead + parcel->n_moved < parcel->n_entries &&
	       is_far_from_the_limit(vault);
}

static bool is_worth_a_sweep(const struct vault *vault, uint32_t index, bool tick)
{
	const struct vault_parcel *parcel = &vault->parcels[index];
	uint32_t n_dead = parcel->n_dead;

	if (parcel->state != PARCEL_SEALED || may_be_dropped_soon(vault, index, tick))
		return false;
	if (is_mostly_dead(n_dead + parcel->n_moved, parcel->n_entries))
		return true;
	if (parcel->n_moved > 0 || parcel->n_entries - n_dead < VAULT_MERGE_BELOW)
		return true;
	return tick && n_dead > 0 && n_dead == parcel->n_dead_at_tick;
}

/*
 * Whether its entries were put one by one, or nearly so, and have rested for a tick: to
 * pack them saves the kernel's memory, and time at the next start. What has been packed
 * is loose no more, since there are at least VAULT_MERGE_BELOW of them.
 */
static bool is_loose(const struct vault_parcel *parcel)
{
	return parcel->state == PARCEL_SEALED &&
	       parcel->n_dead == parcel->n_dead_at_tick &&
	       parcel->n_messages > parcel->n_entries / SWEEP_LOOSE_BELOW;
}

void sweep_all(struct vault *vault, bool tick)
{
	uint32_t n_packed = 0;

	for (uint32_t i = 0; i < vault->parcels_end; i++) {
		struct vault_parcel *parcel = &vault->parcels[i];

		if (parcel->state == PARCEL_NONE)
			continue;
		if (is_worth_a_sweep(vault, i, tick)) {
			sweep(vault, i);
		} else if (tick && n_packed < SWEEP_PACKED_PER_TICK && is_loose(parcel)) {
			sweep(vault, i);
			n_packed++;
		}
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
