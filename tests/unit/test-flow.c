/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One flow between two sockets, the other ends of which the test holds. A process that
 * ends in the middle is made by forgetting the struct flow and adopting another from what
 * the ledger and the kernel have.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/pipe.h"
#include "base/socket.h"
#include "holdfastd/flow.h"
#include "house.h"
#include "../kernel/urgent-pointer.h"

struct stage {
	struct house *house;
	struct peer source;
	struct peer sink;
	int from; /* the other end of source: what is written there is to be carried */
	int to;   /* the other end of sink */
	uint32_t slot;
	struct flow flow;
};

static struct ledger_slot *record_of(struct stage *stage)
{
	return &stage->house->vault->ledger.slots[stage->slot];
}

static void init_flow(struct stage *stage)
{
	struct ledger_slot *record = record_of(stage);
	int source = stage->source.fd, sink = stage->sink.fd;

	peer_init(&stage->source, NULL, &record->flags, SLOT_CLIENT_RESET);
	peer_init(&stage->sink, NULL, &record->flags, SLOT_UPSTREAM_RESET);
	peer_set_fd(&stage->source, source);
	peer_set_fd(&stage->sink, sink);
	flow_init(&stage->flow, &stage->source, &stage->sink, record, 0);
}

static int setup(void **state, void (*make_pair)(int *, int *))
{
	struct stage *stage = calloc(1, sizeof(*stage));

	assert_non_null(stage);
	stage->house = house_new(HOUSE_STORE_MAX, HOUSE_SLOTS);
	house_start(stage->house);
	make_pair(&stage->source.fd, &stage->from);
	make_pair(&stage->sink.fd, &stage->to);
	stage->slot =
		house_park(stage->house, (int[]){stage->source.fd, stage->sink.fd}, 2);
	init_flow(stage);
	*state = stage;
	return 0;
}

static int setup_tcp(void **state)
{
	return setup(state, tcp_pair);
}

static int setup_unix(void **state)
{
	return setup(state, unix_pair);
}

static int teardown(void **state)
{
	struct stage *stage = *state;

	flow_kill(&stage->flow, &stage->house->pipes);
	(void)fd_close(stage->source.fd);
	(void)fd_close(stage->sink.fd);
	(void)fd_close(stage->from);
	(void)fd_close(stage->to);
	stage->house = house_free(stage->house);
	free(stage);
	return 0;
}

/* As epoll would tell, of both sides. */
static void note_events(struct stage *stage)
{
	struct peer *peers[] = {&stage->source, &stage->sink};

	for (size_t i = 0; i < N_ELEMENTS(peers); i++)
		/* poll(2) and epoll(7) have the same bits */
		peer_note_events(peers[i],
				 (uint32_t)events_now(peers[i]->fd, POLLIN | POLLOUT |
									    POLLPRI |
									    POLLRDHUP));
}

static int move(struct stage *stage)
{
	note_events(stage);
	return flow_move(&stage->flow, &stage->house->pipes);
}

/* Moves for as long as events bring anything. */
static void move_all(struct stage *stage)
{
	uint64_t before;
	enum flow_state state;

	do {
		before = stage->flow.n_moved + stage->flow.pending;
		state = stage->flow.state;
	} while (move(stage) == FLOW_HAS_MORE ||
		 before != stage->flow.n_moved + stage->flow.pending ||
		 state != stage->flow.state);
}

static ssize_t fill(struct stage *stage)
{
	note_events(stage);
	return flow_fill(&stage->flow, &stage->house->pipes, PIPES_LARGE_SIZE);
}

static void send_text(struct stage *stage, const char *text)
{
	write_exactly(stage->from, text, strlen(text));
	(void)wait_for(stage->source.fd, POLLIN);
}

static void send_urgent(struct stage *stage, char byte)
{
	assert_int_equal(send(stage->from, &byte, 1, MSG_OOB), 1);
	(void)wait_for(stage->source.fd, POLLPRI);
}

static void end_source(struct stage *stage)
{
	(void)must(shutdown(stage->from, SHUT_WR));
	(void)wait_for(stage->source.fd, POLLRDHUP);
}

static void reset_source(struct stage *stage)
{
	socket_abort(stage->from);
	assert_true(wait_for(stage->source.fd, 0) & POLLERR);
}

/*
 * The process is gone, and the next one has the flow. Its pipe is the one that the ledger
 * names.
 */
