/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The audit of a connection whose bytes a test has moved: rightly, or with a hole, or
 * with a record that says something else.
 */
#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "holdfastd/audit.h"
#include "house.h"

struct stage {
	struct house *house;
	struct connection connection;
	int others[CONNECTION_PEERS]; /* the other ends of its sockets */
};

static struct flow *flow_of(struct stage *stage, unsigned i)
{
	return &stage->connection.flows[i];
}

static void add_peers(struct stage *stage)
{
	static const uint32_t flags[] = {SLOT_CLIENT_RESET, SLOT_UPSTREAM_RESET};
	struct connection *connection = &stage->connection;

	for (size_t i = 0; i < CONNECTION_PEERS; i++)
		peer_init(&connection->peers[i], connection, &connection->record->flags,
			  flags[i]);
}

static void start(struct stage *stage, enum service_kind service, unsigned n_flows,
		  int client, int upstream)
{
	struct connection *connection = &stage->connection;
	struct peer *peers = connection->peers;
	uint32_t slot = house_park(stage->house, &client, 1);

	connection->state = CONNECTION_OPEN;
	connection->service = service;
	connection->record = &stage->house->vault->ledger.slots[slot];
	connection->n_flows = n_flows;
	add_peers(stage);
	peer_set_fd(&peers[PEER_CLIENT], client);
	peer_set_fd(&peers[PEER_UPSTREAM], upstream);
	flow_init(&connection->flows[0], &peers[PEER_CLIENT],
		  service == SERVICE_LOG     ? NULL
		  : service == SERVICE_RELAY ? &peers[PEER_UPSTREAM]
					     : &peers[PEER_CLIENT],
		  connection->record, 0);
	if (n_flows > 1)
		flow_init(&connection->flows[1], &peers[PEER_UPSTREAM],
			  &peers[PEER_CLIENT], connection->record, 1);
}

static struct stage *stage_new(void)
{
	struct stage *stage = calloc(1, sizeof(*stage));

	assert_non_null(stage);
	stage->house = house_new(HOUSE_STORE_MAX, HOUSE_SLOTS);
	house_start(stage->house);
	stage->others[0] = stage->others[1] = -EBADF;
	return stage;
}

static int setup_echo(void **state)
{
	struct stage *stage = stage_new();
	int client;

	tcp_pair(&client, &stage->others[0]);
	start(stage, SERVICE_ECHO, 1, client, -EBADF);
	*state = stage;
	return 0;
}

static int setup_log(void **state)
{
	struct stage *stage = stage_new();
	int client;

	tcp_pair(&client, &stage->others[0]);
	start(stage, SERVICE_LOG, 1, client, -EBADF);
	*state = stage;
	return 0;
}

/* The upstream's socket is the one that has called connect(). */
static int setup_relay(void **state)
{
	struct stage *stage = stage_new();
	int client, upstream;

	tcp_pair(&client, &stage->others[PEER_CLIENT]);
	tcp_pair(&stage->others[PEER_UPSTREAM], &upstream);
	start(stage, SERVICE_RELAY, 2, client, upstream);
	*state = stage;
	return 0;
}

static int setup_unix(void **state)
{
	struct stage *stage = stage_new();
	int client;

	unix_pair(&client, &stage->others[0]);
	start(stage, SERVICE_ECHO, 1, client, -EBADF);
	*state = stage;
	return 0;
}

static int teardown(void **state)
{
	struct stage *stage = *state;

	for (unsigned i = 0; i < stage->connection.n_flows; i++)
		flow_kill(flow_of(stage, i), &stage->house->pipes);
	for (size_t i = 0; i < CONNECTION_PEERS; i++) {
		(void)fd_close(stage->connection.peers[i].fd);
		(void)fd_close(stage->others[i]);
	}
	stage->house = house_free(stage->house);
	free(stage);
	return 0;
}

/* ---- bytes ---- */

