/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Following: the successor's half of a takeover (give.h is the other one). It maps the
 * ledger of the serving process, peeks its parcels, and keeps up with what that process
 * changes, until it is told to go on in its place.
 *
 * Until then it changes nothing that the other process could notice: no record, no
 * socket, and nothing in the store. What it sees may be half of a change; then the slot
 * is noted again when the change is complete, so what it makes of a half is thrown away
 * by the next look. Main thread only, before there are workers that run.
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

/*
 * Looks at what has changed since the last look (at first: at everything): calls
 * outdated() for each slot whose record or fds may have changed, which is to give back
 * what was taken for it (adopt_give_back()), and when that is done for all of them,
 * changed() for each, which may take what it finds. In this order, since a pipe that one
 * connection has let go another may have by now.
 *
 * Both may return a negative errno to end the look with. Returns the number of those
 * slots, -EBADMSG for an entry that makes no sense, -EMFILE without room for the fds, or
 * what they have returned.
 */
int follow_look(struct vault *vault, int (*outdated)(void *userdata, uint32_t slot),
		int (*changed)(void *userdata, uint32_t slot), void *userdata);

/* Asks for another look at slot. */
void follow_note(struct vault *vault, uint32_t slot);

/*
 * This process serves now: frees what nobody has taken, makes the free slots and the
 * parcels that have room available. The vault stays VAULT_STILL until the service manager
 * listens to this process. Returns 0 or -ENOMEM (slots are lost then until the next
 * adopt).
 */
int follow_done(struct vault *vault);