static void change_process(struct stage *stage)
{
	slot_ref ref = record_of(stage)->flows[0].pipe;
	struct pool_pipe *pipe = stage->flow.pipe;
	struct socket_counts counts;
	bool has_counts;

	if (ref) {
		assert_non_null(pipe);
		assert_true(pipe->ref == ref);
	} else if (pipe) {
		pipe_pool_return(&stage->house->pipes, pipe);
		pipe = NULL;
	}
	init_flow(stage);
	assert_int_equal(flow_take_up(&stage->flow, pipe), 0);
	flow_settle_urgent(&stage->flow);
	has_counts = socket_get_counts(stage->source.fd, &counts) == 0;
	flow_settle_count(&stage->flow, has_counts ? &counts : NULL);
}

static void expect_no_pipe(struct stage *stage)
{
	assert_null(stage->flow.pipe);
	assert_true(record_of(stage)->flows[0].pipe == 0);
}

/* ---- bytes ---- */

static void bytes_move_from_source_to_sink(void **state)
{
	struct stage *stage = *state;

	expect_no_pipe(stage);
	send_text(stage, "hello");
	assert_int_equal(move(stage), FLOW_WAITS);
	expect_text(stage->to, "hello");
	expect_no_pipe(stage);
	assert_int_equal(stage->flow.n_moved, 5);
	assert_int_equal(record_of(stage)->flows[0].n_read, 5);
	assert_int_equal(stage->flow.state, FLOW_OPEN);
}

static void idle_flow_holds_no_pipe_and_reads_nothing(void **state)
{
	struct stage *stage = *state;

	assert_int_equal(move(stage), FLOW_WAITS);
	expect_no_pipe(stage);
	assert_int_equal(stage->house->pipes.n_pipes, 0);
}

static void pipe_is_in_the_ledger_while_it_holds_bytes(void **state)
{
	struct stage *stage = *state;

	send_text(stage, "pending");
	assert_int_equal(fill(stage), 7);
	assert_non_null(stage->flow.pipe);
	assert_true(record_of(stage)->flows[0].pipe == stage->flow.pipe->ref);
	assert_int_equal(stage->flow.pending, 7);
	move_all(stage);
	expect_text(stage->to, "pending");
	expect_no_pipe(stage);
}

static char pattern(uint64_t position)
{
	return (char)(position * 31 + position / 251);
}

/* Writes as much as goes in, and returns the position behind it. */
static uint64_t write_pattern(int fd, uint64_t position, size_t most)
{
	char bytes[4096];
	size_t size = most < sizeof(bytes) ? most : sizeof(bytes);
	ssize_t n;

	for (size_t i = 0; i < size; i++)
		bytes[i] = pattern(position + i);
	n = write(fd, bytes, size);
	if (n < 0)
		assert_int_equal(errno, EAGAIN);
	return position + (n > 0 ? (uint64_t)n : 0);
}

/* Reads up to most bytes, each of which must be the one of its position. */
static uint64_t read_pattern(int fd, uint64_t position, size_t most)
{
	char bytes[4096];
	ssize_t n = read(fd, bytes, most < sizeof(bytes) ? most : sizeof(bytes));

	if (n < 0)
		assert_int_equal(errno, EAGAIN);
	for (ssize_t i = 0; i < n; i++)
		if (bytes[i] != pattern(position + (uint64_t)i))
			fail_msg("wrong byte at %llu",
				 (unsigned long long)position + (unsigned long long)i);
	return position + (n > 0 ? (uint64_t)n : 0);
}

/* Fills everything between from and to, and returns how many bytes that took. */
static uint64_t stuff(struct stage *stage)
{
	uint64_t written = 0, before;

	do {
		before = written;
		written = write_pattern(stage->from, written, 4096);
		move_all(stage);
		/* The kernel moves window and bytes of TCP on its own */
	} while (written != before || (events_now(stage->from, POLLOUT) & POLLOUT));
	return written;
}

static void full_sink_holds_the_flow_until_there_is_room(void **state)
{
	struct stage *stage = *state;
	uint64_t written = stuff(stage), read = 0;

	assert_true(stage->flow.pending > 0);
	assert_non_null(stage->flow.pipe);
	assert_false(stage->sink.writable);
	while (read < written) {
		read = read_pattern(stage->to, read, 4096);
		move_all(stage);
	}
	assert_int_equal(read, written);
	move_all(stage);
	expect_no_pipe(stage);
}

