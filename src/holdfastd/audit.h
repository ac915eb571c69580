/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The audit: the proof that a connection has lost nothing and repeated nothing, from what
 * others have counted than those who moved the bytes.
 *
 * For each flow, over the whole life of the connection and all processes that served it:
 *   consumed = pending + delivered
 *   consumed = recorded
 * consumed is the kernel's count of bytes taken from the source, pending what the kernel
 * finds in the lent pipe, delivered the kernel's count of bytes written to the sink (for
 * the log: the ledger's, of bytes that were taken from the pipe once they were in the
 * journal), and recorded the ledger's n_read. The counts grow with the stream and are
 * never begun anew, so the first equation holds whenever no byte is moved, and once it
 * does not, it never does again.
 *
 * A process that was killed leaves the last call uncounted. So of what is adopted the
 * ledger may be behind, but only by exactly that call: by all that is pending, for a
 * pipe is filled when it is empty; in the log, whose pipe is added to, by some of it.
 *
 * It says "wrong" only of what can't be otherwise. Where a count is not known to the byte
 * (a closed socket does not tell whether FINs are among its counts) it is taken as a
 * range. What can't be audited is said to be so, with the reason: AF_UNIX keeps no
 * counts, a connection in the middle of its beginning has none that mean anything, and
 * what comes for a side that has failed is thrown away.
 *
 * Only for the one who may move the connection's bytes, at an instant when it does not.
 */
#pragma once

#include <stdint.h>

#include "base/socket.h"
#include "holdfastd/connection.h"

enum audit_verdict {
	AUDIT_RIGHT,
	AUDIT_NOT_AUDITED,
	AUDIT_WRONG,
};

enum audit_occasion {
	AUDIT_ADOPTING, /* nothing has been made good yet but an urgent byte */
	AUDIT_SERVING,
};

struct audit_flow {
	enum audit_verdict verdict;
	const char *why; /* NULL: right */
	/* As far as they are known; 0 else. Those of a closed socket may be one too high */
	int64_t consumed, recorded, pending, delivered;
};

/* What was found of how many connections. */
struct audit_tally {
	uint64_t n[AUDIT_WRONG + 1]; /* by enum audit_verdict */
	uint64_t n_total;
};

struct audit {
	enum audit_verdict verdict; /* the worst of the flows */
	struct audit_flow flows[LEDGER_FLOWS];
	unsigned n_flows;
	/* What it was made from; NULL for one that has none */
	const struct socket_counts *counts[CONNECTION_PEERS];
	struct socket_counts peer_counts[CONNECTION_PEERS];
};

/* Audits a connection; changes nothing. Adds the verdict to *tally. */
void audit_connection(const struct connection *connection, enum audit_occasion occasion,
		      struct audit *ret_audit, struct audit_tally *tally);

/* Adds *tally to *sum. */
void audit_add_tally(struct audit_tally *sum, const struct audit_tally *tally);

/* Logs what is wrong with it, as an error for each of its flows that is. */
void audit_log(const struct connection *connection, const struct audit *audit);

/* Logs what has come of an audit. */
void audit_log_tally(const struct audit_tally *tally);

/* "client" or "upstream": where a flow comes from. */
const char *audit_source_name(unsigned flow);

const char *audit_verdict_name(enum audit_verdict verdict);
