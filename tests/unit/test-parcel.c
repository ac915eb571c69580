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
	struct parcel_reader reader;
	unsigned n_fds_before;
};

static int setup(void **state)
{
	struct pair *pair = calloc(1, sizeof(*pair));

	assert_non_null(pair);
	pair->n_fds_before = count_fds();
	assert_int_equal(parcel_new_pair(&pair->send_fd, &pair->store_fd), 0);
	assert_int_equal(parcel_rewind(pair->store_fd, 0), 0);
	parcel_reader_init(&pair->reader, pair->store_fd);
	*state = pair;
	return 0;
}

static int teardown(void **state)
{
	struct pair *pair = *state;

	parcel_reader_done(&pair->reader);
	(void)fd_close(pair->send_fd);
	(void)fd_close(pair->store_fd);
	assert_int_equal(count_fds(), pair->n_fds_before);
	free(pair);
	return 0;
}

static struct label label_of(uint32_t slot, int n_fds)
{
	return (struct label){
		.version = LABEL_VERSION,
		.kind = SLOT_CONNECTION,
		.slot = slot,
		.generation = slot + 100,
		.n_fds = (uint32_t)n_fds,
	};
}

/* Adds an entry with one or two tokens: slot and slot + 1000. */
static void pack(struct parcel_pack *pack, uint32_t slot, int n_fds)
{
	struct parcel_entry entry = {
		.label = label_of(slot, n_fds),
		.fds = {token_new(slot), -EBADF},
		.n_fds = n_fds,
	};

	if (n_fds > 1)
		entry.fds[1] = token_new(slot + 1000);
	parcel_pack_add(pack, &entry);
	assert_int_equal(entry.n_fds, 0);
	assert_int_equal(entry.fds[0], -EBADF);
}

static void put_pack(const struct pair *pair, struct parcel_pack *pack)
{
	assert_int_equal(parcel_put(pair->send_fd, pack->labels, pack->n_entries,
				    pack->fds),
			 0);
	parcel_pack_done(pack);
}

static void put(const struct pair *pair, uint32_t slot, int n_fds)
{
	struct parcel_pack one = {.n_entries = 0};

	pack(&one, slot, n_fds);
	put_pack(pair, &one);
}