static void send_to(struct stage *stage, size_t from, const char *text)
{
	write_exactly(stage->others[from], text, strlen(text));
	(void)wait_for(stage->connection.peers[from].fd, POLLIN);
}

static void take(struct stage *stage, unsigned i, const char *text)
{
	send_to(stage, i, text);
	assert_int_equal(flow_fill(flow_of(stage, i), &stage->house->pipes, 1000),
			 strlen(text));
}

/* Moves for as long as anything does. */
static void deliver(struct stage *stage)
{
	for (unsigned i = 0; i < stage->connection.n_flows; i++) {
		struct flow *flow = flow_of(stage, i);

		flow->source->readable = flow->sink->writable = true;
		(void)flow_move(flow, &stage->house->pipes);
	}
}

static struct ledger_flow *record_of(struct stage *stage, unsigned i)
{
	return &stage->connection.record->flows[i];
}

/* ---- expectations ---- */

static struct audit audit_as(struct stage *stage, enum audit_occasion occasion)
{
	struct audit_tally tally = {0};
	struct audit audit;

	audit_connection(&stage->connection, occasion, &audit, &tally);
	assert_int_equal(tally.n_total, 1);
	assert_int_equal(tally.n[audit.verdict], 1);
	for (unsigned i = 0; i < audit.n_flows; i++)
		assert_true((audit.flows[i].verdict == AUDIT_RIGHT) ==
			    (audit.flows[i].why == NULL));
	return audit;
}

static void expect_as(struct stage *stage, enum audit_occasion occasion,
		      enum audit_verdict verdict)
{
	struct audit audit = audit_as(stage, occasion);

	if (audit.verdict != verdict)
		fail_msg("%s: %s", audit_verdict_name(audit.verdict),
			 audit.flows[0].why ? audit.flows[0].why : "flow 1");
}

static void expect(struct stage *stage, enum audit_verdict verdict)
{
	expect_as(stage, AUDIT_ADOPTING, verdict);
	expect_as(stage, AUDIT_SERVING, verdict);
}

/* ---- right ---- */

static void nothing_moved_is_right(void **state)
{
	struct stage *stage = *state;

	expect(stage, AUDIT_RIGHT);
	send_to(stage, 0, "not read yet");
	expect(stage, AUDIT_RIGHT);
}

static void figures_are_those_of_the_stream(void **state)
{
	struct stage *stage = *state;
	struct audit audit;

	take(stage, 0, "01234");
	deliver(stage);
	take(stage, 0, "56");
	audit = audit_as(stage, AUDIT_SERVING);
	assert_int_equal(audit.verdict, AUDIT_RIGHT);
	assert_int_equal(audit.flows[0].consumed, 7);
	assert_int_equal(audit.flows[0].recorded, 7);
	assert_int_equal(audit.flows[0].pending, 2);
	assert_int_equal(audit.flows[0].delivered, 5);
}

static void both_directions_of_a_relay_are_right(void **state)
{
	struct stage *stage = *state;

	take(stage, 0, "question");
	deliver(stage);
	take(stage, 1, "answer");
	expect(stage, AUDIT_RIGHT);
	deliver(stage);
	expect(stage, AUDIT_RIGHT);
}

static void urgent_byte_is_one_byte(void **state)
{
	struct stage *stage = *state;

	send_to(stage, 0, "before");
	assert_int_equal(send(stage->others[0], "!", 1, MSG_OOB), 1);
	stage->connection.peers[PEER_CLIENT].urgent = true;
	wait_for_bytes(stage->connection.peers[PEER_CLIENT].fd, 7);
	deliver(stage);
	expect(stage, AUDIT_RIGHT);
	deliver(stage);
	expect(stage, AUDIT_RIGHT);
	assert_int_equal(record_of(stage, 0)->n_read, 7);
}

