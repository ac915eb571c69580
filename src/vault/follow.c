/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/follow.h"

#include <errno.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/socket.h"

/* Grows while the other process serves, and is its word. */
static uint32_t n_slots_used(const struct vault *vault)
{
	uint32_t n = vault->ledger.header->n_slots_used;

	return n < vault->n_adopted ? n : vault->n_adopted;
}

static uint32_t n_words_used(const struct vault *vault)
{
	return n_slots_used(vault) / CHANGES_SLOTS_PER_WORD + 1;
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
	uint32_t location = atomic_exchange(&vault->locations[slot], 0);

	for (int i = 0; i < known->n_fds; i++)
		(void)fd_close(known->fds[i]);
	known->n_fds = 0;
	if (location != 0)
		vault_entry_died(vault, location);
}

/* Takes the fds of a slot's valid entry over. */
static void note_entry(struct vault *vault, uint32_t index, struct parcel_entry *entry)
{
	uint32_t slot = entry->label.slot;
	struct adopted_entry *known = &vault->adopted[slot];

	forget(vault, slot);
	for (int i = 0; i < PARCEL_FDS_MAX; i++)
		known->fds[i] = take_fd(&entry->fds[i]);
	known->n_fds = entry->n_fds;
	known->kind = entry->label.kind;
	known->generation = entry->label.generation;
	vault->locations[slot] = index + 1;
	/* Its slot may have been looked at before its parcel was here */
	vault->notes[slot / CHANGES_SLOTS_PER_WORD] |= UINT64_C(1)
						       << slot % CHANGES_SLOTS_PER_WORD;
}

/*
 * A label is put a moment before its generation becomes the record's: until then the
 * entry before it is the valid one. If the process died within that moment, it stays so.
 */
static int keep_early(struct vault *vault, uint32_t index, struct parcel_entry *entry)
{
	struct early_entry *larger =
		reallocarray(vault->early, vault->n_early + 1, sizeof(*larger));

	if (!larger)
		return -ENOMEM;
	vault->early = larger;
	vault->early[vault->n_early++] =
		(struct early_entry){.entry = *entry, .parcel = index};
	for (int i = 0; i < PARCEL_FDS_MAX; i++)
		entry->fds[i] = -EBADF;
	return 0;
}

static void note_early_entries(struct vault *vault)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < vault->n_early; i++) {
		struct early_entry *early = &vault->early[i];
		uint32_t slot = early->entry.label.slot;
		uint32_t generation = vault->ledger.slots[slot].generation;

		if (is_later(early->entry.label.generation, generation)) {
			vault->early[n++] = *early;
			continue;
		}
		if (early->entry.label.generation == generation)
			note_entry(vault, early->parcel, &early->entry);
		else
			vault_entry_died(vault, early->parcel + 1);
		parcel_entry_done(&early->entry);
	}
	vault->n_early = n;
}

static void forget_early_entries(struct vault *vault)
{
	for (uint32_t i = 0; i < vault->n_early; i++) {
		vault_entry_died(vault, vault->early[i].parcel + 1);
		parcel_entry_done(&vault->early[i].entry);
	}
	free(vault->early);
	vault->early = NULL;
	vault->n_early = 0;
}

/* Of an entry that was cut short of its meaning nothing is taken: its parcel goes with
 * the sweeping, and its fds with it. */
static int judge(struct vault *vault, uint32_t index, struct parcel_entry *entry)
{
	const struct label *label = &entry->label;
	uint32_t generation;

	if (!label_is_sane(label, vault->n_adopted)) {
		vault_entry_died(vault, index + 1);
		return 0;
	}
	generation = vault->ledger.slots[label->slot].generation;
	if (is_later(label->generation, generation))
		return keep_early(vault, index, entry);
	if (label->generation == generation &&
	    (vault->locations[label->slot] == 0 ||
	     vault->adopted[label->slot].generation != generation))
		note_entry(vault, index, entry);
	else
		vault_entry_died(vault, index + 1);
	return 0;
}

/* For those who have to get a CPU now, on which the peers of the service wait. */
struct look {
	const struct follower *follower;
	void *userdata;
	uint32_t n_steps;
};

static void step(struct look *look)
{
	if (++look->n_steps % FOLLOW_STEP == 0 && look->follower->breathe)
		look->follower->breathe(look->userdata);
}

static int peek_entries(struct vault *vault, uint32_t index, struct look *look)
{
	struct vault_parcel *parcel = &vault->parcels[index];
	struct parcel_reader reader;
	struct parcel_entry entry;
	int r;

	parcel_reader_init(&reader, parcel->store_fd);
	while ((r = parcel_peek(&reader, &entry)) > 0) {
		if (r == PARCEL_CROWDED) {
			r = -EMFILE;
			break;
		}
		step(look);
		parcel->n_entries++;
		r = judge(vault, index, &entry);
		parcel_entry_done(&entry);
		if (r < 0)
			break;
	}
	parcel->n_messages += reader.n_messages;
	parcel_reader_done(&reader);
	/* -EBADMSG: what is behind it can't be reached, by no process */
	return r == -EBADMSG ? 0 : r;
}

