/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/adopt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/fd.h"
#include "base/socket.h"
#include "vault/adopt-private.h"

struct adoption {
	struct vault *vault;
	struct adopt_report *report;
	struct rlimit files; /* as it was: see reserve_take() */
	int error; /* the first one that is_want() of: the process can't go on */
};

/*
 * Whether an error tells of a lack that will pass, and nothing of what is in the store:
 * the next process finds it as it is, so to end costs no connection.
 */
static bool is_want(int error)
{
	return error == -ENOMEM || error == -ENOBUFS || error == -EAGAIN ||
	       error == -ENFILE;
}

/*
 * Keeps fds back, so that a message can be looked at (and its connections reset) when no
 * others are left: new ones stay below the limit less so many, until those are released.
 */
static void reserve_take(struct adoption *adoption)
{
	struct rlimit files = adoption->files;

	if (files.rlim_cur > PARCEL_PACK_FDS_MAX)
		files.rlim_cur -= PARCEL_PACK_FDS_MAX;
	/* To lower it, or to have it back, is always allowed */
	(void)setrlimit(RLIMIT_NOFILE, &files);
}

static void reserve_release(struct adoption *adoption)
{
	(void)setrlimit(RLIMIT_NOFILE, &adoption->files);
}

static void abort_entry(struct parcel_entry *entry)
{
	for (int i = 0; i < entry->n_fds; i++)
		socket_abort(entry->fds[i]);
	parcel_entry_done(entry);
}

/* What an entry is worth, by its label and its slot. */
enum entry_worth {
	ENTRY_VALID,
	ENTRY_ENDED, /* its connection ended or moved: there is nothing to be done to it */
	ENTRY_DAMAGED, /* it can't be: reset */
};

static enum entry_worth judge(struct vault *vault, const struct label *label)
{
	struct ledger_slot *record;

	if (!vault->ledger.header || !label_is_sane(label, vault->ledger.header->n_slots))
		return ENTRY_DAMAGED;
	/* No entry of a slot that no process has touched, as the header tells, can be
	 * right */
	if (label->slot >= vault->n_adopted)
		return ENTRY_DAMAGED;
	record = &vault->ledger.slots[label->slot];
	if (label->generation > record->last_generation) {
		/* Never again a generation that an entry already has */
		record->last_generation = label->generation;
		return ENTRY_DAMAGED;
	}
	if (record->generation != label->generation || record->state == SLOT_FREE)
		return ENTRY_ENDED;
	if (record->state != label->kind ||
	    !ledger_slot_is_sane(&vault->ledger, label->slot))
		return ENTRY_DAMAGED;
	/* A sweep cut short leaves two entries; the first one will do */
	return vault->adopted[label->slot].n_fds > 0 ? ENTRY_ENDED : ENTRY_VALID;
}

static void attach(struct vault *vault, uint32_t index, struct parcel_entry *entry)
{
	struct adopted_entry *adopted = &vault->adopted[entry->label.slot];

	for (int i = 0; i < PARCEL_FDS_MAX; i++)
		adopted->fds[i] = take_fd(&entry->fds[i]);
	adopted->n_fds = entry->n_fds;
	adopted->kind = entry->label.kind;
	adopted->generation = entry->label.generation;
	vault->locations[entry->label.slot] = index + 1;
}

static void adopt_entry(struct adoption *adoption, uint32_t index,
			struct parcel_entry *entry)
{
	struct vault_parcel *parcel = &adoption->vault->parcels[index];

	parcel->n_entries++;
	switch (judge(adoption->vault, &entry->label)) {
	case ENTRY_VALID:
		attach(adoption->vault, index, entry);
		adoption->report->n_entries++;
		break;
	case ENTRY_ENDED:
		parcel->n_dead++;
		break;
	case ENTRY_DAMAGED:
		parcel->n_dead++;
		adoption->report->n_damaged++;
		abort_entry(entry);
		break;
	}
	parcel_entry_done(entry);
}

/* No fd slots left for the fds of a message: use the reserve to reset it, and say so. */
static int refuse_crowded(struct adoption *adoption, struct parcel_reader *reader,
			  struct vault_parcel *parcel)
{
	int r;

	reserve_release(adoption);
	do {
		struct parcel_entry entry;
		enum entry_worth worth;

		r = parcel_peek(reader, &entry);
		if (r != PARCEL_ENTRY && r != PARCEL_DAMAGED)
			break;
		worth = judge(adoption->vault, &entry.label);
		if (worth == ENTRY_VALID)
			/* First, as in connection_abort() */
			atomic_fetch_or(&adoption->vault->ledger.slots[entry.label.slot]
						 .flags,
					SLOT_ABORTED);
		if (worth != ENTRY_ENDED) {
			adoption->report->n_damaged++;
			abort_entry(&entry);
		}
		parcel_entry_done(&entry);
		parcel->n_entries++;
		parcel->n_dead++;
	} while (parcel_has_more(reader));
	reserve_take(adoption);
	return r == PARCEL_CROWDED ? -EMFILE : r;
}

