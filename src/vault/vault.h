/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vault: keeps everything that must outlive the process in the service manager's fd
 * store. It owns the ledger, the parcels and the slots, and alone speaks FDSTORE. It
 * knows nothing of services, workers or bytes.
 *
 * Who may call what: the vault itself belongs to the main thread. A worker thread goes
 * through its own struct packer (packer.h), which shares with the vault only what is
 * marked shared below.
 *
 * Invariants:
 * - An entry is put before it counts, and its parcel is removed only when each of its
 *   entries has died or was put elsewhere: every instant is a valid state to be killed
 * in.
 * - A parcel is given out only after the service manager was seen to have taken it (the
 *   probe of store.h).
 * - Each entry of a parcel is accounted for exactly once, as dead or as moved.
 * locations[] says where a slot's valid entry is; whoever takes it out of there by an
 * atomic exchange does the accounting.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vault/changes.h"
#include "vault/ledger.h"
#include "vault/parcel.h"
#include "vault/store.h"

/* The most parcels there may be; the unit's FileDescriptorStoreMax= is two more. */
#define VAULT_PARCELS_MAX 4094u
/* Entries that some sweep may leave behind: parcels emptier than this are merged. */
#define VAULT_MERGE_BELOW (PARCEL_ENTRIES_MAX / 2)
/* How long a full store is left alone before it is tried again, unless a parcel was
 * dropped. */
#define VAULT_RETRY_USEC_MIN (1 * USEC_PER_SEC)
#define VAULT_RETRY_USEC_MAX (60 * USEC_PER_SEC)
/* How often a wait for the manager looks at the clock. */
#define VAULT_POLL_MSEC 1000

struct packer;

/* What the vault does by itself: less while two processes have it (give.h). */
enum vault_activity {
	VAULT_ACTIVE,
	VAULT_GROWING, /* makes parcels, and sweeps none: each stays where it is */
	VAULT_STILL,   /* tells the manager nothing */
};

enum parcel_state {
	PARCEL_NONE,     /* the index is free */
	PARCEL_UPLOADED, /* sent to the manager, not yet known to be taken */
	PARCEL_SPARE,    /* taken, waits for a packer */
	PARCEL_CURRENT,  /* a packer adds to it; only that packer may change the state */
	PARCEL_SEALED,   /* gets no further entries; the main thread's to sweep */
};

struct vault_parcel {
	_Atomic uint32_t state; /* enum parcel_state; shared */
	int send_fd;            /* -EBADF when adopted; of PARCEL_NONE nothing is set */
	int store_fd;
	_Atomic uint32_t n_entries; /* shared; written by its packer until it is sealed */
	uint32_t n_messages;        /* its packer's until it is sealed */
	_Atomic uint32_t n_dead;    /* shared */
	uint32_t n_moved;           /* main thread */
	uint32_t n_dead_at_tick;    /* main thread: n_dead at the last tick */
	struct packer *owner;       /* while current */
	bool is_passed;             /* main thread: the successor of a takeover has it */
};

/* An entry that was put, but is not its slot's valid one yet; it owns its fds. */
struct early_entry {
	struct parcel_entry entry;
	uint32_t parcel;
};

struct vault {
	struct ledger ledger;
	/* Most are never touched, so they must be as calloc(3) gives them: memory that
	 * is touched takes 10 us a page of every start */
	struct vault_parcel parcels[VAULT_PARCELS_MAX];
	/* Shared: where the valid entry of each slot is (parcel index + 1), or 0. */
	_Atomic uint32_t *locations;
	/* Shared: the parcel that was sealed last, or VAULT_PARCELS_MAX. */
	_Atomic uint32_t last_sealed;

	/* Shared, under lock. */
	pthread_mutex_t lock;
	uint32_t spares[VAULT_PARCELS_MAX];
	uint32_t n_spares;
	uint32_t *free_slots;
	uint32_t n_free_slots;
	uint32_t free_slots_size;
	bool is_counting; /* follow_done() has still to find the free slots */

