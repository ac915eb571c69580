/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "vault/parcel.h"

#define SLOTS 1000

struct pair {
	int send_fd;
	int store_fd;
	unsigned n_fds_before;
};

static int setup(void **state)
{
	struct pair *pair = calloc(1, sizeof(*pair));

	assert_non_null(pair);
	pair->n_fds_before = count_fds();
	assert_int_equal(parcel_new_pair(&pair->send_fd, &pair->store_fd), 0);
	assert_int_equal(parcel_rewind(pair->store_fd, 0), 0);
	*state = pair;
	return 0;
}

static int teardown(void **state)
{
	struct pair *pair = *state;

	(void)fd_close(pair->send_fd);
	(void)fd_close(pair->store_fd);
	assert_int_equal(count_fds(), pair->n_fds_before);
	free(pair);
	return 0;
}

static struct label label_of(uint32_t slot)
{
	return (struct label){
		.version = LABEL_VERSION,
		.kind = SLOT_CONNECTION,
		.slot = slot,
		.generation = slot + 100,
	};
}

/* Puts an entry with one or two tokens: slot and slot + 1000. */
static void put(const struct pair *pair, uint32_t slot, int n_fds)
{
	struct label label = label_of(slot);
	int fds[PARCEL_FDS_MAX] = {token_new(slot), token_new(slot + 1000)};

	assert_int_equal(parcel_put(pair->send_fd, &label, fds, n_fds), 0);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void expect_entry(const struct pair *pair, uint32_t slot, int n_fds)
{
	struct parcel_entry entry;

	assert_int_equal(parcel_peek(pair->store_fd, &entry), PARCEL_ENTRY);
	assert_int_equal(entry.label.slot, slot);
	assert_int_equal(entry.label.generation, slot + 100);
	assert_int_equal(entry.label.n_fds, n_fds);
	assert_int_equal(entry.n_fds, n_fds);
	for (int i = 0; i < n_fds; i++) {
		assert_int_equal(token_id(entry.fds[i]), slot + 1000 * (uint32_t)i);
		assert_true(fcntl(entry.fds[i], F_GETFD) & FD_CLOEXEC);
	}
	if (n_fds < PARCEL_FDS_MAX)
		assert_int_equal(entry.fds[n_fds], -EBADF);
	parcel_entry_done(&entry);
}

static void expect_end_of_entries(const struct pair *pair)
{
	struct parcel_entry entry;

	assert_int_equal(parcel_peek(pair->store_fd, &entry), PARCEL_END);
}

static void entries_are_peeked_in_order_with_their_fds(void **state)
{
	struct pair *pair = *state;

	expect_end_of_entries(pair);
	put(pair, 1, 2);
	put(pair, 2, 1);
	expect_entry(pair, 1, 2);
	expect_entry(pair, 2, 1);
	expect_end_of_entries(pair);
	put(pair, 3, 1);
	expect_entry(pair, 3, 1);
	expect_end_of_entries(pair);
}

static void expect_label(const struct pair *pair, uint32_t slot)
{
	unsigned n_fds = count_fds();
	struct label label;

	assert_int_equal(parcel_peek_label(pair->store_fd, &label), PARCEL_ENTRY);
	assert_int_equal(label.slot, slot);
	assert_int_equal(label.generation, slot + 100);
	assert_int_equal(count_fds(), n_fds);
}

static void labels_are_peeked_without_fds(void **state)
{
	struct pair *pair = *state;
	struct label label;

	assert_int_equal(parcel_peek_label(pair->store_fd, &label), PARCEL_END);
	put(pair, 1, 2);
	put(pair, 2, 1);
	put(pair, 3, 2);
	expect_label(pair, 1);
	expect_label(pair, 2);
	assert_int_equal(parcel_step_back(pair->store_fd), 0);
	expect_entry(pair, 2, 1);
	expect_label(pair, 3);
	assert_int_equal(parcel_peek_label(pair->store_fd, &label), PARCEL_END);
}

static void rewinding_shows_everything_again(void **state)
{
	struct pair *pair = *state;

	put(pair, 1, 1);
	put(pair, 2, 2);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(parcel_rewind(pair->store_fd, 0), 0);
		expect_entry(pair, 1, 1);
		expect_entry(pair, 2, 2);
		expect_end_of_entries(pair);
	}
}