static void much_data_uses_up_the_rounds(void **state)
{
	struct stage *stage = *state;
	int size = 1;

	/* A pipe of one page needs a round for each, and there is more than that */
	send_text(stage, "x");
	assert_int_equal(fill(stage), 1);
	(void)fcntl(stage->flow.pipe->fd, F_SETPIPE_SZ, size);
	stage->flow.pipe->size = 1;
	for (unsigned i = 0; i < 2 * FLOW_ROUNDS_MAX; i++)
		write_exactly(stage->from, "y", 1);
	wait_for_bytes(stage->source.fd, 2 * FLOW_ROUNDS_MAX);
	assert_int_equal(move(stage), FLOW_HAS_MORE);
	move_all(stage);
	assert_int_equal(stage->flow.n_moved, 1 + 2 * FLOW_ROUNDS_MAX);
}

static void without_a_pipe_nothing_is_read(void **state)
{
	struct stage *stage = *state;
	uint32_t slot;

	while (packer_take_slot(&stage->house->packer, &slot) == 0)
		;
	send_text(stage, "waiting");
	assert_int_equal(move(stage), FLOW_NEEDS_PIPE);
	expect_no_pipe(stage);
	packer_free_slot(&stage->house->packer, HOUSE_SLOTS - 1);
	move_all(stage);
	expect_text(stage->to, "waiting");
}

/* ---- ends ---- */

static void end_of_the_source_is_told_to_the_sink(void **state)
{
	struct stage *stage = *state;

	send_text(stage, "last words");
	end_source(stage);
	move_all(stage);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	expect_no_pipe(stage);
	expect_text(stage->to, "last words");
	expect_end(stage->to);
	/* The other direction is open */
	write_exactly(stage->to, "answer", 6);
	expect_text(stage->sink.fd, "answer");
	assert_int_equal(move(stage), FLOW_WAITS);
}

static void end_that_comes_alone_takes_no_pipe(void **state)
{
	struct stage *stage = *state;
	uint32_t slot;

	while (packer_take_slot(&stage->house->packer, &slot) == 0)
		;
	end_source(stage);
	assert_int_equal(move(stage), FLOW_WAITS);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	assert_false(stage->source.failed);
	expect_end(stage->to);
}

/* AF_UNIX tells it by an error, which is taken by who asks first. */
static void source_that_leaves_what_it_got_unread_is_lost(void **state)
{
	struct stage *stage = *state;

	write_exactly(stage->source.fd, "unread", 6);
	stage->from = fd_close(stage->from);
	assert_int_equal(move(stage), FLOW_WAITS);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	assert_true(stage->source.failed);
	assert_int_equal(events_now(stage->to, POLLIN), 0);
	expect_no_pipe(stage);
}

static void fin_waits_for_pending_bytes(void **state)
{
	struct stage *stage = *state;
	uint64_t written = stuff(stage), read = 0;

	(void)must(shutdown(stage->from, SHUT_WR));
	move_all(stage);
	assert_int_not_equal(stage->flow.state, FLOW_ENDED);
	assert_int_equal(events_now(stage->to, POLLRDHUP), 0);
	while (read < written) {
		read = read_pattern(stage->to, read, 4096);
		move_all(stage);
	}
	/* The FIN itself comes when the window has opened for it */
	(void)wait_for(stage->source.fd, POLLRDHUP);
	move_all(stage);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	expect_end(stage->to);
}

static void end_may_be_told_again_by_the_next_process(void **state)
{
	struct stage *stage = *state;

	end_source(stage);
	move_all(stage);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	change_process(stage);
	move_all(stage);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	assert_false(stage->source.failed);
	expect_end(stage->to);
	assert_false(record_of(stage)->flags & (SLOT_CLIENT_RESET | SLOT_UPSTREAM_RESET));
}

static void reset_of_the_source_delivers_what_was_read_and_is_no_end(void **state)
{
	struct stage *stage = *state;

	send_text(stage, "before");
	assert_int_equal(fill(stage), 6);
	reset_source(stage);
	move_all(stage);
	assert_true(stage->source.failed);
	assert_true(record_of(stage)->flags & SLOT_CLIENT_RESET);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	expect_text(stage->to, "before");
	/* The reset of the sink is its connection's to do */
	assert_int_equal(events_now(stage->to, POLLIN | POLLRDHUP), 0);
}

