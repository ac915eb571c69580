/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ledger: the serialized state of every connection, at all times.
 *
 * A sealed memfd, mapped MAP_SHARED, that lies in the fd store. A store to it survives
 * the SIGKILL of the process that made it (tests/kernel/ledger-outlives-process.c), so
 * there is nothing to save at exit: the record is the state. One slot is one thing that
 * is parked in a parcel: a connection or a pipe of the pool. A parked thing is live
 * exactly while its slot holds its kind and its generation.
 *
 * This is the stored format: fixed-width fields, native byte order (the memory never
 * leaves the machine), versioned. What comes back from the store is input: ledger_map()
 * and ledger_slot_is_sane() trust no field.
 */
#pragma once

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LEDGER_MAGIC 0x54534146444c4f48ULL /* "HOLDFAST" */
/* These two may be set from outside: tests/versions builds other versions that way. */
#ifndef LEDGER_VERSION
#define LEDGER_VERSION 1u
#endif
/* The lowest version of this program's format that can still read what this one writes. */
#ifndef LEDGER_VERSION_MIN_READER
#define LEDGER_VERSION_MIN_READER 1u
#endif
#define LEDGER_WORKERS_MAX 64u
/* Slots of a ledger: connections and pool pipes together. Untouched ones cost no memory. */
#define LEDGER_SLOTS_MAX (1u << 20)
#define LEDGER_FLOWS 2

/*
 * What a slot holds. Far apart, so that a damaged word is recognised and never turns one
 * kind into another.
 */
enum slot_state {
	SLOT_FREE = 0,
	SLOT_CONNECTION = 0x4e4e4f43, /* "CONN" */
	SLOT_PIPE = 0x45504950,       /* "PIPE" */
};

/* Names one use of a slot: generation << 32 | slot + 1; 0 names nothing. */
typedef uint64_t slot_ref;

static inline slot_ref slot_ref_make(uint32_t slot, uint32_t generation)
{
	return (slot_ref)generation << 32 | (slot + 1);
}

static inline uint32_t slot_ref_slot(slot_ref ref)
{
	return (uint32_t)ref - 1;
}

static inline uint32_t slot_ref_generation(slot_ref ref)
{
	return (uint32_t)(ref >> 32);
}

/* One direction of bytes. Written by the worker that serves the connection, and by it
 * only. */
struct ledger_flow {
	_Atomic slot_ref pipe;   /* the pipe lent to it; set before the first splice into
				  * it,   cleared once the pipe was seen empty */
	_Atomic uint64_t n_read; /* bytes taken from the source; behind the kernel's count
				  * by one call at most, which adopt makes good */
	/* With SLOT_URGENT_*: where in the stream the byte in hand is, and what the pipe
	 * held */
	_Atomic uint64_t urgent_at;
	union {
		_Atomic uint64_t urgent_pending;
		/*
		 * Of a log connection's second flow, which is that from the pipe into the
		 * journal: bytes that are written there and just being taken from the
		 * pipe. Its n_read counts those that were taken, behind by n_in_hand at
		 * most.
		 */
		_Atomic uint64_t n_in_hand;
	};
};

enum slot_flags {
	SLOT_CLIENT_RESET = 1 << 0,   /* the client's side ended in an error */
	SLOT_UPSTREAM_RESET = 1 << 1, /* the upstream's side did */
	SLOT_CONNECTED = 1 << 2,      /* the upstream has answered */
	SLOT_URGENT_0 = 1 << 3,       /* flow 0 is carrying an urgent byte, see flow.c */
	SLOT_URGENT_1 = 1 << 4,
	SLOT_ABORTED = 1 << 5, /* being reset by us: never to be continued */
	SLOT_FLAGS_ALL = (1 << 6) - 1,
};

struct ledger_slot {
	_Atomic uint32_t state; /* enum slot_state */
	_Atomic uint32_t generation;
	uint64_t id;      /* of the connection: unique over all processes; 0 for a pipe */
	uint32_t service; /* enum service_kind; its meaning is the caller's */
	_Atomic uint32_t flags; /* enum slot_flags */
	uint32_t n_crashes;     /* crashes in a row with this slot in hand */
	uint32_t opened_by; /* n_starts of the process that accepted it: what the header's
			     * is above that, it has survived */
	uint64_t accepted_usec;       /* CLOCK_MONOTONIC */
	_Atomic uint64_t active_usec; /* the last byte moved, CLOCK_MONOTONIC */
	uint64_t connect_usec;        /* the first connect to the upstream was begun */
	/*
	 * The highest generation that a label of this slot may have. It is raised before
	 * a label is put, so that an entry whose put was the last act of a process never
	 * passes for one of a later use of the slot.
	 */
	_Atomic uint32_t last_generation;
	uint32_t reserved;
	struct ledger_flow flows[LEDGER_FLOWS];
};