static void ends_are_no_bytes(void **state)
{
	struct stage *stage = *state;
	struct flow *flow = flow_of(stage, 0);

	take(stage, 0, "all");
	deliver(stage);
	(void)must(shutdown(stage->others[PEER_CLIENT], SHUT_WR));
	(void)wait_for(flow->source->fd, POLLRDHUP);
	expect(stage, AUDIT_RIGHT);
	deliver(stage);
	assert_int_equal(flow->state, FLOW_ENDED);
	expect(stage, AUDIT_RIGHT);
	(void)must(shutdown(stage->others[PEER_UPSTREAM], SHUT_WR));
	/* Both its FIN and ours: the upstream's socket is closed */
	assert_true(wait_for(flow->sink->fd, 0) & POLLHUP);
	expect(stage, AUDIT_RIGHT);
	deliver(stage);
	assert_true(wait_for(flow->source->fd, 0) & POLLHUP);
	expect(stage, AUDIT_RIGHT);
}

static void reset_source_is_right(void **state)
{
	struct stage *stage = *state;
	struct flow *flow = flow_of(stage, 0);

	take(stage, 0, "pending");
	socket_abort(stage->others[PEER_CLIENT]);
	assert_true(wait_for(flow->source->fd, 0) & POLLERR);
	expect(stage, AUDIT_RIGHT);
	peer_fail(flow->source);
	assert_int_equal(audit_as(stage, AUDIT_SERVING).flows[0].verdict, AUDIT_RIGHT);
}

/* ---- what the last call of a killed process has left ---- */

static void count_may_be_behind_by_one_call_when_adopted(void **state)
{
	struct stage *stage = *state;

	take(stage, 0, "counted");
	deliver(stage);
	take(stage, 0, "not");
	record_of(stage, 0)->n_read -= 3;
	expect_as(stage, AUDIT_ADOPTING, AUDIT_RIGHT);
	expect_as(stage, AUDIT_SERVING, AUDIT_WRONG);
	record_of(stage, 0)->n_read += 1;
	expect(stage, AUDIT_WRONG);
}

static void log_may_be_behind_by_part_of_its_pipe(void **state)
{
	struct stage *stage = *state;

	take(stage, 0, "counted");
	take(stage, 0, "not");
	record_of(stage, 0)->n_read -= 3;
	expect_as(stage, AUDIT_ADOPTING, AUDIT_RIGHT);
	expect_as(stage, AUDIT_SERVING, AUDIT_WRONG);
	record_of(stage, 0)->n_read -= 8;
	expect(stage, AUDIT_WRONG);
}

/* What was logged is taken from the pipe, and then counted. */
static void log_may_be_behind_by_the_entry_in_hand(void **state)
{
	struct stage *stage = *state;
	char bytes[4];

	take(stage, 0, "0123456789");
	record_of(stage, FLOW_JOURNAL)->n_in_hand = 4;
	expect(stage, AUDIT_RIGHT);
	read_exactly(flow_of(stage, 0)->pipe->fd, bytes, 4);
	flow_of(stage, 0)->pending -= 4;
	expect_as(stage, AUDIT_ADOPTING, AUDIT_RIGHT);
	expect_as(stage, AUDIT_SERVING, AUDIT_WRONG);
	record_of(stage, FLOW_JOURNAL)->n_read = 4;
	expect(stage, AUDIT_RIGHT);
	record_of(stage, FLOW_JOURNAL)->n_read = 3;
	expect(stage, AUDIT_WRONG);
}

/* ---- wrong ---- */

static void damaged_count_is_wrong(void **state)
{
	struct stage *stage = *state;

	take(stage, 0, "01234");
	deliver(stage);
	expect(stage, AUDIT_RIGHT);
	record_of(stage, 0)->n_read += 1;
	expect(stage, AUDIT_WRONG);
	record_of(stage, 0)->n_read -= 2;
	expect(stage, AUDIT_WRONG);
}

static void byte_stolen_from_the_pipe_is_wrong(void **state)
{
	struct stage *stage = *state;
	struct flow *flow = flow_of(stage, 0);
	char byte;

	take(stage, 0, "01234");
	read_exactly(flow->pipe->fd, &byte, 1);
	expect(stage, AUDIT_WRONG);
	/* Known or not */
	flow->pending--;
	expect(stage, AUDIT_WRONG);
}