static void source_reset_by_the_last_acts_of_a_process_is_not_forgotten(void **state)
{
	struct stage *stage = *state;

	send_text(stage, "before");
	assert_int_equal(fill(stage), 6);
	reset_source(stage);
	/* The call that learns the error takes it away, and the process is gone */
	assert_int_equal(fill(stage), 0);
	record_of(stage)->flags = 0;
	change_process(stage);
	move_all(stage);
	assert_true(stage->source.failed);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	expect_text(stage->to, "before");
	assert_int_equal(events_now(stage->to, POLLIN | POLLRDHUP), 0);
}

static void lost_sink_is_noted_and_what_comes_is_thrown_away(void **state)
{
	struct stage *stage = *state;

	send_text(stage, "in vain");
	assert_int_equal(fill(stage), 7);
	socket_abort(stage->to);
	(void)wait_for(stage->sink.fd, POLLRDHUP);
	move_all(stage);
	assert_true(stage->sink.failed);
	assert_true(record_of(stage)->flags & SLOT_UPSTREAM_RESET);
	assert_int_equal(stage->flow.state, FLOW_LOST);
	assert_int_equal(stage->flow.pending, 0);
	expect_no_pipe(stage);
	send_text(stage, "still");
	move_all(stage);
	assert_int_equal(events_now(stage->source.fd, POLLIN) & POLLIN, 0);
	end_source(stage);
	move_all(stage);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
}

static void killed_flow_discards_its_pipe_with_the_bytes(void **state)
{
	struct stage *stage = *state;
	uint32_t slot;

	send_text(stage, "unwanted");
	assert_int_equal(fill(stage), 8);
	slot = slot_ref_slot(stage->flow.pipe->ref);
	flow_kill(&stage->flow, &stage->house->pipes);
	assert_int_equal(stage->flow.state, FLOW_LOST);
	assert_int_equal(stage->house->vault->ledger.slots[slot].state, SLOT_FREE);
	expect_no_pipe(stage);
	assert_int_equal(stage->house->pipes.n_pipes, 0);
	flow_kill(&stage->flow, &stage->house->pipes);
}

/* ---- for those who empty the pipe themselves ---- */

static void short_scratch_grows_where_it_may(void **state)
{
	struct stage *stage = *state;
	char found[32] = {0};
	int scratch, page = (int)sysconf(_SC_PAGESIZE);

	assert_int_equal(pipe_open_both_ends(&scratch), 0);
	assert_int_equal(fcntl(scratch, F_SETPIPE_SZ, page), page);
	for (size_t i = 0; i < 5; i++) {
		send_text(stage, "part ");
		assert_int_equal(fill(stage), 5);
	}
	assert_int_equal(flow_peek(&stage->flow, scratch, found, 5), 5);
	assert_int_equal(fcntl(scratch, F_GETPIPE_SZ), page);
	assert_int_equal(flow_peek(&stage->flow, scratch, found, sizeof(found)), 25);
	assert_string_equal(found, "part part part part part ");
	assert_int_equal(events_now(scratch, POLLIN) & POLLIN, 0);
	(void)close(scratch);
	move_all(stage);
	expect_text(stage->to, found);
}

static void peeked_bytes_stay_pending(void **state)
{
	struct stage *stage = *state;
	char found[32] = {0};
	int scratch;

	assert_int_equal(pipe_open_both_ends(&scratch), 0);
	send_text(stage, "peek at me");
	assert_int_equal(fill(stage), 10);
	assert_int_equal(flow_peek(&stage->flow, scratch, found, 4), 4);
	assert_memory_equal(found, "peek\0", 5);
	assert_int_equal(flow_peek(&stage->flow, scratch, found, sizeof(found)), 10);
	assert_string_equal(found, "peek at me");
	assert_int_equal(events_now(scratch, POLLIN) & POLLIN, 0);
	(void)close(scratch);
	move_all(stage);
	expect_text(stage->to, "peek at me");
}

static void bytes_taken_by_hand_are_noted(void **state)
{
	struct stage *stage = *state;
	char found[8];

	send_text(stage, "by hand");
	assert_int_equal(fill(stage), 7);
	read_exactly(stage->flow.pipe->fd, found, 3);
	flow_note_drained(&stage->flow, &stage->house->pipes, 3);
	assert_int_equal(stage->flow.pending, 4);
	assert_non_null(stage->flow.pipe);
	read_exactly(stage->flow.pipe->fd, found, 4);
	flow_note_drained(&stage->flow, &stage->house->pipes, 4);
	expect_no_pipe(stage);
	assert_int_equal(stage->flow.n_moved, 7);
	assert_int_equal(stage->house->pipes.n_free, 1);
}

