/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/audit.h"

#include "base/log.h"
#include "base/pipe.h"
#include "base/plural.h"
#include "holdfastd/messages.h"

/* Of bytes: what is known of a count. */
struct range {
	int64_t low, high;
};

static bool range_has(struct range range, int64_t value)
{
	return value >= range.low && value <= range.high;
}

static struct range range_plus(struct range range, int64_t value)
{
	return (struct range){.low = range.low + value, .high = range.high + value};
}

static bool ranges_meet(struct range a, struct range b)
{
	return a.low <= b.high && b.low <= a.high;
}

/* In the state CLOSE there may have been a FIN or not. */
static struct range range_of(uint64_t count, bool has_fin, bool is_closed)
{
	int64_t high = (int64_t)count - (has_fin ? 1 : 0);

	return (struct range){.low = is_closed ? high - 1 : high, .high = high};
}

static struct range consumed_from(const struct socket_counts *counts)
{
	return range_of(counts->n_taken, counts->has_fin, counts->is_closed);
}

/* is_upstream: it was connected by us, so that its SYN is among what was written. */
static struct range written_to(const struct socket_counts *counts, bool is_upstream)
{
	return range_plus(range_of(counts->n_written, counts->has_sent_fin,
				   counts->is_closed),
			  is_upstream ? -1 : 0);
}

/* ---- one flow ---- */

struct audited {
	const struct connection *connection;
	const struct flow *flow;
	const struct audit *audit;
	enum audit_occasion occasion;
};

static size_t index_of(const struct audited *audited, const struct peer *peer)
{
	return (size_t)(peer - audited->connection->peers);
}

static const struct socket_counts *counts_of(const struct audited *audited,
					     const struct peer *peer)
{
	return audited->audit->counts[index_of(audited, peer)];
}

static const char *why_not(const struct audited *audited)
{
	const struct flow *flow = audited->flow;
	const struct socket_counts *source = counts_of(audited, flow->source);
	const struct socket_counts *sink =
		flow->sink ? counts_of(audited, flow->sink) : NULL;

	if (audited->connection->state == CONNECTION_CONNECTING)
		return "the upstream has not answered yet";
	if (audited->connection->state != CONNECTION_OPEN)
		return "it is about to end";
	if (flow->sink && flow->sink->failed)
		return "the receiving side has failed";
	if (!source || (flow->sink && !sink))
		return "the kernel keeps no counts of such a socket";
	if (source->is_connecting || (sink && sink->is_connecting))
		return "its beginning is not acknowledged yet";
	return NULL;
}

/* Whether what the ledger has of n_read may be what a process has left. */
static bool is_recorded(const struct audited *audited, struct range consumed,
			int64_t recorded, int64_t pending)
{
	struct range behind = {.low = recorded, .high = recorded};

	if (range_has(consumed, recorded))
		return true;
	if (audited->occasion == AUDIT_SERVING)
		return false;
	if (audited->flow->sink)
		return range_has(consumed, recorded + pending);
	behind.high += pending;
	return ranges_meet(consumed, behind);
}

static bool is_logged(const struct audited *audited, struct range consumed,
		      int64_t pending)
{
	const struct ledger_flow *journal = &audited->flow->record->flows[FLOW_JOURNAL];
	int64_t logged = (int64_t)journal->n_read;

	return range_has(consumed, logged + pending) ||
	       (audited->occasion == AUDIT_ADOPTING &&
		range_has(consumed, logged + pending + (int64_t)journal->n_in_hand));
}

static bool is_delivered(const struct audited *audited, struct range consumed,
			 struct audit_flow *result)
{
	const struct peer *sink = audited->flow->sink;
	struct range written;

	if (!sink) {
		result->delivered =
			(int64_t)audited->flow->record->flows[FLOW_JOURNAL].n_read;
		return is_logged(audited, consumed, result->pending);
	}
	written = written_to(counts_of(audited, sink),
			     index_of(audited, sink) == PEER_UPSTREAM);
	result->delivered = written.high;
	return ranges_meet(consumed, range_plus(written, result->pending));
}

/* The pipe is asked again: by now it may hold something else than was thought. */
static const char *find_pending(const struct flow *flow, int64_t *ret_pending)
{
	size_t pending = 0;

	if (flow->pipe && pipe_get_pending(flow->pipe->fd, &pending) < 0)
		return "its pipe can't be asked";
	*ret_pending = (int64_t)pending;
	return pending == flow->pending ? NULL : "its pipe holds what nobody has put";
}

static const char *find_wrong(const struct audited *audited, struct audit_flow *result)
{
	struct range consumed = consumed_from(counts_of(audited, audited->flow->source));
	const char *why = find_pending(audited->flow, &result->pending);
	bool is_right = is_delivered(audited, consumed, result);

	result->consumed = consumed.high;
	if (!is_right)
		return "bytes were lost or repeated";
	if (why)
		return why;
	if (!is_recorded(audited, consumed, result->recorded, result->pending))
		return "the ledger has another count";
	return NULL;
}

