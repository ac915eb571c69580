/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether the service manager stores anything at all, where neither $FDSTORE nor what
 * came from the store has told: it is older than systemd 254, or a newer one with
 * FileDescriptorStoreMax=0, which closes what it refuses some time after the barrier of
 * store.h is passed. So the write end of a pipe is stored and looked at again later.
 */
#pragma once

#include <stdbool.h>

#include "base/time.h"

struct vault;

/* When it is looked at, by vault_tick(). */
#define PROOF_USEC (1 * USEC_PER_SEC)

/*
 * To be called in a process that found nothing in the store. What fails here shows as
 * well when parcels are made, so nothing is returned.
 */
void proof_begin(struct vault *vault);

/* If it is time: sets vault->stores_nothing where that is so, and ends the proof. */
void proof_look(struct vault *vault);

/*
 * The same at once: before a takeover, whose successor does not know of the pipe, and
 * when the store is found full. Returns whether that has made room in it.
 */
bool proof_end(struct vault *vault);
