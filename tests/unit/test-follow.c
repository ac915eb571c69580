/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two halves of a takeover together (give.h, follow.h): the house's vault serves, and
 * a second vault, which would be another process's, follows it.
 *
 * The follower of these tests takes whatever it is told of and finds, connections and
 * pipes alike, so that what it has can be compared with what the house has parked.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "house.h"
#include "vault/follow.h"
#include "vault/give.h"

#define NOBODY UINT32_MAX

struct scene {
	struct house *house;
	struct vault *vault;           /* the follower's, or NULL */
	struct adopted_entry *entries; /* by slot: what it has taken; n_fds 0: nothing */
	uint32_t *n_told;              /* by slot */
	uint32_t n_outdated;           /* in the look under way */
	uint32_t n_outdated_first;     /* as of the first that was told to have changed */
	uint32_t n_good;               /* entries beside the damaged one */
	uint32_t fails_at;             /* the slot of which changed() fails, or NOBODY */
};

static int setup(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	scene->house = house_new(HOUSE_STORE_MAX, HOUSE_SLOTS);
	scene->entries = calloc(HOUSE_SLOTS, sizeof(*scene->entries));
	scene->n_told = calloc(HOUSE_SLOTS, sizeof(*scene->n_told));
	assert_true(scene->entries && scene->n_told);
	scene->fails_at = NOBODY;
	house_start(scene->house);
	*state = scene;
	return 0;
}

static void close_entries(struct scene *scene)
{
	for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++)
		house_close_entry(&scene->entries[slot]);
}

/* The follower is gone, without a word. */
static void leave(struct scene *scene)
{
	close_entries(scene);
	scene->vault = vault_free(scene->vault);
}

static int teardown(void **state)
{
	struct scene *scene = *state;

	leave(scene);
	scene->house = house_free(scene->house);
	free(scene->entries);
	free(scene->n_told);
	free(scene);
	return 0;
}

