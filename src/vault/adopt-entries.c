/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is done with the entries that were found. See adopt.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/socket.h"
#include "vault/adopt-private.h"

static void forget_location(struct vault *vault, uint32_t slot)
{
	uint32_t location = atomic_exchange(&vault->locations[slot], 0);

	if (location != 0)
		vault_entry_died(vault, location);
}

/* A pipe that two flows claim has bytes of which nobody knows whose they are. */
static void drop_pipes_claimed_twice(struct vault *vault, bool *claimed, bool *twice)
{
	struct ledger *ledger = &vault->ledger;

	for (uint32_t slot = 0; slot < vault->n_adopted; slot++) {
		if (ledger->slots[slot].state != SLOT_CONNECTION)
			continue;
		for (size_t i = 0; i < LEDGER_FLOWS; i++) {
			slot_ref ref = ledger->slots[slot].flows[i].pipe;
			uint32_t pipe = slot_ref_slot(ref);

			if (ref == 0 || pipe >= vault->n_adopted)
				continue;
			twice[pipe] |= claimed[pipe];
			claimed[pipe] = true;
		}
	}
	for (uint32_t slot = 0; slot < vault->n_adopted; slot++) {
		struct adopted_entry *entry = &vault->adopted[slot];

		/* A connection that is claimed as a pipe is none the worse for it */
		if (!twice[slot] || ledger->slots[slot].state != SLOT_PIPE)
			continue;
		for (int i = 0; i < entry->n_fds; i++)
			entry->fds[i] = fd_close(entry->fds[i]);
		entry->n_fds = 0;
		forget_location(vault, slot);
	}
}

int adopt_check_claims(struct vault *vault)
{
	bool *claimed = calloc(vault->n_adopted + 1, sizeof(*claimed));
	bool *twice = calloc(vault->n_adopted + 1, sizeof(*twice));
	int r = -ENOMEM;

	if (claimed && twice) {
		drop_pipes_claimed_twice(vault, claimed, twice);
		r = 0;
	}
	free(claimed);
	free(twice);
	return r;
}

bool adopt_take(struct vault *vault, uint32_t slot, struct adopted_entry *ret_entry)
{
	struct adopted_entry *entry;

	if (slot >= vault->n_adopted)
		return false;
	entry = &vault->adopted[slot];
	if (entry->n_fds <= 0 || entry->kind != vault->ledger.slots[slot].state ||
	    entry->generation != vault->ledger.slots[slot].generation)
		return false;
	*ret_entry = *entry;
	entry->n_fds = ADOPTED_TAKEN;
	return true;
}

void adopt_give_back(struct vault *vault, uint32_t slot,
		     const struct adopted_entry *entry)
{
	struct adopted_entry *known = &vault->adopted[slot];

	/* Else there are later ones, which somebody may have taken as well */
	if (known->n_fds == ADOPTED_TAKEN && known->generation == entry->generation &&
	    known->kind == entry->kind) {
		memcpy(known->fds, entry->fds, sizeof(known->fds));
		known->n_fds = entry->n_fds;
		return;
	}
	for (int i = 0; i < entry->n_fds; i++)
		(void)fd_close(entry->fds[i]);
}

bool adopt_is_quarantined(const struct vault *vault, uint32_t slot)
{
	return vault->ledger.slots[slot].n_crashes >= ADOPT_QUARANTINE_CRASHES;
}

/* A live slot that nobody took: its fds are missing, or its kind has no use for it. */
static bool free_untaken(struct vault *vault, uint32_t slot)
{
	struct ledger_slot *record = &vault->ledger.slots[slot];
	struct adopted_entry entry;
	bool had_fds = adopt_take(vault, slot, &entry);

	/* First, so that a crash between the two sides does not leave a half to go on */
	atomic_fetch_or(&record->flags, SLOT_ABORTED);
	for (int i = 0; had_fds && i < entry.n_fds; i++) {
		if (record->state == SLOT_CONNECTION)
			socket_abort(entry.fds[i]);
		(void)fd_close(entry.fds[i]);
	}
	ledger_slot_clear(record);
	forget_location(vault, slot);
	return had_fds;
}

uint32_t adopt_done(struct vault *vault)
{
	uint32_t n_closed = 0;

	for (uint32_t slot = 0; slot < vault->n_adopted; slot++) {
		/* Its taker may have freed it since, and then the slot is no longer ours */
		if (vault->adopted[slot].n_fds == ADOPTED_TAKEN)
			continue;
		if (vault->ledger.slots[slot].state != SLOT_FREE)
			n_closed += free_untaken(vault, slot);
		/* Without memory they are free again at the next start */
		(void)vault_return_slots(vault, &slot, 1);
	}
	free(vault->adopted);
	vault->adopted = NULL;
	vault->n_adopted = 0;
	return n_closed;
}

void adopt_forget(struct vault *vault)
{
	for (uint32_t slot = 0; slot < vault->n_adopted; slot++)
		for (int i = 0; i < vault->adopted[slot].n_fds; i++)
			(void)fd_close(vault->adopted[slot].fds[i]);
	free(vault->adopted);
	vault->adopted = NULL;
	vault->n_adopted = 0;
}
