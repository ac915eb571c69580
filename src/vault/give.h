/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Giving: the serving process's half of a takeover. The successor (follow.h) gets the
 * ledger, the changes and each parcel, and looks at them while this process serves on.
 * Main thread only.
 *
 * Meanwhile no parcel is swept: the peek offset of a parcel belongs to the socket, which
 * both processes have, and what the successor has seen of a parcel stays true. It grows
 * only. So a takeover that hangs costs parcels for the connections that come and go while
 * it does; --takeover-timeout= bounds that.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vault/vault.h"

/*
 * Begins to note changes, and stops sweeping. vault->ledger.fd and vault->changes.fd are
 * for the successor. Returns 0, -ENOSPC if the manager stores nothing (proof.h), or
 * another negative errno.
 */
int give_begin(struct vault *vault);

/*
 * The next parcel from number *index on that the successor has not been given, or NULL.
 * To be asked for until NULL at first, and again whenever parcels were made. *index: its
 * number then. Its fds are borrowed; nothing more will be put into a sealed one.
 */
const struct vault_parcel *give_next_parcel(struct vault *vault, uint32_t *index);

/* Notes that the successor has parcel number index. */
void give_note_passed(struct vault *vault, uint32_t index);

/*
 * Stops uploading. Returns whether the manager has answered about each parcel; if not,
 * vault_fd() will tell when to ask again.
 */
bool give_settle(struct vault *vault);

/* The takeover has come to nothing: all goes on as before. */
void give_end(struct vault *vault);