/* A parcel to which nothing can be added need not be looked at twice. */
static bool is_seen(const struct vault_parcel *parcel)
{
	return parcel->n_entries >= PARCEL_ENTRIES_MAX ||
	       (parcel->send_fd < 0 && parcel->n_entries > 0);
}

static int peek_parcels(struct vault *vault, struct look *look)
{
	for (uint32_t i = 0; i < vault->parcels_end; i++) {
		int r;

		if (vault->parcels[i].state == PARCEL_NONE || is_seen(&vault->parcels[i]))
			continue;
		r = peek_entries(vault, i, look);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- looking ---- */

static void drop_noted(struct vault *vault, uint32_t word, struct look *look)
{
	for (uint64_t notes = vault->notes[word]; notes != 0; notes &= notes - 1)
		look->follower->drop(look->userdata,
				     word * CHANGES_SLOTS_PER_WORD +
					     (uint32_t)__builtin_ctzll(notes));
}

static int take_noted(struct vault *vault, uint32_t word, struct look *look)
{
	uint64_t notes = vault->notes[word];
	int n = 0;

	vault->notes[word] = 0;
	for (; notes != 0; notes &= notes - 1) {
		uint32_t slot =
			word * CHANGES_SLOTS_PER_WORD + (uint32_t)__builtin_ctzll(notes);
		int r;

		/* What has ended need not be kept open until we serve */
		if (vault->ledger.slots[slot].state == SLOT_FREE)
			forget(vault, slot);
		step(look);
		r = look->follower->take(look->userdata, slot);
		if (r < 0)
			return r;
		n++;
	}
	return n;
}

/*
 * The notes are taken before the parcels are peeked, and the records are read after: so
 * what a record names has been put before, and if it was put after the peek, then the
 * slot's note is after its being taken, and there is another look. What is found by the
 * peek is looked at in any case.
 */
int follow_look(struct vault *vault, const struct follower *follower, void *userdata)
{
	struct look look = {.follower = follower, .userdata = userdata};
	uint32_t n_words;
	int n = 0, r;

	for (uint32_t i = 0; i < n_words_used(vault); i++)
		vault->notes[i] |= changes_take(&vault->changes, i);
	r = peek_parcels(vault, &look);
	if (r < 0)
		return r;
	note_early_entries(vault);
	n_words = n_words_used(vault);
	for (uint32_t i = 0; i < n_words; i++)
		drop_noted(vault, i, &look);
	for (uint32_t i = 0; i < n_words; i++) {
		r = take_noted(vault, i, &look);
		if (r < 0)
			return r;
		n += r;
	}
	return n;
}

/* ---- the end ---- */

/* Empty parcels go on as spares; those that have entries are for sweeping to merge. */
void follow_go_on(struct vault *vault)
{
	forget_early_entries(vault);
	pthread_mutex_lock(&vault->lock);
	vault->is_counting = true;
	for (uint32_t i = 0; i < vault->parcels_end; i++) {
		struct vault_parcel *parcel = &vault->parcels[i];

		if (parcel->state == PARCEL_NONE || parcel->send_fd < 0)
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

/* Returns whether it was a live connection. */
static bool free_untaken(struct vault *vault, uint32_t slot)
{
	struct ledger_slot *record = &vault->ledger.slots[slot];
	bool was_connection = record->state == SLOT_CONNECTION;

	/* To be closed would be an end to its peers. It is said first, so that a crash
	 * between the two sides does not leave a half to go on */
	if (was_connection)
		atomic_fetch_or(&record->flags, SLOT_ABORTED);
	for (int i = 0; was_connection && i < vault->adopted[slot].n_fds; i++)
		socket_abort(vault->adopted[slot].fds[i]);
	if (record->state != SLOT_FREE)
		ledger_slot_clear(record);
	forget(vault, slot);
	/* Without memory it is free again at the next start */
	(void)vault_return_slots(vault, &slot, 1);
	return was_connection;
}

uint32_t follow_done(struct vault *vault, uint32_t n_slots)
{
	uint32_t n_reset = 0;

	/* The last of the free ones is the first to be used: low slots, on memory in use */
	for (uint32_t slot = n_slots; slot-- > 0;)
		if (vault->adopted[slot].n_fds != ADOPTED_TAKEN)
			n_reset += free_untaken(vault, slot);
	pthread_mutex_lock(&vault->lock);
	vault->is_counting = false;
	pthread_mutex_unlock(&vault->lock);
	free(vault->adopted);
	vault->adopted = NULL;
	vault->n_adopted = 0;
	return n_reset;
}