static void entries_outlive_their_sender(void **state)
{
	struct pair *pair = *state;

	put(pair, 1, 1);
	put(pair, 2, 1);
	pair->send_fd = fd_close(pair->send_fd);
	expect_entry(pair, 1, 1);
	expect_entry(pair, 2, 1);
	expect_end_of_entries(pair);
	expect_end_of_entries(pair);
}

static void full_number_of_entries_fits(void **state)
{
	struct pair *pair = *state;
	struct label label = label_of(1);
	int token = token_new(1), r = 0;
	unsigned n = 0;

	for (; r == 0 && n < 2 * PARCEL_ENTRIES_MAX; n++)
		r = parcel_put(pair->send_fd, &label, (int[]){token, token}, 2);
	assert_int_equal(r, -EAGAIN);
	assert_true(n > PARCEL_ENTRIES_MAX);
	(void)close(token);
}

static void put_without_a_receiver_fails(void **state)
{
	struct pair *pair = *state;
	struct label label = label_of(1);
	int token = token_new(1), r;

	pair->store_fd = fd_close(pair->store_fd);
	r = parcel_put(pair->send_fd, &label, &token, 1);
	assert_true(r == -EPIPE || r == -ECONNREFUSED || r == -ECONNRESET);
	(void)close(token);
}

/* ---- what others may have put ---- */

static void send_raw(const struct pair *pair, const void *data, size_t size, int fd,
		     size_t n)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * 16)];
	} control = {0};
	struct iovec iov = {.iov_len = size};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	memcpy(&iov.iov_base, &data, sizeof(data)); /* sendmsg() only reads it */
	if (n > 0) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(n * sizeof(int));
		control.header = (struct cmsghdr){
			.cmsg_level = SOL_SOCKET,
			.cmsg_type = SCM_RIGHTS,
			.cmsg_len = CMSG_LEN(n * sizeof(int)),
		};
		for (size_t i = 0; i < n; i++)
			memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &fd,
			       sizeof(fd));
	}
	assert_int_equal(sendmsg(pair->send_fd, &message, 0), size);
}

static void expect_damaged(const struct pair *pair, int n_fds)
{
	struct parcel_entry entry;

	assert_int_equal(parcel_peek(pair->store_fd, &entry), PARCEL_DAMAGED);
	assert_int_equal(entry.n_fds, n_fds);
	assert_int_equal(entry.label.version, 0);
	parcel_entry_done(&entry);
}

static void messages_that_are_no_entries_are_damaged(void **state)
{
	struct pair *pair = *state;
	struct label label = label_of(1);
	int token = token_new(1);

	label.n_fds = 1;
	send_raw(pair, &label, sizeof(label), -1, 0);        /* no fds at all */
	send_raw(pair, &label, sizeof(label) - 1, token, 1); /* too short */
	label.n_fds = 2;
	send_raw(pair, &label, sizeof(label), token, 1); /* fewer than it says */
	label.n_fds = 3;
	send_raw(pair, &label, sizeof(label), token, 3); /* more than an entry has */
	send_raw(pair, &label, sizeof(label), token, 16);
	label.n_fds = 1;
	label.version = 0;
	send_raw(pair, &label, sizeof(label), token, 1);
	put(pair, 7, 1);

	expect_damaged(pair, 0);
	expect_damaged(pair, 1);
	expect_damaged(pair, 1);
	expect_damaged(pair, 2);
	expect_damaged(pair, 2);
	expect_damaged(pair, 1);
	expect_entry(pair, 7, 1);
	expect_end_of_entries(pair);
	(void)close(token);
}

static void labels_of_other_sizes_are_damaged(void **state)
{
	struct pair *pair = *state;
	struct label label = label_of(1);
	char longer[sizeof(label) + 5] = "";
	int token = token_new(1);

	send_raw(pair, &label, sizeof(label) - 1, token, 1);
	send_raw(pair, longer, sizeof(longer), token, 1);
	put(pair, 7, 1);
	for (int i = 0; i < 3; i++) /* the longer one is two */
		assert_int_equal(parcel_peek_label(pair->store_fd, &label),
				 PARCEL_DAMAGED);
	expect_label(pair, 7);
	send_raw(pair, "", 0, token, 1);
	assert_int_equal(parcel_peek_label(pair->store_fd, &label), -EBADMSG);
	(void)close(token);
}

