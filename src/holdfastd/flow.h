/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A flow: one direction of bytes, source socket -> pipe -> sink socket. (The log service
 * uses the first half only: its sink is the journal, see services/log.c.)
 *
 * Bytes move by splice(2) and so are always in exactly one of three places in the kernel,
 * whenever the process is killed (tests/kernel/splice-survives-sigkill.c). The order that
 * makes the rest of it recoverable:
 * - the pipe's reference is in the ledger before the first splice into the pipe, and
 * leaves it only after the pipe was seen empty;
 * - a pipe is filled only when it is empty (but for the log), so that EAGAIN from the
 * source means "no data" and never "pipe full";
 * - n_read is counted after the call that moved the bytes: it is behind by one call at
 * most, which adopt makes good from the kernel's own count.
 *
 * An urgent byte (TCP URG) stops splice at its mark. With SO_OOBINLINE it is part of the
 * stream, and is carried by hand: flow_fill() tells how.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/socket.h"
#include "holdfastd/peer.h"
#include "vault/ledger.h"
#include "vault/pipes.h"

/* Rounds of fill and drain that one flow gets before the others have their turn. */
#define FLOW_ROUNDS_MAX 16

/* Where the log's record counts what has left the pipe for the journal; see ledger.h. */
#define FLOW_JOURNAL 1

enum flow_state {
	FLOW_OPEN,   /* the source may have more */
	FLOW_ENDING, /* the source has ended; the pipe may still hold bytes */
	FLOW_ENDED,  /* all was delivered, and the sink has been told so */
	FLOW_LOST,   /* its sink is lost: what comes is thrown away, so that its source,
		      * which may   be waiting to send it, can read what there is for it */
};

struct flow {
	struct peer *source;
	struct peer *sink; /* NULL: the journal */
	enum flow_state state;
	struct pool_pipe *pipe; /* lent; NULL while nothing is pending */
	size_t pending;         /* bytes in the pipe */
	struct ledger_slot *record;
	unsigned index;   /* of this flow in the record */
	uint64_t n_moved; /* bytes delivered by this process */
};

enum flow_result {
	FLOW_WAITS = 0,      /* for an event of its source or sink, or it has ended */
	FLOW_HAS_MORE = 1,   /* it used up its rounds */
	FLOW_NEEDS_PIPE = 2, /* there is no pipe to be had just now */
};

void flow_init(struct flow *flow, struct peer *source, struct peer *sink,
	       struct ledger_slot *record, unsigned index);

/*
 * Takes up what another process has read: pipe is the one that the ledger names, NULL if
 * none. Changes nothing outside of flow. Returns 0, or -EIO if the pipe can't be asked.
 */
int flow_take_up(struct flow *flow, struct pool_pipe *pipe);

/*
 * Makes good what a process that may have died within any call has left half done. The
 * first: an urgent byte that was in hand.
 */
void flow_settle_urgent(struct flow *flow);

/* The second: n_read. counts: of the source, as of now; NULL if it has none. */
void flow_settle_count(struct flow *flow, const struct socket_counts *counts);

/*
 * Moves what can be moved. A failing peer gets failed set; the flow of a failed source
 * ends when its bytes are delivered. Returns enum flow_result.
 */
int flow_move(struct flow *flow, struct pipe_pool *pool);

/* Takes no more from the source: what is in the pipe is still delivered, and is the last
 * that the sink gets. */
void flow_finish(struct flow *flow);

/*
 * Takes up to max bytes from the source into the pipe, borrowing one if need be. For those
 * who empty the pipe themselves.
 * Returns the number of bytes; 0 when the source has ended (state says so); or
 *   -EAGAIN  there are none now, or the pipe is full
 *   -EBUSY   there is no pipe to be had
 */
ssize_t flow_fill(struct flow *flow, struct pipe_pool *pool, size_t max);

/* Notes that n bytes have left the pipe, and gives it back when it is empty. */
void flow_note_drained(struct flow *flow, struct pipe_pool *pool, size_t n);

/* Throws away what the flow holds, and what will come: its sink is lost. */
void flow_kill(struct flow *flow, struct pipe_pool *pool);

/*
 * Swaps the lent pipe for one that holds the same bytes in as few slots as possible: a
 * pipe fills by slots as well as by bytes, and bytes that came one by one take a slot
 * each. scratch: as for flow_peek(). Returns 0, or -EBUSY or another negative errno; the
 * flow is unchanged then.
 */
int flow_repack(struct flow *flow, struct pipe_pool *pool, int scratch);

/*
 * Copies the first up to size pending bytes to buffer, and leaves them in the pipe.
 * scratch is an empty pipe of both ends, non-blocking, and empty again afterwards. It is
 * given as many slots as the lent pipe has, but where the user may have no more of them
 * (fs.pipe-user-pages-soft of pipe(7)): what does not fit is not copied. Returns the
 * number of bytes or a negative errno.
 */
ssize_t flow_peek(const struct flow *flow, int scratch, void *buffer, size_t size);
