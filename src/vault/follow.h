/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Following: the successor's half of a takeover (give.h is the other one). It maps the
 * ledger of the serving process, peeks its parcels, and keeps up with what that process
 * changes, until it is told to go on in its place.
 *
 * Until then it changes nothing that the other process could notice: no record, no
 * socket, and nothing in the store. What it sees may be half of a change; then the slot
 * is noted again when the change is complete, so what it makes of a half is thrown away
 * by the next look. Main thread only, before there are workers that run; only
 * follow_done() runs beside them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vault/adopt.h"
#include "vault/vault.h"

/*
 * Maps the ledger and its changes. Takes both fds over on success only. Returns 0 or the
 * errors of ledger_map() and changes_map().
 */
int follow_begin(struct vault *vault, int ledger_fd, int changes_fd);

/*
 * Takes a parcel of the serving process over, under its number there. send_fd may be
 * -EBADF: then nothing more can be put into it. Returns 0, -EBADMSG if the number is
 * impossible or taken, or the error of a peek offset that can't be set; the fds are the
 * caller's then.
 */
int follow_add_parcel(struct vault *vault, uint32_t index, int send_fd, int store_fd);

/* Entries or slots that are looked at without a break: some 50 us. */
#define FOLLOW_STEP 16u

struct follower {
	/* What was made of slot is no longer so: to be given back (adopt_give_back()). */
	void (*drop)(void *userdata, uint32_t slot);
	/* The slot as it is now, to be taken (adopt_take()). Returns 0, or a negative
	 * errno to end the look with. */
	int (*take)(void *userdata, uint32_t slot);
	/* May be NULL. Called after every FOLLOW_STEP entries and slots: to let others
	 * have the CPU. */
	void (*breathe)(void *userdata);
};

/*
 * Looks at what has changed since the last look (at first: at everything): drops each
 * slot whose record or fds may have changed, then takes each of them. All are dropped
 * before the first is taken, since things change hands: the pipe of one connection is
 * another's now. Returns the number of those slots, -EMFILE without room for the fds,
 * -ENOMEM, or what take() has returned.
 */
int follow_look(struct vault *vault, const struct follower *follower, void *userdata);

/* Asks for another look at slot. */
void follow_note(struct vault *vault, uint32_t slot);

/*
 * This process serves now: makes the empty parcels available. The vault stays VAULT_STILL
 * until the service manager listens to this process.
 */
void follow_go_on(struct vault *vault);

/*
 * The rest of it, which may be done while the workers run: frees what nobody has taken,
 * and makes the free slots available. n_slots: how many were in use at follow_go_on();
 * those above are the workers'. Returns the number of live connections that it had to
 * reset, since there was nothing to be taken.
 */
uint32_t follow_done(struct vault *vault, uint32_t n_slots);
