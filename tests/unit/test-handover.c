/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "holdfastd/handover.h"

#define PATIENCE_USEC (UNIT_PATIENCE_MSEC * USEC_PER_MSEC)

struct ends {
	int ours;
	int theirs;
	unsigned n_fds_before;
};

static int setup(void **state)
{
	struct ends *ends = calloc(1, sizeof(*ends));
	int fds[2];

	assert_non_null(ends);
	ends->n_fds_before = count_fds();
	(void)must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
			      fds));
	ends->ours = fds[0];
	ends->theirs = fds[1];
	*state = ends;
	return 0;
}

static int teardown(void **state)
{
	struct ends *ends = *state;
	unsigned n_before = ends->n_fds_before;

	(void)fd_close(ends->ours);
	(void)fd_close(ends->theirs);
	free(ends);
	assert_int_equal(count_fds(), n_before);
	return 0;
}

static void send_number(int fd, uint64_t number)
{
	struct handover message = {.type = HANDOVER_READY, .number = number};

	assert_int_equal(handover_send(fd, &message, NULL), 0);
}

static int receive(int fd, struct handover *ret_message)
{
	int fds[HANDOVER_FDS_MAX];
	int r = handover_receive(fd, 0, ret_message, fds);

	if (r == HANDOVER_MESSAGE)
		assert_int_equal(ret_message->n_fds, 0);
	return r;
}

static void expect_number(int fd, uint64_t number)
{
	struct handover message;

	assert_int_equal(receive(fd, &message), HANDOVER_MESSAGE);
	assert_int_equal(message.type, HANDOVER_READY);
	assert_int_equal(message.number, number);
}

static void expect_nothing_but(int fd, int expected)
{
	struct handover message;

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(receive(fd, &message), expected);
}

/* ---- what is said is heard ---- */

static void fill(struct handover *message, uint32_t n_fds, uint32_t n_parcels)
{
	*message = (struct handover){
		.type = HANDOVER_PARCELS,
		.n_fds = n_fds,
		.n_parcels = n_parcels,
		.number = UINT64_MAX - 3,
		.usec = 0x123456789abcdef0,
	};
	for (uint32_t i = 0; i < HANDOVER_FDS_MAX; i++)
		message->parcels[i] = i * 77;
}

/* Sends so many fds of their own files, and receives them. */
static void expect_round_trip(const struct ends *ends, uint32_t n_fds)
{
	struct handover sent, message;
	int sent_fds[HANDOVER_FDS_MAX] = {0}, fds[HANDOVER_FDS_MAX];

	fill(&sent, n_fds, n_fds);
	for (uint32_t i = 0; i < n_fds; i++)
		sent_fds[i] = token_new(i);
	assert_int_equal(handover_send(ends->ours, &sent, sent_fds), 0);
	for (uint32_t i = 0; i < n_fds; i++)
		(void)close(sent_fds[i]);
	assert_int_equal(handover_receive(ends->theirs, 0, &message, fds),
			 HANDOVER_MESSAGE);
	assert_int_equal(message.version, HANDOVER_VERSION);
	sent.version = HANDOVER_VERSION;
	assert_memory_equal(&message, &sent, sizeof(message));
	for (uint32_t i = 0; i < n_fds; i++) {
		assert_int_equal(token_id(fds[i]), i);
		assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
	}
	handover_close_fds(&message, fds);
}

static void messages_arrive_with_their_fds(void **state)
{
	const struct ends *ends = *state;

	expect_round_trip(ends, 0);
	expect_round_trip(ends, 1);
	expect_round_trip(ends, 2);
	expect_round_trip(ends, HANDOVER_FDS_MAX);
	expect_nothing_but(ends->theirs, -ETIME);
}

static void messages_keep_their_order(void **state)
{
	const struct ends *ends = *state;

	for (uint64_t i = 0; i < 40; i++)
		send_number(ends->ours, i);
	for (uint64_t i = 0; i < 40; i++)
		expect_number(ends->theirs, i);
}

static void both_may_speak_at_once(void **state)
{
	const struct ends *ends = *state;

	send_number(ends->ours, 1);
	send_number(ends->theirs, 2);
	expect_number(ends->ours, 2);
	expect_number(ends->theirs, 1);
}

/* ---- what is no message ---- */

