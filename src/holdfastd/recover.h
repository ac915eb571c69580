/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The service's half of adopt: what the vault has found becomes connections of the
 * workers, before these are started. It says what it has found, and holds back a process
 * that follows crash upon crash.
 */
#pragma once

#include <stdint.h>

#include "vault/adopt.h"

struct shared;
struct worker;
struct pool_pipe;

struct recovery {
	struct shared *shared;
	uint64_t began_usec;      /* of this process */
	uint64_t last_alive_usec; /* the process before this one, as far as it is known */
	uint32_t n_adopted;       /* connections that go on */
	uint32_t n_refused;
	uint64_t pending_bytes; /* of those that go on */
	uint64_t took_usec;     /* from the beginning of the process */
};

/* Logs what the vault found wrong. */
void recover_say(const struct adopt_report *report);

/*
 * Makes a lent pipe of worker's of the one that ref names. Returns 0, and then *ret_pipe
 * is NULL where there is none; or -ENOMEM. Without a pipe all is as it was.
 */
int recover_take_pipe(struct worker *worker, slot_ref ref, struct pool_pipe **ret_pipe);

/*
 * The same for each flow of the connection in slot. In a damaged ledger two may name the
 * same pipe: the second has none. On -ENOMEM some were taken, and the caller owns them.
 */
int recover_take_pipes(struct worker *worker, uint32_t slot,
		       struct pool_pipe *ret_pipes[LEDGER_FLOWS]);

/*
 * If slot is a pipe that nobody has taken, puts it into some worker's pool; or discards
 * it if it has bytes, which it should not.
 */
void recover_free_pipe(struct shared *shared, uint32_t slot);

/* After a row of crashes each start waits longer, so that a loop of them costs little. */
void recover_delay(const struct adopt_report *report);

/*
 * Shares the connections out among the workers, resets those that can't be continued and
 * those in quarantine, and logs the one line about it. Sets n_adopted and what follows
 * it. Returns 0; or -ENOMEM, and then no connection was reset for want of memory: the
 * process is to end, since the store has them all. What takes a look at each socket is
 * left to the workers (connection_settle()): nobody has to wait for all of them.
 */
int recover_connections(struct recovery *recovery);

/* All that worker has adopted is settled. The last one to say so logs the audit's sum. */
void recover_note_settled(struct worker *worker);