static void audit_flow(const struct audited *audited, struct audit_flow *ret)
{
	const struct flow *flow = audited->flow;
	struct audit_flow result = {
		.recorded = (int64_t)flow->record->flows[flow->index].n_read,
		.pending = (int64_t)flow->pending,
	};

	result.why = why_not(audited);
	if (result.why) {
		result.verdict = AUDIT_NOT_AUDITED;
	} else {
		result.why = find_wrong(audited, &result);
		result.verdict = result.why ? AUDIT_WRONG : AUDIT_RIGHT;
	}
	*ret = result;
}

/* ---- a connection ---- */

static void count(const struct connection *connection, struct audit *audit)
{
	for (size_t i = 0; i < CONNECTION_PEERS; i++) {
		int fd = connection->peers[i].fd;

		if (fd >= 0 && connection->state == CONNECTION_OPEN &&
		    socket_is_tcp(fd) &&
		    socket_get_counts(fd, &audit->peer_counts[i]) == 0)
			audit->counts[i] = &audit->peer_counts[i];
		else
			audit->counts[i] = NULL;
	}
}

void audit_connection(const struct connection *connection, enum audit_occasion occasion,
		      struct audit *ret_audit, struct audit_tally *tally)
{
	ret_audit->verdict = AUDIT_RIGHT;
	ret_audit->n_flows = connection->n_flows;
	count(connection, ret_audit);
	for (unsigned i = 0; i < connection->n_flows; i++) {
		struct audited audited = {
			.connection = connection,
			.flow = &connection->flows[i],
			.audit = ret_audit,
			.occasion = occasion,
		};

		audit_flow(&audited, &ret_audit->flows[i]);
		if (ret_audit->flows[i].verdict > ret_audit->verdict)
			ret_audit->verdict = ret_audit->flows[i].verdict;
	}
	tally->n[ret_audit->verdict]++;
	tally->n_total++;
}

void audit_add_tally(struct audit_tally *sum, const struct audit_tally *tally)
{
	for (size_t i = 0; i < sizeof(sum->n) / sizeof(sum->n[0]); i++)
		sum->n[i] += tally->n[i];
	sum->n_total += tally->n_total;
}

/* ---- what is said ---- */

const char *audit_source_name(unsigned flow)
{
	return flow == 0 ? "client" : "upstream";
}

const char *audit_verdict_name(enum audit_verdict verdict)
{
	switch (verdict) {
	case AUDIT_RIGHT:
		return "right";
	case AUDIT_NOT_AUDITED:
		return "not-audited";
	case AUDIT_WRONG:
		return "wrong";
	}
	return NULL;
}

static void log_flow(const struct connection *connection, unsigned i,
		     const struct audit_flow *flow)
{
	struct log_entry *entry =
		connection_log_new(connection, LOG_ERR, MESSAGE_AUDIT_WRONG);

	if (!entry)
		return;
	log_entry_add(entry, "HOLDFAST_FLOW=%s", audit_source_name(i));
	log_entry_add(entry, "HOLDFAST_CONSUMED=%lld", (long long)flow->consumed);
	log_entry_add(entry, "HOLDFAST_RECORDED=%lld", (long long)flow->recorded);
	log_entry_add(entry, "HOLDFAST_PENDING=%lld", (long long)flow->pending);
	log_entry_add(entry, "HOLDFAST_DELIVERED=%lld", (long long)flow->delivered);
	log_line_send(entry,
		      "Connection %llu does not pass its audit and is reset: %s (from the %s: %lld "
		      "bytes consumed, %lld recorded; %lld pending, %lld delivered)",
		      (unsigned long long)connection->record->id, flow->why,
		      audit_source_name(i), (long long)flow->consumed,
		      (long long)flow->recorded, (long long)flow->pending,
		      (long long)flow->delivered);
}

void audit_log(const struct connection *connection, const struct audit *audit)
{
	for (unsigned i = 0; i < audit->n_flows; i++)
		if (audit->flows[i].verdict == AUDIT_WRONG)
			log_flow(connection, i, &audit->flows[i]);
}

void audit_log_tally(const struct audit_tally *tally)
{
	struct log_entry *entry = log_line_new(LOG_INFO, MESSAGE_AUDIT);

	if (!entry)
		return;
	log_entry_add(entry, "HOLDFAST_RIGHT=%llu",
		      (unsigned long long)tally->n[AUDIT_RIGHT]);
	log_entry_add(entry, "HOLDFAST_NOT_AUDITED=%llu",
		      (unsigned long long)tally->n[AUDIT_NOT_AUDITED]);
	log_entry_add(entry, "HOLDFAST_WRONG=%llu",
		      (unsigned long long)tally->n[AUDIT_WRONG]);
	log_line_send(entry,
		      "Audited the bytes of %llu connection%s: %llu all right, %llu "
		      "not auditable, %llu wrong",
		      (unsigned long long)tally->n_total, plural(tally->n_total),
		      (unsigned long long)tally->n[AUDIT_RIGHT],
		      (unsigned long long)tally->n[AUDIT_NOT_AUDITED],
		      (unsigned long long)tally->n[AUDIT_WRONG]);
}