static void adopt_entries(struct adoption *adoption, uint32_t index)
{
	struct vault_parcel *parcel = &adoption->vault->parcels[index];
	struct parcel_reader reader;
	int r;

	r = parcel_rewind(parcel->store_fd, 0);
	if (r < 0) {
		/* It is no socket: somebody else's */
		adoption->report->n_damaged++;
		return;
	}
	parcel_reader_init(&reader, parcel->store_fd);
	do {
		struct parcel_entry entry;

		r = parcel_peek(&reader, &entry);
		if (r == PARCEL_CROWDED)
			r = refuse_crowded(adoption, &reader, parcel);
		else if (r > 0)
			adopt_entry(adoption, index, &entry);
		if (is_want(r))
			adoption->error = r;
		else if (r < 0)
			adoption->report->n_damaged++;
	} while (r > 0);
	parcel->n_messages = reader.n_messages;
	parcel_reader_done(&reader);
}

static void adopt_parcel(struct adoption *adoption, uint32_t index, int fd)
{
	struct vault *vault = adoption->vault;
	struct vault_parcel *parcel = &vault->parcels[index];

	parcel->send_fd = -EBADF;
	parcel->store_fd = fd;
	parcel->n_entries = 0;
	parcel->n_dead = 0;
	parcel->n_moved = parcel->n_dead_at_tick = 0;
	parcel->state = PARCEL_SEALED;
	if (index >= vault->parcels_end)
		vault->parcels_end = index + 1;
	vault->n_parcels++;
	adopt_entries(adoption, index);
}