/* Fills the pipe byte by byte until it has no slot left; returns the number of bytes. */
static size_t fill_by_bytes(struct stage *stage)
{
	size_t n = 0;

	for (;;) {
		ssize_t r;

		write_exactly(stage->from, "z", 1);
		(void)wait_for(stage->source.fd, POLLIN);
		r = fill(stage);
		if (r == -EAGAIN)
			return n;
		assert_int_equal(r, 1);
		n++;
	}
}

static void repacking_makes_room_and_keeps_the_bytes(void **state)
{
	struct stage *stage = *state;
	size_t n = fill_by_bytes(stage);
	slot_ref before = stage->flow.pipe->ref;
	int scratch;

	assert_true(n < stage->flow.pipe->size);
	assert_int_equal(pipe_open_both_ends(&scratch), 0);
	(void)fcntl(scratch, F_SETPIPE_SZ, PIPES_LARGE_SIZE);
	assert_int_equal(flow_repack(&stage->flow, &stage->house->pipes, scratch), 0);
	(void)close(scratch);
	assert_true(stage->flow.pipe->ref != before);
	assert_true(record_of(stage)->flows[0].pipe == stage->flow.pipe->ref);
	assert_int_equal(stage->flow.pending, n);
	assert_int_equal(fill(stage), 1);
	move_all(stage);
	for (size_t i = 0; i <= n; i++) {
		char byte = 0;

		read_exactly(stage->to, &byte, 1);
		assert_int_equal(byte, 'z');
	}
	assert_int_equal(events_now(stage->to, POLLIN) & POLLIN, 0);
}

static void repacking_without_another_pipe_changes_nothing(void **state)
{
	struct stage *stage = *state;
	slot_ref before;
	uint32_t slot;
	int scratch;

	send_text(stage, "stay");
	assert_int_equal(fill(stage), 4);
	before = stage->flow.pipe->ref;
	while (packer_take_slot(&stage->house->packer, &slot) == 0)
		;
	assert_int_equal(pipe_open_both_ends(&scratch), 0);
	assert_int_equal(flow_repack(&stage->flow, &stage->house->pipes, scratch),
			 -EBUSY);
	(void)close(scratch);
	assert_true(record_of(stage)->flows[0].pipe == before);
	move_all(stage);
	expect_text(stage->to, "stay");
}

/* ---- the next process ---- */

static void pending_bytes_are_delivered_by_the_next_process(void **state)
{
	struct stage *stage = *state;

	send_text(stage, "half");
	assert_int_equal(fill(stage), 4);
	change_process(stage);
	assert_int_equal(stage->flow.pending, 4);
	send_text(stage, " and half");
	move_all(stage);
	expect_text(stage->to, "half and half");
	expect_no_pipe(stage);
}

static void empty_pipe_that_is_still_lent_is_given_back(void **state)
{
	struct stage *stage = *state;
	char byte;

	send_text(stage, "x");
	assert_int_equal(fill(stage), 1);
	read_exactly(stage->flow.pipe->fd, &byte, 1);
	change_process(stage);
	assert_int_equal(stage->flow.pending, 0);
	send_text(stage, "y");
	move_all(stage);
	expect_text(stage->to, "y");
	expect_no_pipe(stage);
	assert_int_equal(stage->house->pipes.n_free, 1);
}

/* The count that a killed process had no time for. */
static void bytes_read_but_not_counted_are_counted_by_the_next_process(void **state)
{
	struct stage *stage = *state;

	send_text(stage, "12345");
	assert_int_equal(fill(stage), 5);
	record_of(stage)->flows[0].n_read = 0;
	change_process(stage);
	assert_int_equal(record_of(stage)->flows[0].n_read, 5);
	end_source(stage);
	change_process(stage);
	move_all(stage);
	assert_false(stage->source.failed);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	expect_text(stage->to, "12345");
	expect_end(stage->to);
}

/* ---- urgent bytes (TCP) ---- */

