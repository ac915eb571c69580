/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Adopt: turn what came back from the fd store into a vault. The only way to start; an
 * empty store is the case with nothing in it.
 *
 * Everything here is input: fds under names that mean nothing to us are removed from the
 * store and closed; a damaged entry costs its connection, a damaged ledger all of them,
 * and nothing costs the process. What can't be continued exactly is reset, never
 * continued with a hole. The parcels are only peeked, so a crash during adopt changes
 * nothing.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vault/vault.h"

/* Crashes in a row with the same slot in hand after which it is not served again. */
#define ADOPT_QUARANTINE_CRASHES 3

/* A slot's fds, as found: for a connection the client's and the upstream's socket. */
struct adopted_entry {
	int fds[PARCEL_FDS_MAX];
	int n_fds;                 /* 0: nothing was found */
	uint32_t kind, generation; /* of the label */
};

/* n_fds of an entry that somebody took. */
#define ADOPTED_TAKEN (-1)

struct stored_fd {
	int fd;
	const char *name;
};

enum adopt_ledger {
	ADOPT_LEDGER_NONE, /* the store held none: a first start */
	ADOPT_LEDGER_FOUND,
	ADOPT_LEDGER_DAMAGED,      /* its connections were reset */
	ADOPT_LEDGER_INCOMPATIBLE, /* written by a newer version; its connections were
				      reset */
};

struct adopt_report {
	enum adopt_ledger ledger;
	uint32_t ledger_version;
	uint32_t n_parcels;
	uint32_t n_entries;     /* live slots whose fds were found */
	uint32_t n_damaged;     /* entries and slots that made no sense */
	uint32_t n_without_fds; /* live slots of which the store had no fds */
	uint32_t n_unknown_fds; /* fds of other names */
	uint32_t n_starts; /* processes that have adopted this ledger, this one included */
	uint32_t crash_signal; /* the last one died of it; 0: not that it said so */
	uint32_t n_crashes_in_row;
};

/*
 * Fills vault from the n fds of the store; takes them all over. Makes a new ledger of
 * n_slots slots where there is none to be used, and stores it. Returns 0 and fills
 * *ret_report, or a negative errno where the process can't go on (no memory, no service
 * manager); the store is then as it was.
 */
int vault_adopt(struct vault *vault, const struct stored_fd *fds, size_t n,
		uint32_t n_slots, struct adopt_report *ret_report);

/*
 * Takes what was found for slot: returns false if that is nothing (any more), or not of
 * its present generation. On true the caller owns ret_entry's fds.
 */
bool adopt_take(struct vault *vault, uint32_t slot, struct adopted_entry *ret_entry);

/*
 * Takes back what adopt_take() gave, as if it had not been taken; where an entry of
 * another generation has been found for the slot since (follow.h), whether it was taken
 * or not, the fds are closed. Of entry the fds and the generation matter.
 */
void adopt_give_back(struct vault *vault, uint32_t slot,
		     const struct adopted_entry *entry);

/* Whether the slot was in hand at so many crashes that it must not be served again. */
bool adopt_is_quarantined(const struct vault *vault, uint32_t slot);

/*
 * Ends the adopting: closes and frees what nobody took, and makes the free slots
 * available. Returns the number of things closed.
 */
uint32_t adopt_done(struct vault *vault);

/*
 * Closes this process's copies of what nobody took, and leaves the store and the ledger
 * as they are. For vault_free().
 */
void adopt_forget(struct vault *vault);
