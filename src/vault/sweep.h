/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sweeping: what is alive in a mostly dead parcel is put into another one, then the
 * parcel goes, and with it the last copies of its dead sockets. Put first, remove after.
 * Main thread only; workers go on adding, ending and moving entries meanwhile (vault.h
 * tells how that is accounted for).
 */
#pragma once

#include <stdbool.h>

struct vault;

/* A parcel with fewer entries to a message than this, on average, is worth packing. */
#define SWEEP_LOOSE_BELOW 8
/* Parcels that are packed at one tick: each takes the main thread about a ms. */
#define SWEEP_PACKED_PER_TICK 4

/*
 * Sweeps each sealed parcel that is worth it: most of it is dead, or little of it is
 * left. The one that was sealed last has until a tick to be dropped without that, as long
 * as neither the store nor RLIMIT_NOFILE is nearly used up. At a
 * tick, also those that have dead entries and had no death since the last tick, and some
 * of those whose entries were put one by one: to pack them.
 */
void sweep_all(struct vault *vault, bool tick);

/*
 * Once a tick. Parcels that are still being filled are asked for when their dead have
 * rested for a tick: the sockets of those would not go otherwise until the parcel is full.
 */
void sweep_ask_for_rotation(struct vault *vault);