static void urgent_byte_is_carried_in_its_place(void **state)
{
	struct stage *stage = *state;

	send_text(stage, "before");
	send_urgent(stage, '!');
	send_text(stage, "behind");
	move_all(stage);
	expect_text(stage->to, "before!behind");
	send_urgent(stage, '?');
	move_all(stage);
	expect_text(stage->to, "?");
	assert_false(record_of(stage)->flags & SLOT_URGENT_0);
	assert_int_equal(record_of(stage)->flows[0].n_read, 14);
	expect_no_pipe(stage);
}

static void urgent_byte_before_the_end_is_carried(void **state)
{
	struct stage *stage = *state;

	send_text(stage, "before");
	send_urgent(stage, '!');
	end_source(stage);
	move_all(stage);
	expect_text(stage->to, "before!");
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	assert_false(stage->source.failed);
}

static void urgent_byte_alone_before_the_end_is_carried(void **state)
{
	struct stage *stage = *state;

	send_text(stage, "before");
	move_all(stage);
	send_urgent(stage, '!');
	end_source(stage);
	move_all(stage);
	expect_text(stage->to, "before!");
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	assert_false(stage->source.failed);
}

/* Which a peer can do that makes its own segments: no byte is at such a mark. */
static void mark_behind_the_end(struct stage *stage)
{
	if (urgent_point_at(stage->from, 2) < 0) {
		assert_int_equal(errno, EPERM);
		skip();
	}
	end_source(stage);
}

static void mark_behind_the_end_hides_no_end(void **state)
{
	struct stage *stage = *state;

	send_text(stage, "before");
	assert_int_equal(fill(stage), 6);
	mark_behind_the_end(stage);
	/* Where a pipe is lent, it is splice that learns of the end */
	assert_int_equal(fill(stage), 0);
	assert_int_equal(stage->flow.state, FLOW_ENDING);
	move_all(stage);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	assert_false(stage->source.failed);
	expect_text(stage->to, "before");
	expect_end(stage->to);
}

/* What has hung up is never asked of epoll again. */
static void mark_behind_the_end_of_what_hung_up_hides_no_end(void **state)
{
	struct stage *stage = *state;

	(void)must(shutdown(stage->source.fd, SHUT_WR));
	mark_behind_the_end(stage);
	peer_note_events(&stage->source, POLLHUP);
	assert_int_equal(flow_move(&stage->flow, &stage->house->pipes), FLOW_WAITS);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	expect_end(stage->to);
}

static void urgent_byte_before_a_reset_is_carried(void **state)
{
	struct stage *stage = *state;

	send_text(stage, "before");
	send_urgent(stage, '!');
	send_text(stage, "behind");
	wait_for_bytes(stage->source.fd, 13);
	reset_source(stage);
	move_all(stage);
	expect_text(stage->to, "before!behind");
	assert_true(stage->source.failed);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
}

static void urgent_byte_waits_where_the_pipe_is_full(void **state)
{
	struct stage *stage = *state;
	size_t n = fill_by_bytes(stage) + 1; /* one more is in the socket */
	char found[4096] = {0};

	assert_true(n < sizeof(found));
	send_urgent(stage, '!');
	assert_int_equal(fill(stage), -EAGAIN);
	assert_false(record_of(stage)->flags & SLOT_URGENT_0);
	move_all(stage);
	read_exactly(stage->to, found, n + 1);
	assert_int_equal(found[n], '!');
	assert_int_equal(found[n - 1], 'z');
}

/* ---- under a hail of signals ---- */

static void take_signal(int number)
{
	(void)number;
}

/* Sends signals to a thread for as long as it is wanted. */
struct hail {
	pthread_t from, to;
	_Atomic bool is_wanted, is_falling, is_over;
};

static void *rain(void *userdata)
{
	struct hail *hail = userdata;

	while (!hail->is_over) {
		hail->is_falling = hail->is_wanted;
		if (hail->is_falling)
			(void)pthread_kill(hail->to, SIGUSR1);
	}
	return NULL;
}

static void begin_hail(struct hail *hail)
{
	struct sigaction action = {.sa_handler = take_signal, .sa_flags = SA_RESTART};

	*hail = (struct hail){.to = pthread_self()};
	(void)must(sigaction(SIGUSR1, &action, NULL));
	assert_int_equal(pthread_create(&hail->from, NULL, rain, hail), 0);
}

static void end_hail(struct hail *hail)
{
	hail->is_over = true;
	assert_int_equal(pthread_join(hail->from, NULL), 0);
}

