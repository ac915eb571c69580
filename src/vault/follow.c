/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/follow.h"

#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"

/* Grows while the other process serves, and is its word. */
static uint32_t n_slots_used(const struct vault *vault)
{
	uint32_t n = vault->ledger.header->n_slots_used;

	return n < vault->n_adopted ? n : vault->n_adopted;
}

int follow_begin(struct vault *vault, int ledger_fd, int changes_fd)
{
	uint32_t n_slots;
	int r;

	r = ledger_map(ledger_fd, &vault->ledger);
	if (r < 0)
		return r;
	n_slots = vault->ledger.header->n_slots;
	/* Memory is given by the page when touched: most slots are never used */
	vault->adopted = calloc(n_slots, sizeof(*vault->adopted));
	vault->notes =
		calloc(n_slots / CHANGES_SLOTS_PER_WORD + 1, sizeof(*vault->notes));
	r = vault->adopted && vault->notes
		    ? changes_map(changes_fd, n_slots, &vault->changes)
		    : -ENOMEM;
	if (r < 0) {
		vault->ledger.fd = -EBADF; /* still the caller's */
		return r;
	}
	vault->n_adopted = n_slots;
	vault->activity = VAULT_STILL;
	for (uint32_t slot = 0; slot < n_slots_used(vault); slot++)
		follow_note(vault, slot);
	return 0;
}

int follow_add_parcel(struct vault *vault, uint32_t index, int send_fd, int store_fd)
{
	struct vault_parcel *parcel;
	int r;

	if (index >= VAULT_PARCELS_MAX || vault->parcels[index].state != PARCEL_NONE)
		return -EBADMSG;
	r = parcel_rewind(store_fd, 0);
	if (r < 0)
		return r;
	parcel = &vault->parcels[index];
	parcel->send_fd = send_fd;
	parcel->store_fd = store_fd;
	/* While there is no packer nobody adds to it, as far as this process goes */
	parcel->state = PARCEL_SEALED;
	if (index >= vault->parcels_end)
		vault->parcels_end = index + 1;
	vault->n_parcels++;
	return 0;
}

void follow_note(struct vault *vault, uint32_t slot)
{
	changes_note(&vault->changes, slot);
}

/* ---- entries ---- */

/* How generations compare, which may wrap. */
static bool is_later(uint32_t generation, uint32_t than)
{
	return (int32_t)(generation - than) > 0;
}

static void forget(struct vault *vault, uint32_t slot)
{
	struct adopted_entry *known = &vault->adopted[slot];
	uint32_t location = vault->locations[slot];

	for (int i = 0; i < known->n_fds; i++)
		(void)fd_close(known->fds[i]);
	known->n_fds = 0;
	if (location != 0)
		vault->parcels[location - 1].n_dead++;
	vault->locations[slot] = 0;
}

/*
 * An entry counts if it is the latest of its slot, and no older than the slot's record:
 * its generation is there a moment before the record says so. (Whether it has been
 * outlived is adopt_take()'s to see.) But in a parcel that nothing is added to, each put
 * was over before it was passed: what is later than its record there was put by a process
 * that died before it could say so.
 */
static bool is_news(const struct vault *vault, uint32_t index, const struct label *label)
{
	uint32_t slot = label->slot;
	uint32_t generation = vault->ledger.slots[slot].generation;

	if (is_later(generation, label->generation))
		return false;
	if (generation != label->generation && vault->parcels[index].send_fd < 0)
		return false;
	return vault->locations[slot] == 0 ||
	       is_later(label->generation, vault->adopted[slot].generation);
}

static void note_entry(struct vault *vault, uint32_t index, struct parcel_entry *entry)
{
	struct adopted_entry *known = &vault->adopted[entry->label.slot];

	forget(vault, entry->label.slot);
	for (int i = 0; i < PARCEL_FDS_MAX; i++)
		known->fds[i] = take_fd(&entry->fds[i]);
	known->n_fds = entry->n_fds;
	known->kind = entry->label.kind;
	known->generation = entry->label.generation;
	vault->locations[entry->label.slot] = index + 1;
	/* Its parcel may have been passed after its note was taken */
	vault->notes[entry->label.slot / CHANGES_SLOTS_PER_WORD] |=
		UINT64_C(1) << entry->label.slot % CHANGES_SLOTS_PER_WORD;
}