/* Sends bytes and fds as another program might, and expects them to be refused. */
static void expect_refused(const struct ends *ends, const void *bytes, size_t size,
			   uint32_t n_fds, int expected)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * (HANDOVER_FDS_MAX + 1))];
	} control = {0};
	char copy[sizeof(struct handover) + 1];
	struct iovec iov = {.iov_base = copy, .iov_len = size};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
	int token = token_new(0), fds[HANDOVER_FDS_MAX];
	unsigned n_open = count_fds();
	struct handover message;

	memcpy(copy, bytes, size);
	if (n_fds > 0) {
		struct cmsghdr *cmsg;

		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		cmsg = CMSG_FIRSTHDR(&header);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		for (uint32_t i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &token, sizeof(token));
	}
	(void)must(sendmsg(ends->ours, &header, MSG_NOSIGNAL));
	assert_int_equal(handover_receive(ends->theirs, 0, &message, fds), expected);
	assert_int_equal(count_fds(), n_open);
	(void)close(token);
	/* What comes after it is none the worse for it */
	send_number(ends->ours, 7);
	expect_number(ends->theirs, 7);
}

static void other_version_is_told_apart(void **state)
{
	const struct ends *ends = *state;
	char bytes[sizeof(struct handover) + 1] = {0};
	uint32_t version = HANDOVER_VERSION + 1;

	memcpy(bytes, &version, sizeof(version));
	/* Of another version nothing else is known, not even its size */
	expect_refused(ends, bytes, sizeof(struct handover), 0, -EPROTO);
	expect_refused(ends, bytes, sizeof(struct handover), 2, -EPROTO);
	expect_refused(ends, bytes, sizeof(version), 1, -EPROTO);
	expect_refused(ends, bytes, sizeof(bytes), 1, -EPROTO);
	version = 0;
	memcpy(bytes, &version, sizeof(version));
	expect_refused(ends, bytes, sizeof(struct handover), 0, -EPROTO);
}

static void wrong_sizes_are_refused(void **state)
{
	static const size_t sizes[] = {1, 3, 4, sizeof(struct handover) - 1,
				       sizeof(struct handover) + 1};
	struct handover message = {.version = HANDOVER_VERSION};
	char bytes[sizeof(message) + 1] = {0};

	for (uint32_t n_fds = 0; n_fds < 3; n_fds++) {
		message.n_fds = n_fds;
		memcpy(bytes, &message, sizeof(message));
		for (size_t i = 0; i < N_ELEMENTS(sizes); i++)
			expect_refused(*state, bytes, sizes[i], n_fds, -EBADMSG);
	}
}

static void empty_message_is_not_taken_for_the_end(void **state)
{
	expect_refused(*state, "", 0, 1, -EBADMSG);
	expect_refused(*state, "", 0, HANDOVER_FDS_MAX, -EBADMSG);
}

static void wrong_counts_are_refused(void **state)
{
	struct handover message = {.version = HANDOVER_VERSION, .n_fds = 2};

	expect_refused(*state, &message, sizeof(message), 0, -EBADMSG);
	expect_refused(*state, &message, sizeof(message), 1, -EBADMSG);
	expect_refused(*state, &message, sizeof(message), 3, -EBADMSG);
	message.n_fds = UINT32_MAX;
	expect_refused(*state, &message, sizeof(message), 1, -EBADMSG);
	message.n_fds = 1;
	message.n_parcels = HANDOVER_FDS_MAX + 1;
	expect_refused(*state, &message, sizeof(message), 1, -EBADMSG);
	message.n_parcels = UINT32_MAX;
	expect_refused(*state, &message, sizeof(message), 1, -EBADMSG);
}

static void too_many_fds_are_refused(void **state)
{
	struct handover message = {.version = HANDOVER_VERSION,
				   .n_fds = HANDOVER_FDS_MAX + 1};

	/* What does not fit is closed by the kernel, and looks as if there were no room */
	expect_refused(*state, &message, sizeof(message), HANDOVER_FDS_MAX + 1, -EMFILE);
}

/* ---- the end ---- */

static void end_is_told_after_what_was_said(void **state)
{
	struct ends *ends = *state;

	send_number(ends->theirs, 1);
	send_number(ends->theirs, 2);
	ends->theirs = fd_close(ends->theirs);
	expect_number(ends->ours, 1);
	expect_number(ends->ours, 2);
	expect_nothing_but(ends->ours, HANDOVER_GONE);
}

/* The kernel tells with ECONNRESET that something was left unread, before all else. */
static void unread_messages_do_not_hide_what_was_said(void **state)
{
	struct ends *ends = *state;

	send_number(ends->ours, 9);
	send_number(ends->theirs, 1);
	send_number(ends->theirs, 2);
	ends->theirs = fd_close(ends->theirs);
	expect_number(ends->ours, 1);
	expect_number(ends->ours, 2);
	expect_nothing_but(ends->ours, HANDOVER_GONE);
}

static void unread_message_alone_is_an_end_too(void **state)
{
	struct ends *ends = *state;
	struct handover message;
	int fds[HANDOVER_FDS_MAX];

	send_number(ends->ours, 9);
	ends->theirs = fd_close(ends->theirs);
	assert_int_equal(handover_receive(ends->ours, time_now_usec() + PATIENCE_USEC,
					  &message, fds),
			 HANDOVER_GONE);
}