/* Waits until it has begun, or has ended. */
static void set_hail(struct hail *hail, bool is_wanted)
{
	hail->is_wanted = is_wanted;
	while (hail->is_falling != is_wanted)
		(void)sched_yield();
}

/* Where the byte is peeked, recv(2) may say EAGAIN to a thread that has a signal to take.
 */
static void urgent_byte_is_carried_once_under_signals(void **state)
{
	enum { ROUNDS = 3000 };
	struct stage *stage = *state;
	static struct hail hail; /* which goes on where an assertion fails */

	begin_hail(&hail);
	for (int i = 0; i < ROUNDS; i++) {
		send_urgent(stage, '!');
		set_hail(&hail, true);
		move_all(stage);
		set_hail(&hail, false);
		send_text(stage, ".");
		move_all(stage);
		expect_text(stage->to, "!.");
	}
	end_hail(&hail);
}

/* Where a process may end that has an urgent byte in hand. */
enum urgent_step {
	URGENT_ANNOUNCED, /* the ledger says so, and nothing has been done */
	URGENT_IN_BOTH,   /* written to the pipe, not yet taken from the socket */
	URGENT_PASSED,    /* taken, and only the ledger still says that it is in hand */
	URGENT_STEPS,
};

/* Does by hand what flow.c does, up to step; in_pipe bytes are pending already. */
static void pass_urgent_up_to(struct stage *stage, enum urgent_step step)
{
	struct ledger_slot *record = record_of(stage);
	struct socket_counts counts;
	char byte;

	assert_int_equal(socket_get_counts(stage->source.fd, &counts), 0);
	assert_true(socket_is_at_urgent(stage->source.fd));
	record->flows[0].urgent_at = counts.n_taken - (counts.has_fin ? 1 : 0);
	record->flows[0].urgent_pending = stage->flow.pending;
	record->flags |= SLOT_URGENT_0;
	if (step == URGENT_ANNOUNCED)
		return;
	assert_int_equal(recv(stage->source.fd, &byte, 1, MSG_PEEK), 1);
	write_exactly(stage->flow.pipe->fd, &byte, 1);
	if (step == URGENT_IN_BOTH)
		return;
	assert_int_equal(recv(stage->source.fd, &byte, 1, 0), 1);
}

/* "ab" before it and "yz" behind it; what_then ends the source, or does not. */
static void cut_urgent(struct stage *stage, enum urgent_step step,
		       void (*what_then)(struct stage *), bool before)
{
	send_text(stage, "ab");
	send_urgent(stage, '!');
	send_text(stage, "yz");
	wait_for_bytes(stage->source.fd, 5);
	if (before && what_then)
		what_then(stage);
	note_events(stage);
	assert_int_equal(flow_fill(&stage->flow, &stage->house->pipes, 100), 2);
	pass_urgent_up_to(stage, step);
	if (!before && what_then)
		what_then(stage);
	change_process(stage);
	assert_false(record_of(stage)->flags & SLOT_URGENT_0);
	move_all(stage);
	expect_text(stage->to, "ab!yz");
}

static void urgent_byte_in_hand_is_carried_once_wherever_it_is_cut(void **state)
{
	struct stage *stage = *state;

	for (unsigned i = 0; i < 4; i++)
		for (int step = URGENT_ANNOUNCED; step < URGENT_STEPS; step++)
			cut_urgent(stage, (enum urgent_step)step, NULL, false);
}

static void cut_and_ended(void **state, void (*what_then)(struct stage *), bool before)
{
	for (int step = URGENT_ANNOUNCED; step < URGENT_STEPS; step++) {
		struct stage *stage;

		cut_urgent(*state, (enum urgent_step)step, what_then, before);
		stage = *state;
		assert_int_equal(stage->flow.state, FLOW_ENDED);
		assert_int_equal(stage->source.failed, what_then == reset_source);
		(void)teardown(state);
		(void)setup_tcp(state);
	}
}

static void urgent_byte_in_hand_is_carried_once_before_the_end(void **state)
{
	cut_and_ended(state, end_source, false);
	cut_and_ended(state, end_source, true);
}

static void urgent_byte_in_hand_is_carried_once_before_a_reset(void **state)
{
	cut_and_ended(state, reset_source, false);
}

/* ---- everything at random ---- */

/*
 * Bytes in pieces of all sizes, urgent ones among them, a sink that is sometimes full,
 * and a process that ends after any step: each byte is there, once, in order.
 */