static int peek_entries(struct vault *vault, uint32_t index)
{
	struct vault_parcel *parcel = &vault->parcels[index];

	for (;;) {
		struct parcel_entry entry;
		int r = parcel_peek(parcel->store_fd, &entry);

		if (r == PARCEL_CROWDED)
			return -EMFILE;
		if (r <= 0)
			return r;
		if (r == PARCEL_DAMAGED ||
		    !label_is_sane(&entry.label, n_slots_used(vault))) {
			parcel_entry_done(&entry);
			return -EBADMSG;
		}
		parcel->n_entries++;
		if (is_news(vault, index, &entry.label))
			note_entry(vault, index, &entry);
		else
			parcel->n_dead++;
		parcel_entry_done(&entry);
	}
}

/* A parcel to which nothing can be added need not be looked at twice. */
static bool is_seen(const struct vault_parcel *parcel)
{
	return parcel->n_entries >= PARCEL_ENTRIES_MAX ||
	       (parcel->send_fd < 0 && parcel->n_entries > 0);
}

static int peek_parcels(struct vault *vault)
{
	for (uint32_t i = 0; i < vault->parcels_end; i++) {
		int r;

		if (vault->parcels[i].state == PARCEL_NONE || is_seen(&vault->parcels[i]))
			continue;
		r = peek_entries(vault, i);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- looking ---- */

/* Calls what for each slot that was noted, until it fails. Returns how many there are. */
static int for_each_noted(const struct vault *vault,
			  int (*what)(void *userdata, uint32_t slot), void *userdata)
{
	uint32_t n_words = n_slots_used(vault) / CHANGES_SLOTS_PER_WORD + 1;
	int n = 0;

	for (uint32_t i = 0; i < n_words; i++)
		for (uint64_t notes = vault->notes[i]; notes != 0; notes &= notes - 1) {
			uint32_t first = i * CHANGES_SLOTS_PER_WORD;
			int r = what(userdata, first + (uint32_t)__builtin_ctzll(notes));

			if (r < 0)
				return r;
			n++;
		}
	return n;
}

/*
 * The notes are taken before the parcels are peeked, and the records are read after: so
 * what a record names has been put before, and if it was put after the peek, then the
 * slot's note is after its being taken, and there is another look. What was put into a
 * parcel that has not been passed yet is told when its entry is found.
 */
int follow_look(struct vault *vault, int (*outdated)(void *userdata, uint32_t slot),
		int (*changed)(void *userdata, uint32_t slot), void *userdata)
{
	uint32_t n_words = n_slots_used(vault) / CHANGES_SLOTS_PER_WORD + 1;
	int r;

	for (uint32_t i = 0; i < n_words; i++)
		vault->notes[i] = changes_take(&vault->changes, i);
	r = peek_parcels(vault);
	if (r == 0)
		r = for_each_noted(vault, outdated, userdata);
	return r < 0 ? r : for_each_noted(vault, changed, userdata);
}

/* ---- the end ---- */

static int free_untaken(struct vault *vault)
{
	uint32_t n = n_slots_used(vault);
	uint32_t *slots = calloc(n + 1, sizeof(*slots)), n_free = 0;
	int r;

	if (!slots)
		return -ENOMEM;
	/* The last of the list is the first to be used: low slots, on memory in use */
	for (uint32_t slot = n; slot-- > 0;) {
		if (vault->adopted[slot].n_fds == ADOPTED_TAKEN)
			continue;
		if (vault->ledger.slots[slot].state != SLOT_FREE)
			ledger_slot_clear(&vault->ledger.slots[slot]);
		forget(vault, slot);
		slots[n_free++] = slot;
	}
	r = vault_return_slots(vault, slots, n_free);
	free(slots);
	return r;
}

/* Empty parcels go on as spares; those that have entries are for sweeping to merge. */
static void hand_out_empty(struct vault *vault)
{
	pthread_mutex_lock(&vault->lock);
	for (uint32_t i = 0; i < vault->parcels_end; i++) {
		struct vault_parcel *parcel = &vault->parcels[i];

		if (parcel->send_fd < 0)
			continue;
		if (parcel->n_entries > 0) {
			parcel->send_fd = fd_close(parcel->send_fd);
			continue;
		}
		parcel->state = PARCEL_SPARE;
		vault->spares[vault->n_spares++] = i;
	}
	pthread_mutex_unlock(&vault->lock);
}

int follow_done(struct vault *vault)
{
	int r = free_untaken(vault);

	hand_out_empty(vault);
	free(vault->adopted);
	vault->adopted = NULL;
	vault->n_adopted = 0;
	return r;
}
