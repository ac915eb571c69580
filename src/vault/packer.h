/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A packer: one thread's way of putting things into the vault. It holds the thread's
 * current parcel and a few free slots, so that a connection costs no lock.
 *
 * A thing's life: packer_take_slot() -> fill the record -> packer_publish() ->
 * packer_put()
 * -> ... -> packer_free_slot(). Between publish and put a crash leaves a live slot
 * without fds, which adopt frees; no byte may have been read by then.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vault/vault.h"

#define PACKER_SLOTS 64

struct packer {
	struct vault *vault;
	int current; /* parcel index, or -EBADF */
	uint32_t slots[2 * PACKER_SLOTS];
	uint32_t n_slots;
	_Atomic bool rotate; /* shared: the main thread wants the current parcel sealed */
};

void packer_init(struct packer *packer, struct vault *vault);

/*
 * Takes a free slot; *ret_slot is cleared but for its generation, which is a new one.
 * Returns 0 or -ENOSPC if the ledger is full.
 */
int packer_take_slot(struct packer *packer, uint32_t *ret_slot);

/*
 * Returns a generation that no entry of slot has had: to put other fds for a live slot. A
 * crash before the put's end leaves the old fds valid.
 */
uint32_t packer_next_generation(struct packer *packer, uint32_t slot);

/* Makes slot live as kind: from now on its entries count. */
void packer_publish(struct packer *packer, uint32_t slot, enum slot_state kind);

/*
 * Puts slot's fds (borrowed) into the store under generation: the slot's own, or one from
 * packer_next_generation(), which is the slot's own afterwards.
 * Returns 0, -EBUSY while there is no parcel to put it in (vault.wake_packers will be
 * called), or the errors of parcel_put() (parcel.h).
 */
int packer_put(struct packer *packer, uint32_t slot, uint32_t generation, const int *fds,
	       int n_fds);

/*
 * Makes sure that the next put finds a parcel with room, so that one may accept first and
 * put then. Returns 0, or -EBUSY as packer_put() does.
 */
int packer_make_room(struct packer *packer);

/* Ends slot: its entry dies, the slot is free. The caller still owns its own fds. */
void packer_free_slot(struct packer *packer, uint32_t slot);

/* Gives the current parcel away if the main thread has asked for it. */
void packer_rotate_if_wanted(struct packer *packer);

/*
 * Main thread: moves the pack's entries, which it keeps, here from parcel number from.
 * Those that have died or moved meanwhile stay dead. Returns 0, or as packer_put(): then
 * some may have been moved.
 */
int packer_move(struct packer *packer, const struct parcel_pack *pack, uint32_t from);
