/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/pipe.h"
#include "house.h"

static struct ledger_slot *slot_of(const struct house *house,
				   const struct pool_pipe *pipe)
{
	return &house->vault->ledger.slots[slot_ref_slot(pipe->ref)];
}

static struct pool_pipe *borrow(struct house *house)
{
	struct pool_pipe *pipe = NULL;
	int r;

	while ((r = pipe_pool_borrow(&house->pipes, &pipe)) == -EBUSY)
		house_dispatch(house);
	assert_int_equal(r, 0);
	return pipe;
}

static uint32_t count_pipe_slots(const struct house *house)
{
	uint32_t n = 0;

	for (uint32_t slot = 0; slot < house->n_slots; slot++)
		n += house->vault->ledger.slots[slot].state == SLOT_PIPE;
	return n;
}

static void lent_pipe_is_empty_parked_and_of_one_fd(void **state)
{
	struct house *house = *state;
	struct pool_pipe *pipe = borrow(house);
	size_t pending = 42;

	assert_int_equal(pipe_get_pending(pipe->fd, &pending), 0);
	assert_int_equal(pending, 0);
	assert_int_equal(slot_of(house, pipe)->state, SLOT_PIPE);
	assert_int_equal(slot_of(house, pipe)->generation,
			 slot_ref_generation(pipe->ref));
	assert_int_not_equal(house->vault->locations[slot_ref_slot(pipe->ref)], 0);
	assert_true(fcntl(pipe->fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(pipe->fd, F_GETFD) & FD_CLOEXEC);
	write_exactly(pipe->fd, "through", 7);
	assert_int_equal(pipe_get_pending(pipe->fd, &pending), 0);
	assert_int_equal(pending, 7);
	expect_text(pipe->fd, "through");
	pipe_pool_return(&house->pipes, pipe);
}

static void returned_pipe_is_lent_again(void **state)
{
	struct house *house = *state;
	struct pool_pipe *pipe = borrow(house);

	pipe_pool_return(&house->pipes, pipe);
	assert_int_equal(house->pipes.n_free, 1);
	assert_int_equal(house->pipes.n_pipes, 1);
	assert_ptr_equal(borrow(house), pipe);
	assert_int_equal(house->pipes.n_free, 0);
	pipe_pool_return(&house->pipes, pipe);
}

/* Or a store full of connections could have no pipe for the bytes of any. */
static void reserved_pipes_are_parked_once(void **state)
{
	struct house *house = *state;
	struct pool_pipe *pipe;
	int r;

	while ((r = pipe_pool_reserve(&house->pipes)) == -EBUSY)
		house_dispatch(house);
	assert_int_equal(r, 0);
	assert_int_equal(house->pipes.n_free, PIPES_MIN);
	assert_int_equal(count_pipe_slots(house), PIPES_MIN);
	/* One that is lent counts as well */
	pipe = borrow(house);
	assert_int_equal(pipe_pool_reserve(&house->pipes), 0);
	assert_int_equal(house->pipes.n_pipes, PIPES_MIN);
	pipe_pool_discard(&house->pipes, pipe);
	assert_int_equal(pipe_pool_reserve(&house->pipes), 0);
	assert_int_equal(count_pipe_slots(house), PIPES_MIN);
}

static void pool_keeps_no_more_than_its_bound(void **state)
{
	enum { LENT = PIPES_KEPT + 10 };
	struct house *house = *state;
	struct pool_pipe *pipes[LENT];

	for (unsigned i = 0; i < LENT; i++)
		pipes[i] = borrow(house);
	assert_int_equal(house->pipes.n_pipes, LENT);
	assert_int_equal(count_pipe_slots(house), LENT);
	for (unsigned i = 0; i < LENT; i++)
		pipe_pool_return(&house->pipes, pipes[i]);
	assert_int_equal(house->pipes.n_pipes, PIPES_KEPT);
	assert_int_equal(house->pipes.n_free, PIPES_KEPT);
	assert_int_equal(count_pipe_slots(house), PIPES_KEPT);
}

static void first_pipes_are_as_large_as_allowed(void **state)
{
	struct house *house = *state;
	struct pool_pipe *pipes[PIPES_LARGE + 1];

	for (unsigned i = 0; i <= PIPES_LARGE; i++) {
		pipes[i] = borrow(house);
		/* The size is what the kernel says, also where it has refused a larger
		 * one */
		assert_int_equal(pipes[i]->size, fcntl(pipes[i]->fd, F_GETPIPE_SZ));
	}
	assert_true(pipes[PIPES_LARGE]->size <= pipes[0]->size);
	for (unsigned i = 0; i <= PIPES_LARGE; i++)
		pipe_pool_return(&house->pipes, pipes[i]);
}

static void discarded_pipe_is_gone_with_its_bytes(void **state)
{
	struct house *house = *state;
	struct pool_pipe *pipe = borrow(house);
	uint32_t slot = slot_ref_slot(pipe->ref);

	write_exactly(pipe->fd, "unwanted", 8);
	pipe_pool_discard(&house->pipes, pipe);
	assert_int_equal(house->pipes.n_pipes, 0);
	assert_int_equal(house->vault->ledger.slots[slot].state, SLOT_FREE);
	pipe = borrow(house);
	assert_int_equal(events_now(pipe->fd, POLLIN) & POLLIN, 0);
	pipe_pool_return(&house->pipes, pipe);
}

static void without_a_parcel_no_pipe_is_lent(void **state)
{
	struct house *house = *state;
	struct pool_pipe *pipe = NULL;
	unsigned n_fds;

	house_adopt(house); /* and no spares are made */
	(void)adopt_done(house->vault);
	fake_manager_sync(house->manager); /* it is in this process, and so are its fds */
	n_fds = count_fds();
	assert_int_equal(pipe_pool_borrow(&house->pipes, &pipe), -EBUSY);
	assert_null(pipe);
	assert_int_equal(count_fds(), n_fds);
	assert_int_equal(count_pipe_slots(house), 0);
	assert_int_equal(house->pipes.n_pipes, 0);
}

static void without_a_slot_no_pipe_is_lent(void **state)
{
	struct house *house = *state;
	struct pool_pipe *pipe = NULL;
	uint32_t slot = 0;
	unsigned n_fds;

	while (packer_take_slot(&house->packer, &slot) == 0)
		;
	n_fds = count_fds();
	assert_int_equal(pipe_pool_borrow(&house->pipes, &pipe), -ENOSPC);
	assert_int_equal(count_fds(), n_fds);
	packer_free_slot(&house->packer, slot);
	assert_int_equal(pipe_pool_borrow(&house->pipes, &pipe), 0);
	pipe_pool_return(&house->pipes, pipe);
}

static void adopted_pipe_is_lent_with_its_bytes(void **state)
{
	struct house *house = *state;
	struct pool_pipe *pipe = borrow(house);
	struct adopted_entry entry;
	slot_ref ref = pipe->ref;

	write_exactly(pipe->fd, "kept", 4);
	pipe_pool_return(&house->pipes, pipe); /* leaving frees what is in the pool */
	house_leave(house);
	house_adopt(house);
	assert_true(adopt_take(house->vault, slot_ref_slot(ref), &entry));
	pipe = pipe_pool_adopt(&house->pipes, ref, entry.fds[0]);
	house_finish_start(house);
	assert_non_null(pipe);
	assert_true(pipe->ref == ref);
	assert_int_equal(pipe->size, fcntl(pipe->fd, F_GETPIPE_SZ));
	assert_int_equal(house->pipes.n_pipes, 1);
	assert_int_equal(house->pipes.n_free, 0);
	expect_text(pipe->fd, "kept");
	pipe_pool_return(&house->pipes, pipe);
	assert_int_equal(count_pipe_slots(house), 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)
#define TEST_STARTED(name) \
	cmocka_unit_test_setup_teardown(name, house_setup_started, house_teardown)
	const struct CMUnitTest tests[] = {
		TEST_STARTED(lent_pipe_is_empty_parked_and_of_one_fd),
		TEST_STARTED(returned_pipe_is_lent_again),
		TEST_STARTED(reserved_pipes_are_parked_once),
		TEST_STARTED(pool_keeps_no_more_than_its_bound),
		TEST_STARTED(first_pipes_are_as_large_as_allowed),
		TEST_STARTED(discarded_pipe_is_gone_with_its_bytes),
		TEST(without_a_parcel_no_pipe_is_lent),
		TEST_STARTED(without_a_slot_no_pipe_is_lent),
		TEST_STARTED(adopted_pipe_is_lent_with_its_bytes),
	};

	return UNIT_RUN("pipes", tests);
}