static void random_cuts_leave_the_stream_whole(struct stage *stage, bool with_urgent)
{
	enum { BYTES = 3000000 };
	uint64_t written = 0, read = 0;

	srandom(3);
	while (read < BYTES || read < written) {
		switch (random() % 8) {
		case 0:
		case 1:
		case 2:
			if (written < BYTES)
				written = write_pattern(stage->from, written,
							1 + (size_t)random() % 8192);
			break;
		case 3:
			if (with_urgent && written < BYTES &&
			    send(stage->from, (char[]){pattern(written)}, 1, MSG_OOB) ==
				    1)
				written++;
			break;
		case 4:
			change_process(stage);
			break;
		case 5:
			read = read_pattern(stage->to, read, 1 + (size_t)random() % 8192);
			break;
		default:
			(void)move(stage);
		}
	}
	assert_true(read == written);
	end_source(stage);
	change_process(stage);
	move_all(stage);
	assert_int_equal(stage->flow.state, FLOW_ENDED);
	expect_end(stage->to);
}

static void any_cuts_leave_the_stream_whole(void **state)
{
	random_cuts_leave_the_stream_whole(*state, false);
}

static void any_cuts_leave_a_stream_with_urgent_bytes_whole(void **state)
{
	random_cuts_leave_the_stream_whole(*state, true);
}

int main(void)
{
#define TCP(name) cmocka_unit_test_setup_teardown(name, setup_tcp, teardown)
#define BOTH(name)                                              \
	{"tcp_" #name, name, setup_tcp, teardown, NULL},        \
	{                                                       \
		"unix_" #name, name, setup_unix, teardown, NULL \
	}
	const struct CMUnitTest tests[] = {
		BOTH(bytes_move_from_source_to_sink),
		BOTH(idle_flow_holds_no_pipe_and_reads_nothing),
		BOTH(pipe_is_in_the_ledger_while_it_holds_bytes),
		BOTH(full_sink_holds_the_flow_until_there_is_room),
		TCP(much_data_uses_up_the_rounds),
		BOTH(without_a_pipe_nothing_is_read),
		BOTH(end_of_the_source_is_told_to_the_sink),
		BOTH(end_that_comes_alone_takes_no_pipe),
		cmocka_unit_test_setup_teardown(source_that_leaves_what_it_got_unread_is_lost,
						setup_unix, teardown),
		BOTH(fin_waits_for_pending_bytes),
		BOTH(end_may_be_told_again_by_the_next_process),
		TCP(reset_of_the_source_delivers_what_was_read_and_is_no_end),
		TCP(source_reset_by_the_last_acts_of_a_process_is_not_forgotten),
		BOTH(lost_sink_is_noted_and_what_comes_is_thrown_away),
		BOTH(killed_flow_discards_its_pipe_with_the_bytes),
		BOTH(peeked_bytes_stay_pending),
		BOTH(short_scratch_grows_where_it_may),
		BOTH(bytes_taken_by_hand_are_noted),
		TCP(repacking_makes_room_and_keeps_the_bytes),
		BOTH(repacking_without_another_pipe_changes_nothing),
		BOTH(pending_bytes_are_delivered_by_the_next_process),
		BOTH(empty_pipe_that_is_still_lent_is_given_back),
		TCP(bytes_read_but_not_counted_are_counted_by_the_next_process),
		TCP(urgent_byte_is_carried_in_its_place),
		TCP(urgent_byte_before_the_end_is_carried),
		TCP(urgent_byte_alone_before_the_end_is_carried),
		TCP(mark_behind_the_end_hides_no_end),
		TCP(mark_behind_the_end_of_what_hung_up_hides_no_end),
		TCP(urgent_byte_before_a_reset_is_carried),
		TCP(urgent_byte_waits_where_the_pipe_is_full),
		TCP(urgent_byte_is_carried_once_under_signals),
		TCP(urgent_byte_in_hand_is_carried_once_wherever_it_is_cut),
		TCP(urgent_byte_in_hand_is_carried_once_before_the_end),
		TCP(urgent_byte_in_hand_is_carried_once_before_a_reset),
		BOTH(any_cuts_leave_the_stream_whole),
		TCP(any_cuts_leave_a_stream_with_urgent_bytes_whole),
	};

	return UNIT_RUN("flow", tests);
}