static void set_fd_flags(int fd)
{
	/* The manager clears FD_CLOEXEC for us; these fail only for what is no fd */
	(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

static void sort_fd(struct adoption *adoption, const struct stored_fd *stored)
{
	int index = store_parcel_index(stored->name, VAULT_PARCELS_MAX);

	set_fd_flags(stored->fd);
	if (strcmp(stored->name, STORE_NAME_LEDGER) == 0)
		return; /* adopt_ledger() has seen to it */
	if (index >= 0 && adoption->vault->parcels[index].state == PARCEL_NONE) {
		adopt_parcel(adoption, (uint32_t)index, stored->fd);
		return;
	}
	/* A second parcel of one name stays where it is: removing the name would remove
	 * both */
	if (index < 0)
		(void)store_remove(stored->name);
	if (strcmp(stored->name, STORE_NAME_PROBE) != 0 &&
	    strcmp(stored->name, STORE_NAME_PROOF) != 0)
		adoption->report->n_unknown_fds++;
	(void)fd_close(stored->fd);
}

/* ---- the ledger ---- */

static void open_ledger(struct adoption *adoption, const struct stored_fd *stored)
{
	struct adopt_report *report = adoption->report;
	int r = ledger_map(stored->fd, &adoption->vault->ledger);

	if (r == 0)
		report->ledger = ADOPT_LEDGER_FOUND;
	else if (r == -EPROTONOSUPPORT)
		report->ledger = ADOPT_LEDGER_INCOMPATIBLE;
	else if (is_want(r))
		adoption->error = r;
	else
		report->ledger = ADOPT_LEDGER_DAMAGED;
}

static int adopt_ledger(struct adoption *adoption, const struct stored_fd *fds, size_t n)
{
	struct vault *vault = adoption->vault;

	for (size_t i = 0; i < n; i++) {
		if (strcmp(fds[i].name, STORE_NAME_LEDGER) != 0)
			continue;
		if (adoption->report->ledger != ADOPT_LEDGER_FOUND)
			open_ledger(adoption, &fds[i]);
		if (vault->ledger.fd != fds[i].fd)
			(void)fd_close(fds[i].fd);
	}
	if (adoption->report->ledger != ADOPT_LEDGER_FOUND)
		return adoption->error;
	vault->n_adopted = vault->ledger.header->n_slots_used;
	vault->adopted = calloc(vault->n_adopted + 1, sizeof(*vault->adopted));
	return vault->adopted ? 0 : -ENOMEM;
}

static int new_ledger(struct adoption *adoption, uint32_t n_slots)
{
	struct vault *vault = adoption->vault;
	int r;

	if (adoption->report->ledger != ADOPT_LEDGER_NONE) {
		r = store_remove(STORE_NAME_LEDGER);
		if (r < 0)
			return r;
	}
	r = ledger_new(n_slots, &vault->ledger);
	if (r < 0)
		return r;
	return store_put(vault->ledger.fd, STORE_NAME_LEDGER);
}

/* ---- both together ---- */

/*
 * Whether a live slot that has found no entry of its generation had one under its last:
 * then the generation is damaged, for the two differ only until the second put of a slot
 * is done. (A slot that was never put has no entry under its last generation at all.)
 */
static bool has_lost_generation(const struct vault *vault, uint32_t slot)
{
	const struct ledger_slot *record = &vault->ledger.slots[slot];

	return record->state == SLOT_CONNECTION && vault->adopted[slot].n_fds == 0 &&
	       record->generation != record->last_generation;
}

static void abort_entries_of_lost(struct adoption *adoption, uint32_t index)
{
	struct vault *vault = adoption->vault;
	int store_fd = vault->parcels[index].store_fd;
	struct parcel_reader reader;
	struct parcel_entry entry;
	int r;

	if (parcel_rewind(store_fd, 0) < 0)
		return;
	parcel_reader_init(&reader, store_fd);
	while ((r = parcel_peek(&reader, &entry)) > 0 && r != PARCEL_CROWDED) {
		const struct label *label = &entry.label;

		if (label_is_sane(label, vault->n_adopted) &&
		    has_lost_generation(vault, label->slot) &&
		    label->generation ==
			    vault->ledger.slots[label->slot].last_generation) {
			adoption->report->n_damaged++;
			abort_entry(&entry);
		}
		parcel_entry_done(&entry);
	}
	parcel_reader_done(&reader);
}

/* To be closed would be an end to their peers; what can't be continued must look like it.
 */
static void abort_lost(struct adoption *adoption)
{
	struct vault *vault = adoption->vault;
	bool any = false;

	for (uint32_t slot = 0; slot < vault->n_adopted; slot++)
		any |= has_lost_generation(vault, slot);
	for (uint32_t i = 0; any && i < vault->parcels_end; i++)
		if (vault->parcels[i].state == PARCEL_SEALED)
			abort_entries_of_lost(adoption, i);
}

static void count_slots_without_fds(struct adoption *adoption)
{
	struct vault *vault = adoption->vault;

	for (uint32_t slot = 0; slot < vault->n_adopted; slot++) {
		uint32_t state = vault->ledger.slots[slot].state;

		if (state == SLOT_CONNECTION && vault->adopted[slot].n_fds == 0)
			adoption->report->n_without_fds++;
		else if (state != SLOT_FREE && state != SLOT_CONNECTION &&
			 state != SLOT_PIPE)
			adoption->report->n_damaged++;
	}
}

/*
 * Which connections were in hand when the last process crashed. A process that was
 * killed, or told to stop, has crashed at nobody's connection: it leaves their counts
 * alone, and ends a row of crashes.
 */
static void count_crashes(struct adoption *adoption)
{
	struct vault *vault = adoption->vault;
	struct ledger_header *header = vault->ledger.header;
	uint32_t signal = header->crash_signal, worker = header->crash_worker;

	adoption->report->crash_signal = signal;
	for (uint32_t slot = 0; signal != 0 && slot < vault->n_adopted; slot++) {
		struct ledger_slot *record = &vault->ledger.slots[slot];
		slot_ref ref = slot_ref_make(slot, record->generation);
		bool was_in_hand = false;

		for (uint32_t i = 0; i < LEDGER_WORKERS_MAX; i++)
			if (header->in_hand[i] == ref && (worker == 0 || worker == i + 1))
				was_in_hand = true;
		record->n_crashes = was_in_hand ? record->n_crashes + 1 : 0;
	}
	header->n_crashes_in_row = signal != 0 ? header->n_crashes_in_row + 1 : 0;
	adoption->report->n_crashes_in_row = header->n_crashes_in_row;
	header->crash_signal = 0;
	header->crash_worker = 0;
	for (uint32_t i = 0; i < LEDGER_WORKERS_MAX; i++)
		header->in_hand[i] = 0;
}

/* Parcels of which no ledger tells the meaning: their connections have just been reset. */
static void drop_parcels(struct vault *vault)
{
	for (uint32_t i = 0; i < vault->parcels_end; i++)
		if (vault->parcels[i].state == PARCEL_SEALED)
			vault_drop_parcel(vault, i);
}

int vault_adopt(struct vault *vault, const struct stored_fd *fds, size_t n,
		uint32_t n_slots, struct adopt_report *ret_report)
{
	struct adopt_report report = {0};
	struct adoption adoption = {.vault = vault, .report = &report};
	int r;

	if (getrlimit(RLIMIT_NOFILE, &adoption.files) < 0)
		return -errno;
	reserve_take(&adoption);
	r = adopt_ledger(&adoption, fds, n);
	if (r == 0)
		for (size_t i = 0; i < n && adoption.error == 0; i++)
			sort_fd(&adoption, &fds[i]);
	reserve_release(&adoption);
	if (r == 0)
		r = adoption.error;
	if (r < 0)
		return r;

	report.n_parcels = vault->n_parcels;
	if (report.ledger == ADOPT_LEDGER_FOUND) {
		r = adopt_check_claims(vault);
		if (r < 0)
			return r;
		abort_lost(&adoption);
		count_slots_without_fds(&adoption);
		count_crashes(&adoption);
	} else {
		drop_parcels(vault);
		r = new_ledger(&adoption, n_slots);
		if (r < 0)
			return r;
	}
	report.ledger_version = vault->ledger.header->version;
	ledger_withdraw_any_offer(&vault->ledger);
	report.n_starts = ++vault->ledger.header->n_starts;
	*ret_report = report;
	return 0;
}
