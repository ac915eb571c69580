/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/packer.h"

#include <errno.h>
#include <string.h>

void packer_init(struct packer *packer, struct vault *vault)
{
	*packer = (struct packer){.vault = vault, .current = -EBADF};
}

uint32_t packer_next_generation(struct packer *packer, uint32_t slot)
{
	return atomic_fetch_add(&packer->vault->ledger.slots[slot].last_generation, 1) +
	       1;
}

int packer_take_slot(struct packer *packer, uint32_t *ret_slot)
{
	struct ledger_slot *record;
	uint32_t slot;

	if (packer->n_slots == 0)
		packer->n_slots =
			vault_take_slots(packer->vault, packer->slots, PACKER_SLOTS);
	if (packer->n_slots == 0)
		return -ENOSPC;
	slot = packer->slots[--packer->n_slots];
	record = &packer->vault->ledger.slots[slot];
	ledger_slot_clear(record);
	record->generation = packer_next_generation(packer, slot);
	*ret_slot = slot;
	return 0;
}

void packer_publish(struct packer *packer, uint32_t slot, enum slot_state kind)
{
	atomic_store(&packer->vault->ledger.slots[slot].state, kind);
}

static void seal_current(struct packer *packer)
{
	uint32_t index = (uint32_t)packer->current;

	packer->current = -EBADF;
	vault_seal(packer->vault, index);
}

void packer_rotate_if_wanted(struct packer *packer)
{
	if (atomic_exchange(&packer->rotate, false) && packer->current >= 0)
		seal_current(packer);
}

/* Entries that the current parcel still takes, or the next one where there is none. */
static uint32_t room(const struct packer *packer)
{
	uint32_t n;

	if (packer->current < 0)
		return PARCEL_ENTRIES_MAX;
	n = packer->vault->parcels[packer->current].n_entries;
	return n < PARCEL_ENTRIES_MAX ? PARCEL_ENTRIES_MAX - n : PARCEL_ENTRIES_MAX;
}

/* Adds n entries to the current parcel, or to a new one where that is full, which is the
 * current one then. */
static int append(struct packer *packer, const struct label *labels, uint32_t n,
		  const int *fds)
{
	for (;;) {
		struct vault_parcel *parcel;
		int r;

		if (packer->current < 0) {
			packer->current = vault_take_spare(packer->vault, packer);
			if (packer->current < 0)
				return packer->current;
		}
		parcel = &packer->vault->parcels[packer->current];
		r = parcel->n_entries + n <= PARCEL_ENTRIES_MAX
			    ? parcel_put(parcel->send_fd, labels, n, fds)
			    : -EAGAIN;
		if (r == 0) {
			parcel->n_messages++;
			parcel->n_entries += n;
			return 0;
		}
		/* A parcel that takes nothing even when empty would loop through the
		 * spares */
		if (r != -EAGAIN || parcel->n_entries == 0)
			return r;
		seal_current(packer);
	}
}

int packer_put(struct packer *packer, uint32_t slot, uint32_t generation, const int *fds,
	       int n_fds)
{
	struct vault *vault = packer->vault;
	struct label label = {
		.version = LABEL_VERSION,
		.kind = vault->ledger.slots[slot].state,
		.slot = slot,
		.generation = generation,
		.n_fds = (uint32_t)n_fds,
	};
	uint32_t old;
	int r;

	r = append(packer, &label, 1, fds);
	if (r < 0)
		return r;
	/* Before the old entry is counted dead: its parcel may go at that moment */
	atomic_store(&vault->ledger.slots[slot].generation, generation);
	old = atomic_exchange(&vault->locations[slot], (uint32_t)packer->current + 1);
	if (old != 0)
		vault_entry_died(vault, old);
	vault_note_change(vault, slot);
	return 0;
}

/* Of entries that were put into the current parcel: those that are still their slots'
 * valid ones are there now. */
static void note_moved(struct packer *packer, const struct label *labels, uint32_t n,
		       uint32_t from)
{
	struct vault *vault = packer->vault;
	struct vault_parcel *parcel = &vault->parcels[packer->current];

	for (uint32_t i = 0; i < n; i++) {
		uint32_t expected = from + 1;

		if (atomic_compare_exchange_strong(&vault->locations[labels[i].slot],
						   &expected,
						   (uint32_t)packer->current + 1))
			vault->parcels[from].n_moved++;
		else
			/* It died or moved in between: what was put is a copy that nobody
			 * asks for */
			atomic_fetch_add(&parcel->n_dead, 1);
	}
}

int packer_move(struct packer *packer, const struct parcel_pack *pack, uint32_t from)
{
	const struct label *labels = pack->labels;
	const int *fds = pack->fds;
	uint32_t n_left = pack->n_entries;

	while (n_left > 0) {
		uint32_t n = n_left < room(packer) ? n_left : room(packer);
		int r = append(packer, labels, n, fds);

		if (r < 0)
			return r;
		note_moved(packer, labels, n, from);
		for (uint32_t i = 0; i < n; i++)
			fds += labels[i].n_fds;
		labels += n;
		n_left -= n;
	}
	return 0;
}

void packer_free_slot(struct packer *packer, uint32_t slot)
{
	struct vault *vault = packer->vault;
	uint32_t old;

	ledger_slot_clear(&vault->ledger.slots[slot]);
	vault_note_change(vault, slot);
	old = atomic_exchange(&vault->locations[slot], 0);
	if (old != 0)
		vault_entry_died(vault, old);

	if (packer->n_slots == 2 * PACKER_SLOTS) {
		packer->n_slots -= PACKER_SLOTS;
		/* Without memory the slots are lost to this process; the next adopt finds
		 * them */
		(void)vault_return_slots(vault, packer->slots + packer->n_slots,
					 PACKER_SLOTS);
	}
	packer->slots[packer->n_slots++] = slot;
}

int packer_make_room(struct packer *packer)
{
	packer_rotate_if_wanted(packer);
	if (packer->current >= 0 &&
	    packer->vault->parcels[packer->current].n_entries < PARCEL_ENTRIES_MAX)
		return 0;
	if (packer->current >= 0)
		seal_current(packer);
	packer->current = vault_take_spare(packer->vault, packer);
	return packer->current < 0 ? packer->current : 0;
}