/* A peek takes as many bytes as a label has: the rest of the message is the next peek's. */
static void longer_messages_are_damaged_and_passed(void **state)
{
	struct pair *pair = *state;
	char data[2 * sizeof(struct label) + 5];
	int token = token_new(1);

	memset(data, 0, sizeof(data));
	send_raw(pair, data, sizeof(data), token, 1);
	put(pair, 7, 1);
	for (int i = 0; i < 3; i++)
		expect_damaged(pair, 1);
	expect_entry(pair, 7, 1);
	expect_end_of_entries(pair);
	(void)close(token);
}

static void empty_message_with_fds_is_an_error(void **state)
{
	struct pair *pair = *state;
	struct parcel_entry entry;
	int token = token_new(1);

	send_raw(pair, "", 0, token, 1);
	assert_int_equal(parcel_peek(pair->store_fd, &entry), -EBADMSG);
	(void)close(token);
}

static void what_is_no_socket_can_not_be_rewound(void **state)
{
	int token = token_new(1);

	(void)state;
	assert_int_equal(parcel_rewind(token, 0), -ENOTSOCK);
	(void)close(token);
}

/* ---- no room for the fds ---- */

static rlim_t set_file_limit(rlim_t limit)
{
	struct rlimit files;
	rlim_t before;

	(void)must(getrlimit(RLIMIT_NOFILE, &files));
	before = files.rlim_cur;
	files.rlim_cur = limit;
	(void)must(setrlimit(RLIMIT_NOFILE, &files));
	return before;
}

/* The lowest free number is what the next fd gets. */
static int next_fd(void)
{
	int fd = token_new(0);

	(void)close(fd);
	return fd;
}

static void entry_without_room_is_peeked_again_when_there_is(void **state)
{
	struct pair *pair = *state;
	struct parcel_entry entry;
	rlim_t before;
	int r[3];

	put(pair, 1, 1);
	put(pair, 2, 2);
	put(pair, 3, 1);
	expect_entry(pair, 1, 1);
	before = set_file_limit((rlim_t)next_fd() + 1);
	for (size_t i = 0; i < N_ELEMENTS(r); i++)
		r[i] = parcel_peek(pair->store_fd, &entry);
	(void)set_file_limit(before);
	for (size_t i = 0; i < N_ELEMENTS(r); i++)
		assert_int_equal(r[i], PARCEL_CROWDED);
	assert_int_equal(entry.n_fds, 0);
	expect_entry(pair, 2, 2);
	expect_entry(pair, 3, 1);
	expect_end_of_entries(pair);
}

/* ---- labels ---- */

static void labels_are_checked_against_the_ledger(void **state)
{
	struct label good = label_of(SLOTS - 1), label;

	(void)state;
	good.n_fds = 2;
	assert_true(label_is_sane(&good, SLOTS));
	label = good;
	label.slot = SLOTS;
	assert_false(label_is_sane(&label, SLOTS));
	label.slot = UINT32_MAX;
	assert_false(label_is_sane(&label, SLOTS));
	label = good;
	label.version = LABEL_VERSION + 1;
	assert_false(label_is_sane(&label, SLOTS));
	for (unsigned bit = 0; bit < 32; bit++) {
		label = good;
		label.kind ^= 1u << bit;
		assert_false(label_is_sane(&label, SLOTS));
	}
	label = good;
	label.kind = SLOT_FREE;
	assert_false(label_is_sane(&label, SLOTS));
}

static void pipe_has_one_fd(void **state)
{
	struct label label = label_of(1);

	(void)state;
	label.kind = SLOT_PIPE;
	label.n_fds = 1;
	assert_true(label_is_sane(&label, SLOTS));
	label.n_fds = 2;
	assert_false(label_is_sane(&label, SLOTS));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(entries_are_peeked_in_order_with_their_fds),
		TEST(labels_are_peeked_without_fds),
		TEST(labels_of_other_sizes_are_damaged),
		TEST(rewinding_shows_everything_again),
		TEST(entries_outlive_their_sender),
		TEST(full_number_of_entries_fits),
		TEST(put_without_a_receiver_fails),
		TEST(messages_that_are_no_entries_are_damaged),
		TEST(longer_messages_are_damaged_and_passed),
		TEST(empty_message_with_fds_is_an_error),
		TEST(what_is_no_socket_can_not_be_rewound),
		TEST(entry_without_room_is_peeked_again_when_there_is),
		TEST(labels_are_checked_against_the_ledger),
		TEST(pipe_has_one_fd),
	};

	return UNIT_RUN("parcel", tests);
}