static void sending_to_nobody_is_epipe(void **state)
{
	struct ends *ends = *state;
	struct handover message = {.type = HANDOVER_READY};

	ends->theirs = fd_close(ends->theirs);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(handover_send(ends->ours, &message, NULL), -EPIPE);
	expect_nothing_but(ends->ours, HANDOVER_GONE);
}

static void sending_to_one_that_left_messages_unread_is_epipe(void **state)
{
	struct ends *ends = *state;
	struct handover message = {.type = HANDOVER_READY};

	send_number(ends->ours, 9);
	send_number(ends->theirs, 1);
	ends->theirs = fd_close(ends->theirs);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(handover_send(ends->ours, &message, NULL), -EPIPE);
	expect_number(ends->ours, 1);
	expect_nothing_but(ends->ours, HANDOVER_GONE);
}

static void one_that_never_reads_is_not_waited_for(void **state)
{
	const struct ends *ends = *state;
	struct handover message = {.type = HANDOVER_READY};
	unsigned n = 0;
	int r;

	while ((r = handover_send(ends->ours, &message, NULL)) == 0)
		n++;
	assert_int_equal(r, -EAGAIN);
	/* What a takeover says before it is listened to: all parcels, and some more */
	assert_true(n > 2 * 4094 / HANDOVER_FDS_MAX + 16);
}

/* ---- time ---- */

static void nothing_comes_in_no_time(void **state)
{
	const struct ends *ends = *state;

	expect_nothing_but(ends->ours, -ETIME);
	send_number(ends->theirs, 3);
	expect_number(ends->ours, 3);
	expect_nothing_but(ends->ours, -ETIME);
}

static void wait_is_over_at_its_time(void **state)
{
	enum { WAIT_USEC = 20000 };
	const struct ends *ends = *state;
	uint64_t began = time_now_usec();
	struct handover message;
	int fds[HANDOVER_FDS_MAX];

	assert_int_equal(handover_receive(ends->ours, began + WAIT_USEC, &message, fds),
			 -ETIME);
	assert_true(time_now_usec() - began >= WAIT_USEC);
}

static void *speak_late(void *userdata)
{
	const struct ends *ends = userdata;

	/* What the other one has said, it has said before it waits */
	(void)wait_for(ends->theirs, POLLIN);
	send_number(ends->theirs, 5);
	return NULL;
}

static void message_ends_the_wait(void **state)
{
	struct ends *ends = *state;
	struct handover message;
	int fds[HANDOVER_FDS_MAX];
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, speak_late, ends), 0);
	send_number(ends->ours, 4);
	assert_int_equal(handover_receive(ends->ours, time_now_usec() + PATIENCE_USEC,
					  &message, fds),
			 HANDOVER_MESSAGE);
	assert_int_equal(message.number, 5);
	pthread_join(thread, NULL);
	expect_number(ends->theirs, 4);
}

/* ---- no room for the fds ---- */

static void without_room_for_the_fds_none_is_left_open(void **state)
{
	const struct ends *ends = *state;

	for (unsigned room = 0; room < 4; room++) {
		struct handover sent = {.type = HANDOVER_PARCELS, .n_fds = 4}, message;
		int token = token_new(1), fds[HANDOVER_FDS_MAX];
		unsigned n_open = count_fds();
		rlim_t before;
		int r;

		assert_int_equal(handover_send(ends->ours, &sent,
					       (int[]){token, token, token, token}),
				 0);
		before = leave_room_for(room);
		r = handover_receive(ends->theirs, 0, &message, fds);
		restore_room(before);
		assert_int_equal(r, -EMFILE);
		assert_int_equal(count_fds(), n_open);
		(void)close(token);
	}
	expect_nothing_but(ends->theirs, -ETIME);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(messages_arrive_with_their_fds),
		TEST(messages_keep_their_order),
		TEST(both_may_speak_at_once),
		TEST(other_version_is_told_apart),
		TEST(wrong_sizes_are_refused),
		TEST(empty_message_is_not_taken_for_the_end),
		TEST(wrong_counts_are_refused),
		TEST(too_many_fds_are_refused),
		TEST(end_is_told_after_what_was_said),
		TEST(unread_messages_do_not_hide_what_was_said),
		TEST(unread_message_alone_is_an_end_too),
		TEST(sending_to_nobody_is_epipe),
		TEST(sending_to_one_that_left_messages_unread_is_epipe),
		TEST(one_that_never_reads_is_not_waited_for),
		TEST(nothing_comes_in_no_time),
		TEST(wait_is_over_at_its_time),
		TEST(message_ends_the_wait),
		TEST(without_room_for_the_fds_none_is_left_open),
	};

	return UNIT_RUN("handover", tests);
}