struct ledger_header {
	uint64_t magic;
	uint32_t version;
	uint32_t min_reader;
	uint32_t header_size;
	uint32_t slot_size;
	uint32_t n_slots;
	_Atomic uint32_t n_slots_used; /* slots at and above this were never touched */
	_Atomic uint64_t next_id;
	uint32_t n_starts;         /* processes that adopted this ledger */
	uint32_t n_crashes_in_row; /* marked crashes since a process lived long enough */
	_Atomic uint32_t crash_signal; /* set by the crash handler; 0 else */
	_Atomic uint32_t
		crash_worker; /* index + 1 of the worker that crashed; 0: unknown */
	uint64_t alive_usec;  /* when the process last said so, CLOCK_MONOTONIC */
	/* Who serves while a process hands over to another: see ledger_offer() */
	_Atomic uint64_t handover;
	uint64_t reserved[6];
	_Atomic slot_ref in_hand[LEDGER_WORKERS_MAX]; /* what each worker is handling */
};

#define LEDGER_HEADER_SIZE 4096u

static_assert(sizeof(struct ledger_slot) == 128, "the stored format is fixed");
static_assert(offsetof(struct ledger_slot, id) == 8, "the stored format is fixed");
static_assert(offsetof(struct ledger_slot, flags) == 20, "the stored format is fixed");
static_assert(offsetof(struct ledger_slot, accepted_usec) == 32,
	      "the stored format is fixed");
static_assert(offsetof(struct ledger_slot, flows) == 64, "the stored format is fixed");
static_assert(offsetof(struct ledger_header, n_slots_used) == 28,
	      "the stored format is fixed");
static_assert(offsetof(struct ledger_header, n_starts) == 40,
	      "the stored format is fixed");
static_assert(offsetof(struct ledger_header, in_hand) == 120,
	      "the stored format is fixed");
static_assert(sizeof(struct ledger_header) <= LEDGER_HEADER_SIZE,
	      "the header is one page");
static_assert(sizeof(_Atomic uint64_t) == 8, "atomics must be plain words in the ledger");

struct ledger {
	int fd;
	size_t size; /* bytes mapped */
	struct ledger_header *header;
	struct ledger_slot *slots;
};

/*
 * Makes a new, empty, sealed ledger of n_slots slots (1..LEDGER_SLOTS_MAX).
 * Returns 0 or a negative errno; on success *ret_ledger owns its fd and mapping.
 */
int ledger_new(uint32_t n_slots, struct ledger *ret_ledger);

/*
 * Maps the ledger that fd refers to, which comes from the fd store and is not trusted.
 * Takes fd over on success only. Returns 0, or a negative errno: -EBADMSG     it is no
 * ledger, or its header contradicts itself or its size -EPROTONOSUPPORT  it is from a
 * version that says this one can't read it -EPERM       it is not sealed, so that whoever
 * holds a copy could shrink it under us
 */
int ledger_map(int fd, struct ledger *ret_ledger);

/* Unmaps and closes. */
void ledger_done(struct ledger *ledger);

/*
 * Whether a slot's fields are possible at all: a known state and flags, and pipe
 * references within the ledger. Damage that it can't see is caught where the fields meet
 * the kernel's own counters (adopt).
 */
bool ledger_slot_is_sane(const struct ledger *ledger, uint32_t slot);

/* Clears all of slot but its generations. The state is the first to go. */
void ledger_slot_clear(struct ledger_slot *slot);

/*
 * The commit of a takeover. Two processes have the ledger mapped, and at every instant it
 * is decided which one serves, whatever either of them does or dies of: the serving one
 * stops and offers; its successor takes the offer before it moves its first byte; the
 * serving one, where it hears nothing, withdraws it before it goes on. Of the last two
 * exactly one succeeds, as they exchange the same word.
 */

/* Offers to hand over. Returns the offer, which no other offer is equal to. */
uint64_t ledger_offer(struct ledger *ledger);

/* The successor's: returns whether it serves from now on. */
bool ledger_take_offer(struct ledger *ledger, uint64_t offer);

/* Returns whether the offer is void. If not, it has been taken. */
bool ledger_withdraw_offer(struct ledger *ledger, uint64_t offer);

/* Makes void what the last process may have offered, and died before it heard of. */
void ledger_withdraw_any_offer(struct ledger *ledger);