static void expect_entry(struct pair *pair, uint32_t slot, int n_fds)
{
	struct parcel_entry entry;

	assert_int_equal(parcel_peek(&pair->reader, &entry), PARCEL_ENTRY);
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

static void expect_end_of_entries(struct pair *pair)
{
	struct parcel_entry entry;

	assert_int_equal(parcel_peek(&pair->reader, &entry), PARCEL_END);
	assert_int_equal(entry.n_fds, 0);
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

/* Entries of one message, of which the last has one fd and the others two. */
static void put_packed(const struct pair *pair, uint32_t first, uint32_t n)
{
	struct parcel_pack many = {.n_entries = 0};

	for (uint32_t i = 0; i < n; i++)
		pack(&many, first + i, i + 1 < n ? 2 : 1);
	put_pack(pair, &many);
}

static void packed_entries_are_peeked_one_by_one(void **state)
{
	struct pair *pair = *state;

	put(pair, 1, 1);
	put_packed(pair, 10, 3);
	put(pair, 2, 2);
	expect_entry(pair, 1, 1);
	assert_false(parcel_has_more(&pair->reader));
	for (uint32_t i = 0; i < 3; i++) {
		expect_entry(pair, 10 + i, i < 2 ? 2 : 1);
		assert_int_equal(parcel_has_more(&pair->reader), i < 2);
	}
	expect_entry(pair, 2, 2);
	expect_end_of_entries(pair);
	assert_int_equal(pair->reader.n_messages, 3);
}

static void largest_pack_fits(void **state)
{
	struct parcel_pack many = {.n_entries = 0};
	struct pair *pair = *state;

	for (uint32_t i = 0; i < PARCEL_PACK_MAX; i++)
		pack(&many, i, PARCEL_FDS_MAX);
	assert_int_equal(many.n_fds, PARCEL_PACK_FDS_MAX);
	put_pack(pair, &many);
	put(pair, PARCEL_PACK_MAX, 1);
	for (uint32_t i = 0; i < PARCEL_PACK_MAX; i++)
		expect_entry(pair, i, PARCEL_FDS_MAX);
	expect_entry(pair, PARCEL_PACK_MAX, 1);
	expect_end_of_entries(pair);
}

/* teardown() counts the fds that are open then */
static void what_was_peeked_and_not_taken_is_closed(void **state)
{
	struct pair *pair = *state;

	put_packed(pair, 10, 4);
	put(pair, 1, 2);
	expect_entry(pair, 10, 2);
	parcel_reader_done(&pair->reader);
	assert_false(parcel_has_more(&pair->reader));
	expect_entry(pair, 1, 2);
}

static void expect_labels(const struct pair *pair, uint32_t first, size_t n_expected)
{
	struct label labels[PARCEL_PACK_MAX];
	unsigned n_fds = count_fds();
	size_t n = 0;

	assert_int_equal(parcel_peek_labels(pair->store_fd, labels, &n), PARCEL_ENTRY);
	assert_int_equal(n, n_expected);
	for (uint32_t i = 0; i < n; i++) {
		assert_int_equal(labels[i].slot, first + i);
		assert_int_equal(labels[i].generation, first + i + 100);
	}
	assert_int_equal(count_fds(), n_fds);
}

static void labels_are_peeked_without_fds(void **state)
{
	struct label labels[PARCEL_PACK_MAX];
	struct pair *pair = *state;
	size_t n;

	assert_int_equal(parcel_peek_labels(pair->store_fd, labels, &n), PARCEL_END);
	put(pair, 1, 2);
	put_packed(pair, 2, 3);
	put(pair, 5, 2);
	expect_labels(pair, 1, 1);
	expect_labels(pair, 2, 3);
	assert_int_equal(parcel_step_back(pair->store_fd, 3), 0);
	expect_entry(pair, 2, 2);
	expect_entry(pair, 3, 2);
	expect_entry(pair, 4, 1);
	expect_labels(pair, 5, 1);
	assert_int_equal(parcel_peek_labels(pair->store_fd, labels, &n), PARCEL_END);
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
	struct label label = label_of(1, 2);
	int token = token_new(1), r = 0;
	unsigned n = 0;

	for (; r == 0 && n < 2 * PARCEL_ENTRIES_MAX; n++)
		r = parcel_put(pair->send_fd, &label, 1, (int[]){token, token});
	assert_int_equal(r, -EAGAIN);
	assert_true(n > PARCEL_ENTRIES_MAX);
	(void)close(token);
}

static void put_without_a_receiver_fails(void **state)
{
	struct pair *pair = *state;
	struct label label = label_of(1, 1);
	int token = token_new(1), r;

	pair->store_fd = fd_close(pair->store_fd);
	r = parcel_put(pair->send_fd, &label, 1, &token);
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

static void expect_damaged(struct pair *pair, int n_fds)
{
	struct parcel_entry entry;

	assert_int_equal(parcel_peek(&pair->reader, &entry), PARCEL_DAMAGED);
	assert_int_equal(entry.n_fds, n_fds);
	assert_int_equal(entry.label.version, 0);
	parcel_entry_done(&entry);
}

static void messages_that_are_no_entries_are_damaged(void **state)
{
	struct pair *pair = *state;
	struct label label = label_of(1, 1);
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
	expect_damaged(pair, 2); /* what is too much for one is more of them */
	expect_damaged(pair, 1);
	for (int i = 0; i < 8; i++)
		expect_damaged(pair, 2);
	expect_damaged(pair, 1);
	expect_entry(pair, 7, 1);
	expect_end_of_entries(pair);
	(void)close(token);
}

/* Whose fds are whose nobody can tell any more. */
static void pack_with_a_damaged_label_is_damaged(void **state)
{
	struct label labels[3];
	struct pair *pair = *state;
	int token = token_new(1);

	for (uint32_t i = 0; i < 3; i++)
		labels[i] = label_of(i, 1);
	labels[1].n_fds = 2;
	send_raw(pair, labels, sizeof(labels), token, 3); /* fewer than they say */
	labels[1].n_fds = 0;
	labels[2].n_fds = 2;
	send_raw(pair, labels, sizeof(labels), token, 3); /* an entry of nothing */
	put(pair, 7, 1);
	for (int i = 0; i < 2; i++) {
		expect_damaged(pair, 2);
		expect_damaged(pair, 1);
	}
	expect_entry(pair, 7, 1);
	expect_end_of_entries(pair);
	(void)close(token);
}

static void labels_of_other_sizes_are_damaged(void **state)
{
	struct pair *pair = *state;
	struct label labels[PARCEL_PACK_MAX];
	char longer[sizeof(struct label) + 5] = "", longest[sizeof(labels) + 5] = "";
	int token = token_new(1);
	size_t n;

	send_raw(pair, longer, sizeof(struct label) - 1, token, 1);
	send_raw(pair, longer, sizeof(longer), token, 1);
	send_raw(pair, longest, sizeof(longest), token, 1);
	put(pair, 7, 1);
	for (int i = 0; i < 4; i++) /* the longest is two */
		assert_int_equal(parcel_peek_labels(pair->store_fd, labels, &n),
				 PARCEL_DAMAGED);
	expect_labels(pair, 7, 1);
	send_raw(pair, "", 0, token, 1);
	assert_int_equal(parcel_peek_labels(pair->store_fd, labels, &n), -EBADMSG);
	(void)close(token);
}

/* A peek takes as many bytes as a pack has: the rest of the message is the next peek's. */
static void longer_messages_are_damaged_and_passed(void **state)
{
	struct pair *pair = *state;
	char data[2 * PARCEL_PACK_MAX * sizeof(struct label) + 5];
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
	assert_int_equal(parcel_peek(&pair->reader, &entry), -EBADMSG);
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
	put_packed(pair, 2, 3);
	put(pair, 5, 1);
	expect_entry(pair, 1, 1);
	before = set_file_limit((rlim_t)next_fd() + 4); /* of five */
	for (size_t i = 0; i < N_ELEMENTS(r); i++)
		r[i] = parcel_peek(&pair->reader, &entry);
	(void)set_file_limit(before);
	for (size_t i = 0; i < N_ELEMENTS(r); i++)
		assert_int_equal(r[i], PARCEL_CROWDED);
	assert_int_equal(entry.n_fds, 0);
	expect_entry(pair, 2, 2);
	expect_entry(pair, 3, 2);
	expect_entry(pair, 4, 1);
	expect_entry(pair, 5, 1);
	expect_end_of_entries(pair);
}

/* ---- labels ---- */

static void labels_are_checked_against_the_ledger(void **state)
{
	struct label good = label_of(SLOTS - 1, 2), label;

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
	struct label label = label_of(1, 1);

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
		TEST(packed_entries_are_peeked_one_by_one),
		TEST(largest_pack_fits),
		TEST(what_was_peeked_and_not_taken_is_closed),
		TEST(labels_are_peeked_without_fds),
		TEST(labels_of_other_sizes_are_damaged),
		TEST(rewinding_shows_everything_again),
		TEST(entries_outlive_their_sender),
		TEST(full_number_of_entries_fits),
		TEST(put_without_a_receiver_fails),
		TEST(messages_that_are_no_entries_are_damaged),
		TEST(pack_with_a_damaged_label_is_damaged),
		TEST(longer_messages_are_damaged_and_passed),
		TEST(empty_message_with_fds_is_an_error),
		TEST(what_is_no_socket_can_not_be_rewound),
		TEST(entry_without_room_is_peeked_again_when_there_is),
		TEST(labels_are_checked_against_the_ledger),
		TEST(pipe_has_one_fd),
	};

	return UNIT_RUN("parcel", tests);
}
