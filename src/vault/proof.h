/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether the service manager stores anything at all, where neither $FDSTORE nor what
 * came from the store has told: it is older than systemd 254, or a newer one with
 * FileDescriptorStoreMax=0, which closes what it refuses some time after the barrier of
 * store.h is passed. So the write end of a pipe is stored and looked at again later. Main
 * thread only.
 *
 * A takeover ends it early: one that follows such a start within two seconds may hand
 * over to a process that does not doubt its store.
 */
#pragma once

#include <stdbool.h>

struct vault;

/* The verdict is that of this look: at the first one the barrier may have passed just
 * now. */
#define PROOF_LOOKS 2

/*
 * Stores the pipe's end, where $FDSTORE is not set. To be called before there are
 * parcels, in a process that found none in the store. What fails here shows as well when
 * parcels are made, so nothing is returned.
 */
void proof_begin(struct vault *vault);

/*
 * To be called about once a second. The last look ends the proof, and sets
 * vault->stores_nothing where that is so.
 */
void proof_look(struct vault *vault);

/* The last look, now. Returns whether that has made room in the store. */
bool proof_end(struct vault *vault);