static int copy_of(int fd)
{
	return must(fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

/* ---- the two halves ---- */

/* Passes what the follower has not been given. Returns how many parcels that were. */
static uint32_t pass_parcels(struct scene *scene)
{
	const struct vault_parcel *parcel;
	uint32_t index = 0, n = 0;

	while ((parcel = give_next_parcel(scene->house->vault, &index))) {
		int send_fd = parcel->state == PARCEL_SEALED ? -EBADF
							     : copy_of(parcel->send_fd);

		assert_int_equal(follow_add_parcel(scene->vault, index, send_fd,
						   copy_of(parcel->store_fd)),
				 0);
		give_note_passed(scene->house->vault, index++);
		n++;
	}
	return n;
}

static void begin_without_parcels(struct scene *scene)
{
	const struct vault *serving = scene->house->vault;

	assert_int_equal(give_begin(scene->house->vault), 0);
	assert_int_equal(vault_new(1, &scene->vault), 0);
	assert_int_equal(follow_begin(scene->vault, copy_of(serving->ledger.fd),
				      copy_of(serving->changes.fd)),
			 0);
}

static void begin(struct scene *scene)
{
	begin_without_parcels(scene);
	assert_true(pass_parcels(scene) > 0);
}

static void on_outdated(void *userdata, uint32_t slot)
{
	struct scene *scene = userdata;
	struct adopted_entry *entry = &scene->entries[slot];

	assert_true(slot < HOUSE_SLOTS);
	scene->n_outdated++;
	if (entry->n_fds > 0)
		adopt_give_back(scene->vault, slot, entry);
	entry->n_fds = 0;
}

static int on_changed(void *userdata, uint32_t slot)
{
	struct scene *scene = userdata;

	assert_int_equal(scene->entries[slot].n_fds, 0);
	if (slot == scene->fails_at)
		return -ENOMEM;
	if (scene->n_outdated_first == 0)
		scene->n_outdated_first = scene->n_outdated;
	scene->n_told[slot]++;
	(void)adopt_take(scene->vault, slot, &scene->entries[slot]);
	return 0;
}

static int try_look(struct scene *scene)
{
	memset(scene->n_told, 0, HOUSE_SLOTS * sizeof(*scene->n_told));
	scene->n_outdated = scene->n_outdated_first = 0;
	static const struct follower follower = {.drop = on_outdated, .take = on_changed};

	return follow_look(scene->vault, &follower, scene);
}

/* Returns how many slots it was told of, each of them once. */
static uint32_t look(struct scene *scene)
{
	int n = try_look(scene);
	uint32_t n_told = 0;

	for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++) {
		assert_true(scene->n_told[slot] <= 1);
		n_told += scene->n_told[slot];
	}
	assert_int_equal(n, n_told);
	/* Before anything is taken, all that is outdated has been given back */
	assert_int_equal(scene->n_outdated, n_told);
	assert_int_equal(scene->n_outdated_first, n_told);
	return n_told;
}

/* A look of which the follower is to be told of this one slot only. */
static void look_at(struct scene *scene, uint32_t slot)
{
	assert_int_equal(look(scene), 1);
	assert_int_equal(scene->n_told[slot], 1);
}

static uint32_t generation_of(const struct vault *vault, uint32_t slot)
{
	return vault->ledger.slots[slot].generation;
}

static void expect_taken(const struct scene *scene, uint32_t slot, const int *fds,
			 int n_fds)
{
	const struct adopted_entry *entry = &scene->entries[slot];

	assert_int_equal(entry->n_fds, n_fds);
	for (int i = 0; i < n_fds; i++)
		assert_true(is_same_file(entry->fds[i], fds[i]));
	assert_int_equal(entry->generation, generation_of(scene->vault, slot));
}

static void expect_not_taken(const struct scene *scene, uint32_t slot)
{
	assert_int_equal(scene->entries[slot].n_fds, 0);
}

/* The old process ends, and the house is the follower's from now on. */
static void go_on_as_follower(struct scene *scene)
{
	struct house *house = scene->house;

	house_leave(house);
	house->vault = scene->vault;
	scene->vault = NULL;
	packer_init(&house->packer, house->vault);
	pipe_pool_init(&house->pipes, &house->packer);
}

static void take_over(struct scene *scene)
{
	follow_go_on(scene->vault);
	(void)follow_done(scene->vault, scene->vault->ledger.header->n_slots_used);
	go_on_as_follower(scene);
}

static void put_again(struct house *house, uint32_t slot, const int *fds, int n_fds)
{
	uint32_t generation = packer_next_generation(&house->packer, slot);
	int r;

	while ((r = packer_put(&house->packer, slot, generation, fds, n_fds)) == -EBUSY)
		house_dispatch(house);
	assert_int_equal(r, 0);
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

/* Parks a token n times. */
static void park_many(struct house *house, uint32_t n, uint32_t *ret_slots)
{
	int token = token_new(n);

	for (uint32_t i = 0; i < n; i++)
		ret_slots[i] = house_park(house, &token, 1);
	(void)close(token);
}

/* ---- looking ---- */

static void what_was_parked_is_found(void **state)
{
	struct scene *scene = *state;
	int fds[3] = {token_new(1), token_new(2), token_new(3)};
	uint32_t first = house_park(scene->house, fds, 1);
	uint32_t second = house_park(scene->house, fds + 1, 2);
	struct pool_pipe *pipe = borrow(scene->house);

	begin(scene);
	/* At first it is told of every slot that may be in use */
	assert_int_equal(look(scene), scene->vault->ledger.header->n_slots_used);
	expect_taken(scene, first, fds, 1);
	expect_taken(scene, second, fds + 1, 2);
	expect_taken(scene, slot_ref_slot(pipe->ref), &pipe->fd, 1);
	assert_int_equal(scene->entries[first].kind, SLOT_CONNECTION);
	assert_int_equal(scene->entries[slot_ref_slot(pipe->ref)].kind, SLOT_PIPE);
	assert_true(fcntl(scene->entries[first].fds[0], F_GETFD) & FD_CLOEXEC);
	pipe_pool_return(&scene->house->pipes, pipe);
	for (size_t i = 0; i < N_ELEMENTS(fds); i++)
		(void)close(fds[i]);
}

static void nothing_is_told_where_nothing_has_changed(void **state)
{
	struct scene *scene = *state;
	int token = token_new(1);
	uint32_t slot = house_park(scene->house, &token, 1);

	begin(scene);
	(void)look(scene);
	assert_int_equal(look(scene), 0);
	expect_taken(scene, slot, &token, 1);
	vault_note_change(scene->house->vault, slot);
	look_at(scene, slot);
	expect_taken(scene, slot, &token, 1);
	follow_note(scene->vault, slot);
	look_at(scene, slot);
	assert_int_equal(look(scene), 0);
	(void)close(token);
}

static void what_is_put_between_looks_is_found(void **state)
{
	struct scene *scene = *state;
	int fds[2] = {token_new(1), token_new(2)};
	uint32_t slot;

	begin(scene);
	(void)look(scene);
	slot = house_park(scene->house, fds, 2);
	look_at(scene, slot);
	expect_taken(scene, slot, fds, 2);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void what_is_freed_is_given_up(void **state)
{
	struct scene *scene = *state;
	int token = token_new(1);
	uint32_t slot = house_park(scene->house, &token, 1);

	begin(scene);
	(void)look(scene);
	expect_taken(scene, slot, &token, 1);
	packer_free_slot(&scene->house->packer, slot);
	look_at(scene, slot);
	expect_not_taken(scene, slot);
	(void)close(token);
}

static void second_put_takes_the_place_of_the_first(void **state)
{
	struct scene *scene = *state;
	int fds[3] = {token_new(1), token_new(2), token_new(3)};
	uint32_t slot = house_park(scene->house, fds, 1);
	unsigned n_fds;

	begin(scene);
	(void)look(scene);
	expect_taken(scene, slot, fds, 1);
	n_fds = count_fds();
	put_again(scene->house, slot, fds + 1, 2);
	look_at(scene, slot);
	expect_taken(scene, slot, fds + 1, 2);
	assert_int_equal(count_fds(), n_fds + 1);
	/* Two at once: only the last one counts */
	put_again(scene->house, slot, fds + 1, 2);
	put_again(scene->house, slot, fds + 2, 1);
	look_at(scene, slot);
	expect_taken(scene, slot, fds + 2, 1);
	assert_int_equal(count_fds(), n_fds);
	for (size_t i = 0; i < N_ELEMENTS(fds); i++)
		(void)close(fds[i]);
}

static void slot_that_is_used_again_has_its_new_fds_only(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int fds[3] = {token_new(1), token_new(2), token_new(3)};
	uint32_t slot = house_park(house, fds, 1);

	begin(scene);
	(void)look(scene);
	/* The slot freed last is the first to be used */
	packer_free_slot(&house->packer, slot);
	assert_int_equal(house_park(house, fds + 1, 1), slot);
	look_at(scene, slot);
	expect_taken(scene, slot, fds + 1, 1);
	packer_free_slot(&house->packer, slot);
	assert_int_equal(house_park(house, fds, 1), slot);
	packer_free_slot(&house->packer, slot);
	assert_int_equal(house_park(house, fds + 2, 1), slot);
	look_at(scene, slot);
	expect_taken(scene, slot, fds + 2, 1);
	packer_free_slot(&house->packer, slot);
	assert_int_equal(house_park(house, fds + 1, 1), slot);
	packer_free_slot(&house->packer, slot);
	look_at(scene, slot);
	expect_not_taken(scene, slot);
	for (size_t i = 0; i < N_ELEMENTS(fds); i++)
		(void)close(fds[i]);
}

static void pipes_come_and_go(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	struct pool_pipe *kept, *pipe;
	uint32_t slot;

	begin(scene);
	(void)look(scene);
	kept = borrow(house);
	pipe = borrow(house);
	slot = slot_ref_slot(pipe->ref);
	assert_int_equal(look(scene), 2);
	expect_taken(scene, slot, &pipe->fd, 1);
	/* Both at once, and the slot becomes a connection's */
	pipe_pool_discard(&house->pipes, pipe);
	assert_int_equal(house_park(house, &kept->fd, 1), slot);
	look_at(scene, slot);
	assert_int_equal(scene->entries[slot].kind, SLOT_CONNECTION);
	expect_taken(scene, slot, &kept->fd, 1);
	packer_free_slot(&house->packer, slot);
	pipe = borrow(house);
	pipe_pool_discard(&house->pipes, pipe);
	(void)look(scene);
	expect_not_taken(scene, slot);
	expect_taken(scene, slot_ref_slot(kept->ref), &kept->fd, 1);
	pipe_pool_return(&house->pipes, kept);
}

static void bytes_of_a_pipe_are_the_same(void **state)
{
	struct scene *scene = *state;
	struct pool_pipe *pipe = borrow(scene->house);

	begin(scene);
	(void)look(scene);
	write_exactly(pipe->fd, "through", 7);
	expect_text(scene->entries[slot_ref_slot(pipe->ref)].fds[0], "through");
	pipe_pool_return(&scene->house->pipes, pipe);
}

static void more_slots_come_into_use(void **state)
{
	enum { MANY = 300 };
	struct scene *scene = *state;
	int token = token_new(1);
	uint32_t slots[MANY];

	begin(scene);
	(void)look(scene);
	for (uint32_t i = 0; i < MANY; i++) {
		slots[i] = house_park(scene->house, &token, 1);
		(void)pass_parcels(scene);
	}
	assert_int_equal(look(scene), MANY);
	for (uint32_t i = 0; i < MANY; i++)
		expect_taken(scene, slots[i], &token, 1);
	(void)close(token);
}

/* A sweep leaves the entries that it has moved in two parcels until the old one goes. */
static void entries_that_were_moved_are_found_once(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	struct vault *vault = house->vault;
	uint32_t slots[3], index, n_entries = 0, n_dead = 0;
	struct parcel_pack pack = {.n_entries = 0};
	struct parcel_reader reader;
	struct parcel_entry entry;
	int token = token_new(1);

	for (size_t i = 0; i < N_ELEMENTS(slots); i++)
		slots[i] = house_park(house, &token, 1);
	index = vault->locations[slots[0]] - 1;
	/* What a sweep does until it is cut short, with two of three */
	assert_int_equal(parcel_rewind(vault->parcels[index].store_fd, 0), 0);
	parcel_reader_init(&reader, vault->parcels[index].store_fd);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(parcel_peek(&reader, &entry), PARCEL_ENTRY);
		parcel_pack_add(&pack, &entry);
	}
	parcel_reader_done(&reader);
	assert_int_equal(packer_move(vault->packer, &pack, index), 0);
	parcel_pack_done(&pack);
	begin(scene);
	(void)look(scene);
	for (size_t i = 0; i < N_ELEMENTS(slots); i++)
		expect_taken(scene, slots[i], &token, 1);
	for (uint32_t i = 0; i < scene->vault->parcels_end; i++) {
		n_entries += scene->vault->parcels[i].n_entries;
		n_dead += scene->vault->parcels[i].n_dead;
	}
	assert_int_equal(n_entries, 5);
	assert_int_equal(n_dead, 2);
	(void)close(token);
}

static void refusal_ends_the_look(void **state)
{
	struct scene *scene = *state;
	int token = token_new(1);

	scene->fails_at = house_park(scene->house, &token, 1);
	begin(scene);
	assert_int_equal(try_look(scene), -ENOMEM);
	(void)close(token);
}

/* ---- halves of changes ---- */

/* The sending end of the parcel that the worker adds to. */
static int current_parcel(const struct house *house)
{
	assert_true(house->packer.current >= 0);
	return house->vault->parcels[house->packer.current].send_fd;
}

static void put_into(int send_fd, uint32_t slot, uint32_t generation, int fd)
{
	struct label label = {
		.version = LABEL_VERSION,
		.kind = SLOT_CONNECTION,
		.slot = slot,
		.generation = generation,
		.n_fds = 1,
	};

	assert_int_equal(parcel_put(send_fd, &label, 1, &fd), 0);
}

static void put_by_hand(const struct house *house, uint32_t slot, uint32_t generation,
			int fd)
{
	put_into(current_parcel(house), slot, generation, fd);
}

static void entry_is_kept_until_its_record_names_it(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int fds[2] = {token_new(1), token_new(2)};
	uint32_t slot = house_park(house, fds, 1), generation;

	begin(scene);
	(void)look(scene);
	generation = packer_next_generation(&house->packer, slot);
	put_by_hand(house, slot, generation, fds[1]);
	(void)look(scene);
	house->vault->ledger.slots[slot].generation = generation;
	vault_note_change(house->vault, slot);
	look_at(scene, slot);
	expect_taken(scene, slot, fds + 1, 1);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

/* Parcels are read by their numbers, and the later entry may be in the lower one. */
static void order_of_parcels_does_not_matter(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int fds[2] = {token_new(1), token_new(2)};
	uint32_t slot = house_park(house, fds, 1), generation;

	assert_true(house->vault->locations[slot] > 1);
	generation = packer_next_generation(&house->packer, slot);
	put_into(house->vault->parcels[0].send_fd, slot, generation, fds[1]);
	begin(scene);
	(void)look(scene);
	house->vault->ledger.slots[slot].generation = generation;
	vault_note_change(house->vault, slot);
	look_at(scene, slot);
	expect_taken(scene, slot, fds + 1, 1);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void what_was_outlived_is_not_kept(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int token = token_new(1);
	uint32_t slot = house_park(house, &token, 1), again;
	unsigned n_fds;

	packer_free_slot(&house->packer, slot);
	assert_int_equal(packer_take_slot(&house->packer, &again), 0);
	assert_int_equal(again, slot);
	begin(scene);
	n_fds = count_fds();
	(void)look(scene);
	assert_int_equal(count_fds(), n_fds);
	packer_free_slot(&house->packer, slot);
	(void)close(token);
}

static void generations_may_wrap(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int fds[2] = {token_new(1), token_new(2)};
	uint32_t slot;

	for (slot = 0; slot < HOUSE_SLOTS; slot++)
		house->vault->ledger.slots[slot].last_generation = UINT32_MAX - 1;
	slot = house_park(house, fds, 1);
	assert_int_equal(generation_of(house->vault, slot), UINT32_MAX);
	begin(scene);
	(void)look(scene);
	expect_taken(scene, slot, fds, 1);
	put_again(house, slot, fds + 1, 1);
	assert_int_equal(generation_of(house->vault, slot), 0);
	(void)look(scene);
	expect_taken(scene, slot, fds + 1, 1);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

/* A put that was the last act of a killed process, before its record said so. */
static void unfinished_put_of_a_dead_process_does_not_count(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int fds[2] = {token_new(1), token_new(2)};
	uint32_t slot = house_park(house, fds, 1);
	struct adopted_entry entry;

	put_by_hand(house, slot, packer_next_generation(&house->packer, slot), fds[1]);
	house_leave(house);
	house_adopt(house);
	assert_true(adopt_take(house->vault, slot, &entry));
	assert_true(is_same_file(entry.fds[0], fds[0]));
	house_finish_start(house);
	begin(scene);
	(void)look(scene);
	expect_taken(scene, slot, fds, 1);
	house_close_entry(&entry);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

/* ---- parcels that are made meanwhile ---- */

static void full_parcels_are_followed_by_others(void **state)
{
	enum { MANY = 3 * PARCEL_ENTRIES_MAX };
	struct scene *scene = *state;
	int token = token_new(1);
	uint32_t slots[MANY], n_passed = 0;

	begin(scene);
	for (uint32_t i = 0; i < MANY; i++) {
		slots[i] = house_park(scene->house, &token, 1);
		if (i % 100 == 0) {
			n_passed += pass_parcels(scene);
			(void)look(scene);
		}
	}
	n_passed += pass_parcels(scene);
	assert_true(n_passed > 0);
	(void)look(scene);
	for (uint32_t i = 0; i < MANY; i++)
		expect_taken(scene, slots[i], &token, 1);
	(void)close(token);
}

/* A worker may use a parcel, and the follower look, before it has been passed. */
static void entry_in_a_parcel_that_comes_later_is_found(void **state)
{
	struct scene *scene = *state;
	int token = token_new(1);
	uint32_t slot;

	begin_without_parcels(scene);
	(void)look(scene);
	slot = house_park(scene->house, &token, 1);
	look_at(scene, slot);
	expect_not_taken(scene, slot);
	assert_true(pass_parcels(scene) > 0);
	(void)look(scene);
	expect_taken(scene, slot, &token, 1);
	assert_int_equal(look(scene), 0);
	(void)close(token);
}

static void parcel_is_given_once_and_only_when_stored(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	uint32_t n_passed, index = 0;
	int token = token_new(1);

	begin_without_parcels(scene);
	n_passed = pass_parcels(scene);
	assert_int_equal(n_passed, vault_n_parcels(house->vault));
	assert_null(give_next_parcel(house->vault, &index));
	/* Takes a spare, so that another one is wanted, of which nobody knows yet whether
	 * it is stored */
	fake_manager_set_deaf(house->manager, true);
	(void)house_park(house, &token, 1);
	vault_dispatch(house->vault);
	assert_true(vault_n_parcels(house->vault) > n_passed);
	assert_null(give_next_parcel(house->vault, &index));
	fake_manager_set_deaf(house->manager, false);
	house_settle(house);
	assert_int_equal(pass_parcels(scene), vault_n_parcels(house->vault) - n_passed);
	(void)close(token);
}

static void sealed_parcel_comes_without_its_sending_end(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int token = token_new(1);
	uint32_t slot = house_park(house, &token, 1), index;

	house->packer.rotate = true;
	packer_rotate_if_wanted(&house->packer);
	index = house->vault->locations[slot] - 1;
	begin(scene);
	assert_int_equal(scene->vault->parcels[index].send_fd, -EBADF);
	(void)look(scene);
	expect_taken(scene, slot, &token, 1);
	assert_int_equal(look(scene), 0);
	(void)close(token);
}

static void parcel_that_is_sealed_later_is_still_read(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int token = token_new(1);
	uint32_t slots[2] = {house_park(house, &token, 1), 0};

	begin(scene);
	(void)look(scene);
	slots[1] = house_park(house, &token, 1);
	house->packer.rotate = true;
	packer_rotate_if_wanted(&house->packer);
	look_at(scene, slots[1]);
	expect_taken(scene, slots[1], &token, 1);
	(void)close(token);
}

static void next_follower_begins_from_the_start(void **state)
{
	struct scene *scene = *state;
	int token = token_new(1);
	uint32_t slots[2] = {house_park(scene->house, &token, 1), 0};

	begin(scene);
	(void)look(scene);
	leave(scene);
	give_end(scene->house->vault);
	slots[1] = house_park(scene->house, &token, 1);
	begin(scene);
	assert_int_equal(look(scene), scene->vault->ledger.header->n_slots_used);
	expect_taken(scene, slots[0], &token, 1);
	expect_taken(scene, slots[1], &token, 1);
	assert_int_equal(look(scene), 0);
	(void)close(token);
}

/* ---- giving back ---- */

static void what_is_given_back_can_be_taken_again(void **state)
{
	struct scene *scene = *state;
	int token = token_new(1);
	uint32_t slot = house_park(scene->house, &token, 1);
	struct adopted_entry entry;

	begin(scene);
	(void)look(scene);
	assert_false(adopt_take(scene->vault, slot, &entry));
	adopt_give_back(scene->vault, slot, &scene->entries[slot]);
	assert_true(adopt_take(scene->vault, slot, &scene->entries[slot]));
	expect_taken(scene, slot, &token, 1);
	(void)close(token);
}

static void what_is_given_back_after_a_later_entry_is_closed(void **state)
{
	struct scene *scene = *state;
	int fds[2] = {token_new(1), token_new(2)};
	uint32_t slot = house_park(scene->house, fds, 1);
	struct adopted_entry first;
	unsigned n_fds;

	begin(scene);
	(void)look(scene);
	first = scene->entries[slot];
	scene->entries[slot].n_fds = 0;
	n_fds = count_fds();
	put_again(scene->house, slot, fds + 1, 1);
	/* Found, and taken by another before the first is back */
	(void)look(scene);
	expect_taken(scene, slot, fds + 1, 1);
	assert_int_equal(count_fds(), n_fds + 1);
	adopt_give_back(scene->vault, slot, &first);
	assert_int_equal(count_fds(), n_fds);
	/* It is still the second that is taken, and comes back */
	adopt_give_back(scene->vault, slot, &scene->entries[slot]);
	assert_true(adopt_take(scene->vault, slot, &scene->entries[slot]));
	expect_taken(scene, slot, fds + 1, 1);
	assert_int_equal(count_fds(), n_fds);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

/* ---- what the serving vault leaves alone ---- */

static void nothing_is_swept_while_it_is_followed(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	uint32_t slots[PARCEL_ENTRIES_MAX + 1], n_parcels;

	park_many(house, N_ELEMENTS(slots), slots);
	house_settle(house);
	begin(scene);
	n_parcels = vault_n_parcels(house->vault);
	for (uint32_t i = 0; i < PARCEL_ENTRIES_MAX; i++)
		packer_free_slot(&house->packer, slots[i]);
	for (unsigned i = 0; i < 3; i++) {
		house_settle(house);
		vault_tick(house->vault);
	}
	assert_int_equal(vault_n_parcels(house->vault), n_parcels);
	/* It may grow */
	park_many(house, N_ELEMENTS(slots), slots);
	house_settle(house);
	assert_true(vault_n_parcels(house->vault) > n_parcels);

	n_parcels = vault_n_parcels(house->vault);
	leave(scene);
	give_end(house->vault);
	house_settle(house);
	assert_true(vault_n_parcels(house->vault) < n_parcels);
}

static void nothing_is_uploaded_while_still(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	uint32_t slots[PARCEL_ENTRIES_MAX + 1], n_parcels;
	unsigned n_stored;

	house_settle(house);
	begin(scene);
	assert_true(give_settle(house->vault));
	n_parcels = vault_n_parcels(house->vault);
	n_stored = fake_manager_count(house->manager, NULL);
	/* Takes two spares */
	park_many(house, N_ELEMENTS(slots), slots);
	for (unsigned i = 0; i < 3; i++) {
		house_settle(house);
		vault_tick(house->vault);
		vault_tick(scene->vault);
		vault_dispatch(scene->vault);
	}
	fake_manager_sync(house->manager);
	assert_int_equal(vault_n_parcels(house->vault), n_parcels);
	assert_int_equal(fake_manager_count(house->manager, NULL), n_stored);
	assert_int_equal(vault_n_parcels(scene->vault), n_parcels);

	/* The takeover has failed */
	leave(scene);
	give_end(house->vault);
	house_settle(house);
	assert_true(vault_n_parcels(house->vault) > n_parcels);
}

static void settled_is_what_the_manager_has_answered(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int token = token_new(1);

	begin(scene);
	fake_manager_set_deaf(house->manager, true);
	(void)house_park(house, &token, 1);
	vault_dispatch(house->vault);
	assert_false(give_settle(house->vault));
	assert_false(give_settle(house->vault));
	fake_manager_set_deaf(house->manager, false);
	house_dispatch(house);
	assert_true(give_settle(house->vault));
	assert_true(pass_parcels(scene) > 0);
	(void)close(token);
}

static void without_a_follower_nothing_is_noted(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int token = token_new(1);

	(void)house_park(house, &token, 1);
	assert_null(house->vault->changes.words);
	begin(scene);
	leave(scene);
	give_end(house->vault);
	for (uint32_t i = 0; i < house->vault->changes.n_words; i++)
		(void)changes_take(&house->vault->changes, i);
	(void)house_park(house, &token, 1);
	for (uint32_t i = 0; i < house->vault->changes.n_words; i++)
		assert_true(changes_take(&house->vault->changes, i) == 0);
	(void)close(token);
}

/* ---- going on ---- */

/* Takes all slots that are free. Each must be free, in no parcel, and come once. */
static void expect_slots_free_once(struct house *house, uint32_t n_expected)
{
	bool *taken = calloc(house->n_slots, sizeof(*taken));
	uint32_t slot, n = 0;

	assert_non_null(taken);
	while (vault_take_slots(house->vault, &slot, 1) == 1) {
		assert_true(slot < house->n_slots);
		assert_false(taken[slot]);
		taken[slot] = true;
		assert_int_equal(house->vault->ledger.slots[slot].state, SLOT_FREE);
		assert_int_equal(house->vault->locations[slot], 0);
		n++;
	}
	assert_int_equal(n, n_expected);
	for (slot = 0; slot < house->n_slots; slot++)
		if (taken[slot])
			assert_int_equal(vault_return_slots(house->vault, &slot, 1), 0);
	free(taken);
}

/* What is counted in the parcels is what is alive. */
static void expect_sums(const struct vault *vault, uint32_t n_alive)
{
	uint32_t n_located = 0, alive = 0;

	for (uint32_t i = 0; i < vault->parcels_end; i++) {
		const struct vault_parcel *parcel = &vault->parcels[i];
		uint32_t n_here = 0;

		if (parcel->state == PARCEL_NONE)
			continue;
		for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++)
			n_here += vault->locations[slot] == i + 1;
		assert_int_equal(parcel->n_entries - parcel->n_dead - parcel->n_moved,
				 n_here);
		alive += n_here;
	}
	for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++)
		n_located += vault->locations[slot] != 0;
	assert_int_equal(n_located, alive);
	assert_int_equal(alive, n_alive);
}

static void free_slots_go_on_exactly_once(void **state)
{
	enum { MANY = 200 };
	struct scene *scene = *state;
	uint32_t slots[MANY];

	park_many(scene->house, MANY, slots);
	begin(scene);
	(void)look(scene);
	for (uint32_t i = 0; i < MANY; i += 2)
		packer_free_slot(&scene->house->packer, slots[i]);
	(void)look(scene);
	take_over(scene);
	for (uint32_t i = 1; i < MANY; i += 2)
		assert_int_equal(scene->house->vault->ledger.slots[slots[i]].state,
				 SLOT_CONNECTION);
	expect_sums(scene->house->vault, MANY / 2);
	expect_slots_free_once(scene->house, HOUSE_SLOTS - MANY / 2);
}

static void what_nobody_has_taken_is_freed(void **state)
{
	struct scene *scene = *state;
	int token = token_new(1);
	uint32_t slot = house_park(scene->house, &token, 1);
	unsigned n_fds;

	begin(scene);
	(void)look(scene);
	adopt_give_back(scene->vault, slot, &scene->entries[slot]);
	scene->entries[slot].n_fds = 0;
	n_fds = count_fds();
	follow_go_on(scene->vault);
	(void)follow_done(scene->vault, scene->vault->ledger.header->n_slots_used);
	/* Its fd, and the sending end of the parcel that it is in */
	assert_int_equal(count_fds(), n_fds - 2);
	go_on_as_follower(scene);
	assert_int_equal(scene->house->vault->ledger.slots[slot].state, SLOT_FREE);
	expect_sums(scene->house->vault, 0);
	expect_slots_free_once(scene->house, HOUSE_SLOTS);
	(void)close(token);
}

/* Or every takeover under load would use up a batch for each worker. */
static void fresh_slots_are_taken_one_by_one_before_the_free_are_known(void **state)
{
	struct scene *scene = *state;
	uint32_t batch[8], n_slots, many[8];

	park_many(scene->house, N_ELEMENTS(many), many);
	begin(scene);
	(void)look(scene);
	n_slots = scene->vault->ledger.header->n_slots_used;
	follow_go_on(scene->vault);
	assert_int_equal(vault_take_slots(scene->vault, batch, N_ELEMENTS(batch)), 1);
	assert_int_equal(batch[0], n_slots);
	(void)follow_done(scene->vault, n_slots);
	for (uint32_t i = n_slots - (uint32_t)N_ELEMENTS(many); i > 0; i--)
		assert_int_equal(vault_take_slots(scene->vault, batch, 1), 1);
	assert_int_equal(scene->vault->ledger.header->n_slots_used, n_slots + 1);
	/* None is free: a batch of fresh ones */
	assert_int_equal(vault_take_slots(scene->vault, batch, N_ELEMENTS(batch)),
			 N_ELEMENTS(batch));
	go_on_as_follower(scene);
}

static void empty_parcels_can_be_put_into(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int fds[2] = {token_new(1), token_new(2)};
	uint32_t slots[2] = {house_park(house, fds, 1), 0}, n_parcels;

	house_settle(house);
	begin(scene);
	(void)look(scene);
	assert_int_equal(vault_n_spares(scene->vault), 0);
	n_parcels = vault_n_parcels(house->vault);
	take_over(scene);
	/* All but the one with an entry */
	assert_int_equal(vault_n_spares(house->vault), n_parcels - 1);
	assert_int_equal(vault_n_parcels(house->vault), n_parcels);
	assert_int_equal(house_try_park(house, fds + 1, 1, &slots[1]), 0);
	/* The next process finds both */
	close_entries(scene);
	house_leave(house);
	house_adopt(house);
	assert_int_equal(house->report.n_entries, 2);
	assert_int_equal(house->report.n_damaged, 0);
	for (size_t i = 0; i < 2; i++) {
		assert_true(adopt_take(house->vault, slots[i], &scene->entries[0]));
		assert_true(is_same_file(scene->entries[0].fds[0], fds[i]));
		house_close_entry(&scene->entries[0]);
	}
	(void)close(fds[0]);
	(void)close(fds[1]);
}

static void manager_is_told_nothing_before_it_listens(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	uint32_t slots[2 * PARCEL_ENTRIES_MAX];
	unsigned n_stored;

	park_many(house, N_ELEMENTS(slots), slots);
	house_settle(house);
	begin(scene);
	(void)look(scene);
	close_entries(scene);
	n_stored = fake_manager_count(house->manager, NULL);
	take_over(scene);
	for (size_t i = 0; i < N_ELEMENTS(slots); i++)
		packer_free_slot(&house->packer, slots[i]);
	house_settle(house);
	vault_tick(house->vault);
	fake_manager_sync(house->manager);
	assert_int_equal(fake_manager_count(house->manager, NULL), n_stored);
	vault_go_on(house->vault);
	house_settle(house);
	assert_true(fake_manager_count(house->manager, NULL) < n_stored);
}

static void parcels_go_when_their_entries_have_died(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	uint32_t slots[2 * PARCEL_ENTRIES_MAX + 10];
	int token = token_new(1);

	park_many(house, N_ELEMENTS(slots), slots);
	begin(scene);
	(void)look(scene);
	/* Deaths, second puts, and slots used again before, between and after the looks */
	for (uint32_t i = 0; i < 100; i++)
		put_again(house, slots[i], &token, 1);
	(void)pass_parcels(scene);
	(void)look(scene);
	for (uint32_t i = 0; i < 100; i++) {
		packer_free_slot(&house->packer, slots[i]);
		slots[i] = house_park(house, &token, 1);
	}
	(void)pass_parcels(scene);
	(void)look(scene);
	close_entries(scene);
	take_over(scene);
	expect_sums(house->vault, N_ELEMENTS(slots));
	vault_go_on(house->vault);
	house_settle(house);
	expect_sums(house->vault, N_ELEMENTS(slots));
	for (size_t i = 0; i < N_ELEMENTS(slots); i++)
		packer_free_slot(&house->packer, slots[i]);
	house_settle(house);
	vault_tick(house->vault);
	vault_tick(house->vault);
	house_settle(house);
	expect_sums(house->vault, 0);
	/* What is left is empty */
	for (uint32_t i = 0; i < house->vault->parcels_end; i++)
		if (house->vault->parcels[i].state != PARCEL_NONE)
			assert_int_equal(house->vault->parcels[i].n_entries, 0);
	assert_int_equal(fake_manager_count(house->manager, NULL),
			 1 + vault_n_parcels(house->vault));
	(void)close(token);
}

static void few_entries_are_merged_later(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	uint32_t slots[PARCEL_ENTRIES_MAX + 20];
	int token = token_new(1);

	for (size_t i = 0; i < N_ELEMENTS(slots); i++)
		slots[i] = house_park(house, &token, 1);
	for (uint32_t i = 10; i < PARCEL_ENTRIES_MAX; i++)
		packer_free_slot(&house->packer, slots[i]);
	begin(scene);
	(void)look(scene);
	take_over(scene);
	expect_sums(house->vault, 30);
	assert_int_not_equal(house->vault->locations[slots[0]],
			     house->vault->locations[slots[PARCEL_ENTRIES_MAX]]);
	vault_go_on(house->vault);
	house_settle(house);
	expect_sums(house->vault, 30);
	assert_int_equal(house->vault->locations[slots[0]],
			 house->vault->locations[slots[PARCEL_ENTRIES_MAX]]);
	(void)close(token);
}

static void follower_can_be_followed(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int token = token_new(1);
	uint32_t slots[4];

	slots[0] = house_park(house, &token, 1);
	for (uint32_t i = 1; i < N_ELEMENTS(slots); i++) {
		begin(scene);
		(void)look(scene);
		slots[i] = house_park(house, &token, 1);
		(void)pass_parcels(scene);
		(void)look(scene);
		for (uint32_t j = 0; j <= i; j++)
			expect_taken(scene, slots[j], &token, 1);
		close_entries(scene);
		take_over(scene);
		vault_go_on(house->vault);
		house_settle(house);
		expect_sums(house->vault, i + 1);
	}
	(void)close(token);
}

/* ---- what makes no sense ---- */

/* Costs itself and nothing else, and its parcel can be dropped when the others have died.
 */
static void expect_damage_is_dead(struct scene *scene)
{
	struct house *house = scene->house;
	int token = token_new(2);
	uint32_t slot;

	begin(scene);
	slot = house_park(house, &token, 1);
	(void)pass_parcels(scene);
	(void)look(scene);
	expect_taken(scene, slot, &token, 1);
	close_entries(scene);
	take_over(scene);
	vault_go_on(house->vault);
	house_settle(house);
	expect_sums(house->vault, scene->n_good + 1);
	(void)close(token);
}

static void expect_damage_is_seen(struct scene *scene, struct label label)
{
	int token = token_new(1);

	label.n_fds = 1;
	(void)house_park(scene->house, &token, 1);
	assert_int_equal(parcel_put(current_parcel(scene->house), &label, 1, &token), 0);
	scene->n_good = 1;
	expect_damage_is_dead(scene);
	(void)close(token);
}

static void damaged_labels_are_dead(void **state)
{
	const struct label good = {.version = LABEL_VERSION, .kind = SLOT_CONNECTION};
	struct label label = good;

	label.version++;
	expect_damage_is_seen(*state, label);
}

static void labels_of_unknown_kinds_are_dead(void **state)
{
	const struct label label = {.version = LABEL_VERSION, .kind = 7};

	expect_damage_is_seen(*state, label);
}

static void labels_beyond_the_ledger_are_dead(void **state)
{
	const struct label label = {.version = LABEL_VERSION,
				    .kind = SLOT_CONNECTION,
				    .slot = HOUSE_SLOTS};

	expect_damage_is_seen(*state, label);
}

static void labels_of_slots_never_used_are_dead(void **state)
{
	const struct label label = {.version = LABEL_VERSION,
				    .kind = SLOT_CONNECTION,
				    .slot = HOUSE_SLOTS - 1,
				    .generation = 1};

	expect_damage_is_seen(*state, label);
}

static void messages_that_are_no_entries_are_dead(void **state)
{
	struct scene *scene = *state;
	int token = token_new(1);

	(void)house_park(scene->house, &token, 1);
	assert_int_equal(send(current_parcel(scene->house), "x", 1, 0), 1);
	scene->n_good = 1;
	expect_damage_is_dead(scene);
	(void)close(token);
}

static void impossible_parcels_are_refused(void **state)
{
	struct scene *scene = *state;
	int send_fd, store_fd, token = token_new(1);
	unsigned n_fds;

	begin(scene);
	assert_int_equal(parcel_new_pair(&send_fd, &store_fd), 0);
	n_fds = count_fds();
	assert_int_equal(follow_add_parcel(scene->vault, VAULT_PARCELS_MAX, send_fd,
					   store_fd),
			 -EBADMSG);
	assert_int_equal(follow_add_parcel(scene->vault, UINT32_MAX >> 1, send_fd,
					   store_fd),
			 -EBADMSG);
	/* Number 0 is there already */
	assert_int_equal(follow_add_parcel(scene->vault, 0, send_fd, store_fd), -EBADMSG);
	assert_int_equal(follow_add_parcel(scene->vault, 1000, send_fd, token),
			 -ENOTSOCK);
	assert_int_equal(count_fds(), n_fds);
	assert_int_equal(follow_add_parcel(scene->vault, VAULT_PARCELS_MAX - 1, send_fd,
					   store_fd),
			 0);
	(void)close(token);
}

static void impossible_memory_is_refused(void **state)
{
	struct scene *scene = *state;
	const struct vault *serving = scene->house->vault;
	struct changes changes;
	struct vault *vault;

	assert_int_equal(give_begin(scene->house->vault), 0);
	assert_int_equal(vault_new(1, &vault), 0);
	assert_int_equal(follow_begin(vault, serving->changes.fd, serving->changes.fd),
			 -EBADMSG);
	vault = vault_free(vault);
	assert_int_equal(vault_new(1, &vault), 0);
	assert_int_equal(follow_begin(vault, serving->ledger.fd, serving->ledger.fd),
			 -EBADMSG);
	vault = vault_free(vault);
	assert_int_equal(changes_new(HOUSE_SLOTS / 2, &changes), 0);
	assert_int_equal(vault_new(1, &vault), 0);
	assert_int_equal(follow_begin(vault, serving->ledger.fd, changes.fd), -EBADMSG);
	vault = vault_free(vault);
	/* They are all still the caller's */
	assert_true(fcntl(serving->ledger.fd, F_GETFD) >= 0);
	assert_true(fcntl(changes.fd, F_GETFD) >= 0);
	changes_done(&changes);
	begin(scene);
}

static void without_room_for_the_fds_the_look_fails(void **state)
{
	struct scene *scene = *state;
	int fds[2] = {token_new(1), token_new(2)};
	unsigned n_fds;

	for (unsigned i = 0; i < 3; i++)
		(void)house_park(scene->house, fds, 2);
	for (unsigned room = 0; room < 6; room++) {
		rlim_t before;
		int r;

		begin(scene);
		n_fds = count_fds();
		before = leave_room_for(room);
		r = try_look(scene);
		restore_room(before);
		assert_int_equal(r, -EMFILE);
		assert_true(count_fds() <= n_fds + room);
		leave(scene);
		give_end(scene->house->vault);
	}
	/* With room there is nothing wrong */
	begin(scene);
	(void)look(scene);
	(void)close(fds[0]);
	(void)close(fds[1]);
}

/* ---- everything at once ---- */

#define MODEL_TOKENS 8

struct model {
	struct scene *scene;
	uint32_t random;
	int tokens[MODEL_TOKENS];
	struct {
		uint32_t slot;
		int first; /* token; the next one is the second fd */
		int n_fds;
	} things[HOUSE_SLOTS];
	uint32_t n_things;
	struct pool_pipe *lent[64];
	uint32_t n_lent;
};

static uint32_t model_random(struct model *model, uint32_t below)
{
	/* xorshift32: the same sequence each time */
	model->random ^= model->random << 13;
	model->random ^= model->random >> 17;
	model->random ^= model->random << 5;
	return model->random % below;
}

static void model_choose_fds(struct model *model, int *ret_first, int *ret_n_fds)
{
	*ret_first = (int)model_random(model, MODEL_TOKENS - 1);
	*ret_n_fds = 1 + (int)model_random(model, 2);
}

static void model_park(struct model *model)
{
	uint32_t i = model->n_things;

	if (i >= 900)
		return;
	model_choose_fds(model, &model->things[i].first, &model->things[i].n_fds);
	model->things[i].slot =
		house_park(model->scene->house, &model->tokens[model->things[i].first],
			   model->things[i].n_fds);
	model->n_things++;
}

static void model_free(struct model *model)
{
	uint32_t i;

	if (model->n_things == 0)
		return;
	i = model_random(model, model->n_things);
	packer_free_slot(&model->scene->house->packer, model->things[i].slot);
	model->things[i] = model->things[--model->n_things];
}

static void model_put_again(struct model *model)
{
	uint32_t i;

	if (model->n_things == 0)
		return;
	i = model_random(model, model->n_things);
	model_choose_fds(model, &model->things[i].first, &model->things[i].n_fds);
	put_again(model->scene->house, model->things[i].slot,
		  &model->tokens[model->things[i].first], model->things[i].n_fds);
}

static void model_use_pipe(struct model *model)
{
	struct house *house = model->scene->house;
	uint32_t i;

	if (model->n_lent < N_ELEMENTS(model->lent) && model_random(model, 2)) {
		model->lent[model->n_lent++] = borrow(house);
		return;
	}
	if (model->n_lent == 0)
		return;
	i = model_random(model, model->n_lent);
	if (model_random(model, 2))
		pipe_pool_return(&house->pipes, model->lent[i]);
	else
		pipe_pool_discard(&house->pipes, model->lent[i]);
	model->lent[i] = model->lent[--model->n_lent];
}

static void model_step(struct model *model)
{
	static void (*const operations[])(struct model *) = {
		model_park,      model_park,     model_park, model_free,
		model_put_again, model_use_pipe, model_free,
	};

	operations[model_random(model, N_ELEMENTS(operations))](model);
}

static void model_settle(struct model *model)
{
	house_settle(model->scene->house);
	if (model_random(model, 2)) {
		vault_tick(model->scene->house->vault);
		packer_rotate_if_wanted(&model->scene->house->packer);
	}
}

/* Returns how many things it has. */
static uint32_t model_compare(const struct model *model)
{
	const struct scene *scene = model->scene;
	const struct pool_pipe *pipe;
	uint32_t n_taken = 0, n = model->n_things + model->n_lent;

	for (uint32_t i = 0; i < model->n_things; i++)
		expect_taken(scene, model->things[i].slot,
			     &model->tokens[model->things[i].first],
			     model->things[i].n_fds);
	for (uint32_t i = 0; i < model->n_lent; i++)
		expect_taken(scene, slot_ref_slot(model->lent[i]->ref),
			     &model->lent[i]->fd, 1);
	for (pipe = scene->house->pipes.free; pipe; pipe = pipe->next) {
		expect_taken(scene, slot_ref_slot(pipe->ref), &pipe->fd, 1);
		n++;
	}
	for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++)
		n_taken += scene->entries[slot].n_fds > 0;
	assert_int_equal(n_taken, n);
	return n;
}

/* The pipes that are lent now are nobody's: what the successor would make of them. */
static void model_forget_pipes(struct model *model)
{
	struct house *house = model->scene->house;

	while (model->n_lent > 0)
		(void)close(
			pipe_pool_forget(&house->pipes, model->lent[--model->n_lent]));
}

static void model_take_over(struct model *model, uint32_t n)
{
	struct scene *scene = model->scene;
	struct house *house = scene->house;

	model_forget_pipes(model);
	take_over(scene);
	expect_sums(house->vault, n);
	expect_slots_free_once(house, HOUSE_SLOTS - n);
	/* As the successor has pipes */
	for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++) {
		struct adopted_entry *entry = &scene->entries[slot];

		if (entry->n_fds == 1 && entry->kind == SLOT_PIPE) {
			slot_ref ref = slot_ref_make(slot, entry->generation);

			pipe_pool_return(&house->pipes,
					 pipe_pool_adopt(&house->pipes, ref,
							 take_fd(&entry->fds[0])));
			entry->n_fds = 0;
		}
	}
	close_entries(scene);
	vault_go_on(house->vault);
	house_settle(house);
}

static void model_run(struct model *model)
{
	struct scene *scene = model->scene;
	uint32_t n_steps = 300 + model_random(model, 1200);

	while (n_steps-- > 0)
		model_step(model);
	model_settle(model);
	begin(scene);
	for (n_steps = 500 + model_random(model, 1500); n_steps > 0; n_steps--) {
		model_step(model);
		if (model_random(model, 100) == 0)
			(void)look(scene);
		if (model_random(model, 100) == 0)
			(void)pass_parcels(scene);
		if (model_random(model, 200) == 0)
			model_settle(model);
	}
	while (!give_settle(scene->house->vault))
		house_dispatch(scene->house);
	(void)pass_parcels(scene);
	(void)look(scene);
}

static void whatever_happens_the_last_look_is_right(void **state)
{
	struct model *model = calloc(1, sizeof(*model));

	assert_non_null(model);
	model->scene = *state;
	for (int i = 0; i < MODEL_TOKENS; i++)
		model->tokens[i] = token_new((uint64_t)i);
	for (uint32_t seed = 1; seed <= 12; seed++) {
		uint32_t n;

		model->random = seed * 2654435761u;
		model_run(model);
		n = model_compare(model);
		if (model_random(model, 3) == 0) {
			leave(model->scene);
			give_end(model->scene->house->vault);
			house_settle(model->scene->house);
		} else {
			model_take_over(model, n);
		}
	}
	model_forget_pipes(model);
	for (int i = 0; i < MODEL_TOKENS; i++)
		(void)close(model->tokens[i]);
	free(model);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_was_parked_is_found),
		TEST(nothing_is_told_where_nothing_has_changed),
		TEST(what_is_put_between_looks_is_found),
		TEST(what_is_freed_is_given_up),
		TEST(second_put_takes_the_place_of_the_first),
		TEST(slot_that_is_used_again_has_its_new_fds_only),
		TEST(pipes_come_and_go),
		TEST(bytes_of_a_pipe_are_the_same),
		TEST(more_slots_come_into_use),
		TEST(entries_that_were_moved_are_found_once),
		TEST(refusal_ends_the_look),
		TEST(entry_is_kept_until_its_record_names_it),
		TEST(order_of_parcels_does_not_matter),
		TEST(what_was_outlived_is_not_kept),
		TEST(generations_may_wrap),
		TEST(unfinished_put_of_a_dead_process_does_not_count),
		TEST(full_parcels_are_followed_by_others),
		TEST(entry_in_a_parcel_that_comes_later_is_found),
		TEST(parcel_is_given_once_and_only_when_stored),
		TEST(sealed_parcel_comes_without_its_sending_end),
		TEST(parcel_that_is_sealed_later_is_still_read),
		TEST(next_follower_begins_from_the_start),
		TEST(what_is_given_back_can_be_taken_again),
		TEST(what_is_given_back_after_a_later_entry_is_closed),
		TEST(nothing_is_swept_while_it_is_followed),
		TEST(nothing_is_uploaded_while_still),
		TEST(settled_is_what_the_manager_has_answered),
		TEST(without_a_follower_nothing_is_noted),
		TEST(free_slots_go_on_exactly_once),
		TEST(what_nobody_has_taken_is_freed),
		TEST(fresh_slots_are_taken_one_by_one_before_the_free_are_known),
		TEST(empty_parcels_can_be_put_into),
		TEST(manager_is_told_nothing_before_it_listens),
		TEST(parcels_go_when_their_entries_have_died),
		TEST(few_entries_are_merged_later),
		TEST(follower_can_be_followed),
		TEST(damaged_labels_are_dead),
		TEST(labels_of_unknown_kinds_are_dead),
		TEST(labels_beyond_the_ledger_are_dead),
		TEST(labels_of_slots_never_used_are_dead),
		TEST(messages_that_are_no_entries_are_dead),
		TEST(impossible_parcels_are_refused),
		TEST(impossible_memory_is_refused),
		TEST(without_room_for_the_fds_the_look_fails),
		TEST(whatever_happens_the_last_look_is_right),
	};

	return UNIT_RUN("follow", tests);
}