	/* Main thread only. */
	int poll_fd;  /* an epoll of the next two */
	int event_fd; /* poked by the packers */
	struct store_probe probe;
	int proof_fd; /* -EBADF: nothing is to be proved (any more); see proof.h */
	unsigned n_proof_looks;
	bool stores_nothing; /* the manager was found to */
	uint32_t n_spares_wanted;
	uint32_t n_packers; /* with the main thread's */
	uint64_t files_max; /* RLIMIT_NOFILE */
	uint32_t n_parcels;
	uint32_t store_max; /* fds, or STORE_MAX_UNKNOWN */
	_Atomic bool full;  /* shared */
	uint32_t n_batch;   /* parcels that are uploaded at once, at the most */
	uint64_t retry_usec;
	uint64_t retry_delay_usec;
	struct packer *packer; /* the main thread's own, for sweeping */
	uint32_t parcels_end;  /* parcels from here on were never used */
	/* Called when packers should look: there are spares, or a parcel is wanted back
	 * (packer_rotate_if_wanted()). May be NULL. */
	void (*wake_packers)(void *userdata);
	void *userdata;

	enum vault_activity activity; /* main thread */
	/* Shared: where workers note what they change, NULL but for a takeover. */
	_Atomic(struct changes *) noting;
	struct changes changes;
	/* follow.c: notes that were taken, and entries whose time has not come */
	uint64_t *notes;
	struct early_entry *early;
	uint32_t n_early;

	/* What adopt found, by slot, until it is taken: see adopt.h. */
	struct adopted_entry *adopted;
	uint32_t n_adopted;
};

/*
 * Makes a vault with neither ledger nor parcels: vault_adopt() (adopt.h) comes next.
 * n_packers: of the worker threads. Returns 0 or a negative errno.
 */
int vault_new(unsigned n_packers, struct vault **ret_vault);

/* Frees the process's side. What is in the store stays there. Returns NULL. */
struct vault *vault_free(struct vault *vault);

/*
 * An fd that is readable when vault_dispatch() has something to do. Borrowed.
 */
int vault_fd(const struct vault *vault);

/*
 * Does what is due: takes note of an answered probe, uploads further parcels, sweeps
 * those that packers have sealed. Never blocks on a worker.
 */
void vault_dispatch(struct vault *vault);

/*
 * To be called about once a second: sweeps what had no death since the last tick, retries
 * a full store, looks at the proof (proof.h).
 */
void vault_tick(struct vault *vault);

/*
 * Uploads until there are spare parcels, and waits for the manager's answer, at most
 * timeout_usec. Returns 0, -ENOSPC if the store has no room, -ETIMEDOUT, or the errno of
 * the failing call.
 */
int vault_stock_wait(struct vault *vault, uint64_t timeout_usec);

/* From now on the manager listens to this process: the end of VAULT_STILL. */
void vault_go_on(struct vault *vault);

/* For what has changed in a slot's record, after the change. Any thread. */
static inline void vault_note_change(struct vault *vault, uint32_t slot)
{
	struct changes *changes = vault->noting;

	if (changes)
		changes_note(changes, slot);
}

/* Whether the store has refused the last upload (FileDescriptorStoreMax=). */
bool vault_is_full(const struct vault *vault);

/* Parcels that are in the store now. */
uint32_t vault_n_parcels(const struct vault *vault);

/* For packers: notes that one entry of the parcel in a location has died. */
void vault_entry_died(struct vault *vault, uint32_t location);

/*
 * For packers: a spare parcel's index, or -EBUSY; the main thread is asked for more. The
 * last spare is for the main thread alone: sweeping is what makes room in a full store.
 */
int vault_take_spare(struct vault *vault, struct packer *owner);

/* For packers: no further entry will be added to parcel index. */
void vault_seal(struct vault *vault, uint32_t index);

/* For packers: moves up to n free slots to ret_slots; returns how many (0: ledger full). */
uint32_t vault_take_slots(struct vault *vault, uint32_t *ret_slots, uint32_t n);

/* For packers: gives n free slots back. Returns 0 or -ENOMEM (they are lost until the
 * next adopt then). */
int vault_return_slots(struct vault *vault, const uint32_t *slots, uint32_t n);

/* For adopt: removes parcel number index from the store and closes it. */
void vault_drop_parcel(struct vault *vault, uint32_t index);

/* For sweeping: how many spares there are, and a call to all packers to look. */
uint32_t vault_n_spares(struct vault *vault);
void vault_wake_packers(struct vault *vault);