static void byte_put_into_the_pipe_is_wrong(void **state)
{
	struct stage *stage = *state;

	take(stage, 0, "01234");
	write_exactly(flow_of(stage, 0)->pipe->fd, "5", 1);
	flow_of(stage, 0)->pending++;
	expect(stage, AUDIT_WRONG);
}

static void count_that_is_not_the_pipes_is_wrong(void **state)
{
	struct stage *stage = *state;
	struct flow *flow = flow_of(stage, 0);
	int fd;

	take(stage, 0, "01234");
	flow->pending++;
	expect(stage, AUDIT_WRONG);
	assert_string_equal(audit_as(stage, AUDIT_SERVING).flows[0].why,
			    "its pipe holds what nobody has put");
	flow->pending--;
	expect(stage, AUDIT_RIGHT);
	/* One that can't be asked is not taken for empty */
	fd = flow->pipe->fd;
	flow->pipe->fd = -EBADF;
	expect(stage, AUDIT_WRONG);
	flow->pipe->fd = fd;
}

static void byte_that_bypasses_a_relay_is_wrong(void **state)
{
	struct stage *stage = *state;

	write_exactly(stage->connection.peers[PEER_UPSTREAM].fd, "x", 1);
	expect(stage, AUDIT_WRONG);
	assert_int_equal(audit_as(stage, AUDIT_SERVING).flows[1].verdict, AUDIT_RIGHT);
}

/* ---- not to be audited ---- */

static void unix_sockets_are_not_audited(void **state)
{
	struct stage *stage = *state;

	take(stage, 0, "01234");
	deliver(stage);
	expect(stage, AUDIT_NOT_AUDITED);
}

static void flow_into_a_failed_side_is_not_audited(void **state)
{
	struct stage *stage = *state;
	struct audit audit;

	take(stage, 0, "01234");
	peer_fail(flow_of(stage, 0)->sink);
	flow_kill(flow_of(stage, 0), &stage->house->pipes);
	audit = audit_as(stage, AUDIT_SERVING);
	assert_int_equal(audit.flows[0].verdict, AUDIT_NOT_AUDITED);
	assert_int_equal(audit.flows[1].verdict, AUDIT_RIGHT);
	assert_int_equal(audit.verdict, AUDIT_NOT_AUDITED);
}

static void beginning_and_end_are_not_audited(void **state)
{
	struct stage *stage = *state;

	stage->connection.state = CONNECTION_CONNECTING;
	expect(stage, AUDIT_NOT_AUDITED);
	stage->connection.state = CONNECTION_LINGERING;
	expect(stage, AUDIT_NOT_AUDITED);
}

#define TEST(kind, name) cmocka_unit_test_setup_teardown(name, setup_##kind, teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(echo, nothing_moved_is_right),
		TEST(echo, figures_are_those_of_the_stream),
		TEST(relay, both_directions_of_a_relay_are_right),
		TEST(echo, urgent_byte_is_one_byte),
		TEST(relay, ends_are_no_bytes),
		TEST(relay, reset_source_is_right),
		TEST(echo, count_may_be_behind_by_one_call_when_adopted),
		TEST(log, log_may_be_behind_by_part_of_its_pipe),
		TEST(log, log_may_be_behind_by_the_entry_in_hand),
		TEST(echo, damaged_count_is_wrong),
		TEST(relay, byte_stolen_from_the_pipe_is_wrong),
		TEST(echo, byte_put_into_the_pipe_is_wrong),
		TEST(echo, count_that_is_not_the_pipes_is_wrong),
		TEST(relay, byte_that_bypasses_a_relay_is_wrong),
		TEST(unix, unix_sockets_are_not_audited),
		TEST(relay, flow_into_a_failed_side_is_not_audited),
		TEST(relay, beginning_and_end_are_not_audited),
	};

	return UNIT_RUN("audit", tests);
}
