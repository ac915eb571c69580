/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The vault and its packers at work: parcels made, filled, swept, and the store's limit.
 * What was parked is told by tokens, each a file that knows its number, so that an adopt
 * at the end shows whether everything is where it should be.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "house.h"
#include "vault/give.h"
#include "vault/proof.h"
#include "vault/sweep.h"

/* ---- what is parked in a house ---- */

/* The token's id in each slot, 0 where there is none. */
struct parked {
	uint64_t ids[HOUSE_SLOTS];
	uint64_t last_id;
	unsigned n;
};

static uint32_t park_token(struct house *house, struct parked *parked)
{
	int token = token_new(++parked->last_id);
	uint32_t slot = house_park(house, &token, 1);

	(void)close(token);
	assert_int_equal(parked->ids[slot], 0);
	parked->ids[slot] = parked->last_id;
	parked->n++;
	return slot;
}

static void free_token(struct house *house, struct parked *parked, uint32_t slot)
{
	assert_int_not_equal(parked->ids[slot], 0);
	packer_free_slot(&house->packer, slot);
	parked->ids[slot] = 0;
	parked->n--;
}

static void park_tokens(struct house *house, struct parked *parked, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		(void)park_token(house, parked);
}

/* Frees all but each keep-th of them (0: all). */
static void free_tokens(struct house *house, struct parked *parked, unsigned keep)
{
	unsigned n = 0;

	for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++)
		if (parked->ids[slot] && (keep == 0 || n++ % keep != 0))
			free_token(house, parked, slot);
}

/* Goes over to the next process, in which exactly what was parked must be. */
static void expect_adopted(struct house *house, const struct parked *parked)
{
	struct adopted_entry entry;

	house_leave(house);
	house_adopt(house);
	assert_int_equal(house->report.ledger, ADOPT_LEDGER_FOUND);
	assert_int_equal(house->report.n_damaged, 0);
	assert_int_equal(house->report.n_unknown_fds, 0);
	assert_int_equal(house->report.n_without_fds, 0);
	assert_int_equal(house->report.n_entries, parked->n);
	for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++) {
		bool there = adopt_take(house->vault, slot, &entry);

		assert_int_equal(there, parked->ids[slot] != 0);
		if (!there)
			continue;
		assert_int_equal(token_id(entry.fds[0]), parked->ids[slot]);
		house_close_entry(&entry);
	}
	house_finish_start(house);
}

/* The vault's count is the manager's, but for the ledger. */
static void expect_stored_is_known(struct house *house)
{
	fake_manager_sync(house->manager);
	assert_int_equal(fake_manager_count(house->manager, NULL),
			 1 + vault_n_parcels(house->vault));
}

/* ---- spares ---- */

static void spares_are_handed_out_once_the_manager_has_them(void **state)
{
	struct house *house = *state;

	house_adopt(house);
	(void)adopt_done(house->vault);
	assert_int_equal(vault_take_spare(house->vault, &house->packer), -EBUSY);
	fake_manager_set_deaf(house->manager, true);
	vault_dispatch(house->vault);
	assert_int_equal(vault_take_spare(house->vault, &house->packer), -EBUSY);
	fake_manager_set_deaf(house->manager, false);
	assert_int_equal(vault_stock_wait(house->vault,
					  UNIT_PATIENCE_MSEC * USEC_PER_MSEC),
			 0);
	assert_true(vault_take_spare(house->vault, &house->packer) >= 0);
	fake_manager_sync(house->manager);
	assert_int_equal(fake_manager_count(house->manager, STORE_NAME_PROBE), 0);
	assert_int_equal(fake_manager_watched(house->manager), 0);
}

static void manager_that_does_not_answer_is_waited_for_no_longer_than_asked(void **state)
{
	struct house *house = *state;

	house_adopt(house);
	(void)adopt_done(house->vault);
	fake_manager_set_deaf(house->manager, true);
	assert_int_equal(vault_stock_wait(house->vault, 20 * USEC_PER_MSEC), -ETIMEDOUT);
	assert_int_equal(vault_take_spare(house->vault, &house->packer), -EBUSY);
	assert_false(vault_is_full(house->vault));
	fake_manager_set_deaf(house->manager, false);
	while (vault_take_spare(house->vault, &house->packer) < 0)
		house_dispatch(house);
}

static void last_spare_is_for_the_main_thread(void **state)
{
	struct house *house = *state;
	unsigned n = 0;

	while (vault_take_spare(house->vault, &house->packer) >= 0)
		n++;
	assert_int_equal(n, house->vault->n_spares_wanted - 1);
	assert_true(vault_take_spare(house->vault, house->vault->packer) >= 0);
	assert_int_equal(vault_take_spare(house->vault, house->vault->packer), -EBUSY);
}

static void count_wake(void *userdata)
{
	++*(unsigned *)userdata;
}

static void taken_spares_are_replaced_and_packers_woken(void **state)
{
	struct house *house = *state;
	unsigned n_wakes = 0;

	house->vault->wake_packers = count_wake;
	house->vault->userdata = &n_wakes;
	for (unsigned i = 0; i < 10; i++) {
		while (vault_take_spare(house->vault, &house->packer) < 0)
			house_dispatch(house);
		house_settle(house);
	}
	assert_true(n_wakes >= 8);
	assert_int_equal(house->vault->n_spares, house->vault->n_spares_wanted);
	expect_stored_is_known(house);
}

/* ---- packers ---- */

static void full_parcel_is_followed_by_the_next(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	int first;

	(void)park_token(house, &parked);
	first = house->packer.current;
	park_tokens(house, &parked, PARCEL_ENTRIES_MAX - 1);
	assert_int_equal(house->packer.current, first);
	(void)park_token(house, &parked);
	assert_int_not_equal(house->packer.current, first);
	assert_int_equal(house->vault->parcels[first].state, PARCEL_SEALED);
	expect_adopted(house, &parked);
}

static void room_is_made_before_it_is_needed(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	int current;

	assert_int_equal(packer_make_room(&house->packer), 0);
	current = house->packer.current;
	assert_true(current >= 0);
	park_tokens(house, &parked, PARCEL_ENTRIES_MAX - 1);
	assert_int_equal(packer_make_room(&house->packer), 0);
	assert_int_equal(house->packer.current, current);
	park_tokens(house, &parked, 1);
	while (packer_make_room(&house->packer) == -EBUSY)
		house_dispatch(house);
	assert_int_not_equal(house->packer.current, current);
}

static void full_ledger_gives_no_slot_until_one_is_free(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	uint32_t slot, other;

	park_tokens(house, &parked, HOUSE_SLOTS);
	assert_int_equal(packer_take_slot(&house->packer, &slot), -ENOSPC);
	free_token(house, &parked, 5);
	assert_int_equal(packer_take_slot(&house->packer, &slot), 0);
	assert_int_equal(slot, 5);
	assert_int_equal(packer_take_slot(&house->packer, &other), -ENOSPC);
	expect_adopted(house, &parked);
}

static void generations_of_a_slot_never_repeat(void **state)
{
	struct house *house = *state;
	uint32_t slot, first, last = 0;

	assert_int_equal(packer_take_slot(&house->packer, &first), 0);
	for (unsigned i = 0; i < 20; i++) {
		struct ledger_slot *record = &house->vault->ledger.slots[first];

		assert_true(record->generation > last);
		last = record->generation;
		assert_int_equal(packer_next_generation(&house->packer, first), last + 1);
		packer_free_slot(&house->packer, first);
		assert_int_equal(packer_take_slot(&house->packer, &slot), 0);
		assert_int_equal(slot, first);
	}
}

static void free_slots_go_round_between_packers(void **state)
{
	struct house *house = *state;
	struct packer other;
	uint32_t slots[HOUSE_SLOTS], slot;

	packer_init(&other, house->vault);
	for (uint32_t i = 0; i < HOUSE_SLOTS; i++)
		assert_int_equal(packer_take_slot(&house->packer, &slots[i]), 0);
	for (uint32_t i = 0; i < HOUSE_SLOTS; i++)
		packer_free_slot(&house->packer, slots[i]);
	/* One may keep some for itself, and no more */
	for (uint32_t i = 0; i < HOUSE_SLOTS - 2 * PACKER_SLOTS; i++)
		assert_int_equal(packer_take_slot(&other, &slot), 0);
}

/* ---- sweeping ---- */

static void dead_parcel_is_removed_from_the_store(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};

	park_tokens(house, &parked, 3 * PARCEL_ENTRIES_MAX + 1);
	house_settle(house);
	assert_int_equal(vault_n_parcels(house->vault),
			 4 + house->vault->n_spares_wanted);
	free_tokens(house, &parked, 0);
	house_settle(house);
	assert_int_equal(vault_n_parcels(house->vault),
			 1 + house->vault->n_spares_wanted);
	expect_stored_is_known(house);
	expect_adopted(house, &parked);
}

static void mostly_dead_parcels_are_merged(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};

	park_tokens(house, &parked, 3 * PARCEL_ENTRIES_MAX + 1);
	free_tokens(house, &parked, 10);
	house_settle(house);
	vault_tick(house->vault); /* for the one that was sealed last */
	house_settle(house);
	/* The worker's, the main thread's, and the spares */
	assert_true(vault_n_parcels(house->vault) <= 2 + house->vault->n_spares_wanted);
	expect_stored_is_known(house);
	expect_adopted(house, &parked);
	house_settle(house);
	expect_adopted(house, &parked);
}

/* Parks more than fits into the current parcel, and frees all in it but n. Returns its
 * number. */
static uint32_t seal_all_but(struct house *house, struct parked *parked, unsigned n)
{
	uint32_t sealed, n_kept = 0;

	(void)park_token(house, parked);
	sealed = (uint32_t)house->packer.current;
	while (house->packer.current == (int)sealed)
		(void)park_token(house, parked);
	for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++)
		if (house->vault->locations[slot] == sealed + 1 && n_kept++ >= n)
			free_token(house, parked, slot);
	house_settle(house);
	return sealed;
}

static bool has_alive(const struct house *house, uint32_t index)
{
	for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++)
		if (house->vault->locations[slot] == index + 1)
			return true;
	return false;
}

static void last_sealed_parcel_is_left_until_the_next_one(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	uint32_t sealed;

	house->vault->files_max = UINT64_MAX;
	sealed = seal_all_but(house, &parked, 1);
	assert_true(has_alive(house, sealed));
	(void)seal_all_but(house, &parked, 1);
	assert_false(has_alive(house, sealed));
	expect_adopted(house, &parked);
}

static void last_sealed_parcel_is_dropped_when_all_is_dead(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	uint32_t sealed, slot = 0;
	unsigned n;

	house->vault->files_max = UINT64_MAX;
	sealed = seal_all_but(house, &parked, 1);
	n = vault_n_parcels(house->vault);
	while (house->vault->locations[slot] != sealed + 1)
		slot++;
	free_token(house, &parked, slot);
	house_settle(house);
	assert_int_equal(vault_n_parcels(house->vault), n - 1);
	expect_adopted(house, &parked);
}

static void last_sealed_parcel_is_swept_in_a_full_store(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	uint32_t sealed;

	house->vault->full = true;
	house->vault->retry_usec = USEC_INFINITY;
	sealed = seal_all_but(house, &parked, 1);
	assert_false(has_alive(house, sealed));
	expect_adopted(house, &parked);
}

static void last_sealed_parcel_is_swept_near_the_limit_of_fds_in_flight(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	uint32_t sealed;

	house->vault->files_max = 1024;
	sealed = seal_all_but(house, &parked, 1);
	assert_false(has_alive(house, sealed));
	expect_adopted(house, &parked);
}

static void few_dead_are_left_until_they_have_rested_for_a_tick(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	uint32_t n;

	park_tokens(house, &parked, PARCEL_ENTRIES_MAX + 1);
	house_settle(house);
	n = vault_n_parcels(house->vault);
	free_tokens(house, &parked, 2);
	house_settle(house);
	assert_int_equal(vault_n_parcels(house->vault), n);
	vault_tick(house->vault);
	assert_int_equal(house->vault->parcels[0].state == PARCEL_SEALED ||
				 house->vault->parcels[1].state == PARCEL_SEALED ||
				 house->vault->parcels[2].state == PARCEL_SEALED,
			 true);
	vault_tick(house->vault);
	for (uint32_t i = 0; i < house->vault->parcels_end; i++)
		if (house->vault->parcels[i].state == PARCEL_SEALED)
			assert_int_equal(house->vault->parcels[i].n_dead, 0);
	expect_adopted(house, &parked);
}

static void current_parcel_with_rested_dead_is_asked_back(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	unsigned n_wakes = 0;
	int current;

	park_tokens(house, &parked, 10);
	free_token(house, &parked, park_token(house, &parked));
	current = house->packer.current;
	house->vault->wake_packers = count_wake;
	house->vault->userdata = &n_wakes;
	vault_tick(house->vault);
	assert_int_equal(n_wakes, 0);
	vault_tick(house->vault);
	assert_int_equal(n_wakes, 1);
	packer_rotate_if_wanted(&house->packer);
	assert_int_equal(house->vault->parcels[current].state, PARCEL_SEALED);
	vault_tick(house->vault);
	house_settle(house);
	/* By now the number may be another parcel's */
	assert_int_equal(house->vault->parcels[current].n_dead, 0);
	expect_adopted(house, &parked);
}

static bool is_loose(const struct vault_parcel *parcel)
{
	return parcel->state == PARCEL_SEALED && parcel->n_entries >= VAULT_MERGE_BELOW &&
	       parcel->n_messages > parcel->n_entries / SWEEP_LOOSE_BELOW;
}

static unsigned count_loose(const struct house *house)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < house->vault->parcels_end; i++)
		n += is_loose(&house->vault->parcels[i]);
	return n;
}

static void tick(struct house *house, unsigned n)
{
	while (n-- > 0) {
		vault_tick(house->vault);
		house_settle(house); /* new spares */
	}
}

static void entries_put_one_by_one_are_packed_at_ticks(void **state)
{
	enum { FULL = SWEEP_PACKED_PER_TICK + 2 };
	struct house *house = *state;
	struct parked parked = {0};
	uint32_t n_parcels;

	park_tokens(house, &parked, FULL * PARCEL_ENTRIES_MAX + 1);
	house_settle(house);
	n_parcels = vault_n_parcels(house->vault);
	assert_int_equal(count_loose(house), FULL);
	tick(house, 1);
	assert_in_range(count_loose(house), FULL - SWEEP_PACKED_PER_TICK, FULL - 1);
	/* As far as there are spares for it */
	tick(house, FULL - 1);
	assert_int_equal(count_loose(house), 0);
	/* The last one is the main thread's, which adds to it */
	assert_true(vault_n_parcels(house->vault) <= n_parcels + 1);
	expect_stored_is_known(house);
	expect_adopted(house, &parked);
	assert_int_equal(count_loose(house), 0);
}

static void what_is_packed_stays_until_some_of_it_dies(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	uint32_t locations[HOUSE_SLOTS], slot = 0;

	park_tokens(house, &parked, 3 * PARCEL_ENTRIES_MAX);
	tick(house, 3);
	for (uint32_t i = 0; i < HOUSE_SLOTS; i++)
		locations[i] = house->vault->locations[i];
	tick(house, 3);
	for (uint32_t i = 0; i < HOUSE_SLOTS; i++)
		assert_int_equal(house->vault->locations[i], locations[i]);

	while (!parked.ids[slot] ||
	       house->vault->parcels[locations[slot] - 1].state != PARCEL_SEALED)
		slot++;
	free_token(house, &parked, slot);
	assert_int_equal(house->vault->parcels[locations[slot] - 1].n_dead, 1);
	tick(house, 3);
	for (uint32_t i = 0; i < house->vault->parcels_end; i++)
		if (house->vault->parcels[i].state == PARCEL_SEALED)
			assert_int_equal(house->vault->parcels[i].n_dead, 0);
	expect_stored_is_known(house);
	expect_adopted(house, &parked);
}

/* What dies between its copy and the change of its location leaves a copy nobody asks
 * for. */
static void entry_that_dies_while_it_is_moved_is_dead_in_both_parcels(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	uint32_t slot = park_token(house, &parked),
		 from = (uint32_t)house->packer.current;
	struct parcel_pack pack = {.n_entries = 0};
	struct parcel_reader reader;
	struct parcel_entry entry;
	int to;

	assert_int_equal(parcel_rewind(house->vault->parcels[from].store_fd, 0), 0);
	parcel_reader_init(&reader, house->vault->parcels[from].store_fd);
	assert_int_equal(parcel_peek(&reader, &entry), PARCEL_ENTRY);
	parcel_pack_add(&pack, &entry);
	parcel_reader_done(&reader);
	free_token(house, &parked, slot);
	assert_int_equal(packer_move(house->vault->packer, &pack, from), 0);
	assert_int_equal(house->vault->parcels[from].n_moved, 0);
	parcel_pack_done(&pack);
	to = house->vault->packer->current;
	assert_int_equal(house->vault->parcels[from].n_dead, 1);
	assert_int_equal(house->vault->parcels[to].n_entries, 1);
	assert_int_equal(house->vault->parcels[to].n_dead, 1);
	expect_adopted(house, &parked);
}

/* A socket that has ended is really gone when its parcel is. */
static void swept_parcel_lets_go_of_its_files(void **state)
{
	struct house *house = *state;
	uint32_t slot;
	int ours, peer;

	unix_pair(&ours, &peer);
	slot = house_park(house, &ours, 1);
	(void)close(ours);
	packer_free_slot(&house->packer, slot);
	house_settle(house);
	assert_int_equal(events_now(peer, POLLIN) & POLLHUP, 0);
	vault_tick(house->vault);
	vault_tick(house->vault);
	packer_rotate_if_wanted(&house->packer);
	house_settle(house);
	assert_true(wait_for(peer, POLLIN) & POLLHUP);
	(void)close(peer);
}

/*
 * Hundreds of parcels' worth of connections come and go at random, some of them staying:
 * the number of parcels depends on the living only, and all of these are there at the end.
 */
static void churn_keeps_the_store_small_and_the_living_alive(void **state)
{
	enum { LIVE = 300, ROUNDS = 300 * PARCEL_ENTRIES_MAX };
	struct house *house = *state;
	struct parked parked = {0};
	uint32_t live[LIVE], n_most = 0;

	srandom(1);
	for (unsigned i = 0; i < LIVE; i++)
		live[i] = park_token(house, &parked);
	for (unsigned i = 0; i < ROUNDS; i++) {
		/* The first ones hardly ever end */
		unsigned n = i % 100 == 0 ? LIVE : LIVE - 100;
		unsigned one = LIVE - 1 - (unsigned)random() % n;

		free_token(house, &parked, live[one]);
		live[one] = park_token(house, &parked);
		if (events_now(vault_fd(house->vault), POLLIN))
			vault_dispatch(house->vault);
		if (i % 5000 == 4999)
			vault_tick(house->vault);
		if (vault_n_parcels(house->vault) > n_most)
			n_most = vault_n_parcels(house->vault);
		if (i % (ROUNDS / 10) == 1) {
			expect_adopted(house, &parked);
			expect_stored_is_known(house);
		}
	}
	/* Each has VAULT_MERGE_BELOW living at least, but for the current ones and spares
	 */
	assert_true(n_most <=
		    LIVE / VAULT_MERGE_BELOW + 4 + 2 * house->vault->n_spares_wanted);
	assert_true(fake_manager_most(house->manager) <=
		    n_most + 2 + house->vault->n_spares_wanted);
	expect_adopted(house, &parked);
	house_settle(house);
	expect_adopted(house, &parked);
}

/* ---- threads ---- */

#define THREADS 3
#define THREAD_SLOTS 100
#define THREAD_ROUNDS 20000

struct crew {
	struct house *house;
	_Atomic unsigned n_working;
	uint64_t ids[THREADS][THREAD_SLOTS];
	uint32_t slots[THREADS][THREAD_SLOTS];
};

struct crew_member {
	struct crew *crew;
	unsigned index;
	int wake_fd; /* readable when there are parcels again */
	pthread_t thread;
	struct packer packer;
};

static struct crew_member members[THREADS];

static void wake_crew(void *userdata)
{
	(void)userdata;
	for (unsigned i = 0; i < THREADS; i++)
		(void)!write(members[i].wake_fd, &(uint64_t){1}, sizeof(uint64_t));
}

static void crew_park(struct crew_member *member, unsigned i, uint64_t id)
{
	struct crew *crew = member->crew;
	struct ledger_slot *slots = crew->house->vault->ledger.slots;
	int token = token_new(id), r;
	uint32_t slot = 0;

	r = packer_take_slot(&member->packer, &slot);
	assert_int_equal(r, 0);
	packer_publish(&member->packer, slot, SLOT_CONNECTION);
	while ((r = packer_put(&member->packer, slot, slots[slot].generation, &token,
			       1)) == -EBUSY) {
		uint64_t n;

		(void)wait_for(member->wake_fd, POLLIN);
		(void)!read(member->wake_fd, &n, sizeof(n));
		packer_rotate_if_wanted(&member->packer);
	}
	assert_int_equal(r, 0);
	(void)close(token);
	crew->slots[member->index][i] = slot;
	crew->ids[member->index][i] = id;
}

static void *crew_work(void *userdata)
{
	struct crew_member *member = userdata;
	struct crew *crew = member->crew;
	unsigned seed = member->index;

	for (uint64_t n = 0; n < THREAD_ROUNDS; n++) {
		unsigned i = (unsigned)rand_r(&seed) % THREAD_SLOTS;

		if (crew->ids[member->index][i])
			packer_free_slot(&member->packer, crew->slots[member->index][i]);
		crew_park(member, i, 1 + n * THREADS + member->index);
		packer_rotate_if_wanted(&member->packer);
	}
	crew->n_working--;
	(void)must(eventfd_write(crew->house->vault->event_fd, 1));
	return NULL;
}

static void workers_and_the_sweeping_thread_agree(void **state)
{
	struct crew crew = {.house = *state, .n_working = THREADS};
	struct parked parked = {0};
	unsigned n_rounds = 0;

	for (unsigned i = 0; i < THREADS; i++) {
		members[i] = (struct crew_member){.crew = &crew, .index = i};
		members[i].wake_fd = must(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
		packer_init(&members[i].packer, crew.house->vault);
	}
	crew.house->vault->wake_packers = wake_crew;
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&members[i].thread, NULL, crew_work,
						&members[i]),
				 0);
	while (crew.n_working > 0) {
		house_dispatch(crew.house);
		if (++n_rounds % 50 == 0)
			vault_tick(crew.house->vault);
	}
	crew.house->vault->wake_packers = NULL;
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(members[i].thread, NULL);
		(void)close(members[i].wake_fd);
	}
	house_settle(crew.house);
	assert_true(fake_manager_most(crew.house->manager) < 30);
	for (unsigned i = 0; i < THREADS; i++)
		for (unsigned j = 0; j < THREAD_SLOTS; j++)
			if (crew.ids[i][j]) {
				parked.ids[crew.slots[i][j]] = crew.ids[i][j];
				parked.n++;
			}
	expect_adopted(crew.house, &parked);
}

/* ---- the store's limit ---- */

/* As if the time after which a full store is tried again were over. */
static void let_retry_time_pass(struct house *house)
{
	house->vault->retry_usec = 0;
}

/* Parks until the store takes no more; returns how many were parked. */
static unsigned fill_store(struct house *house, struct parked *parked)
{
	unsigned n = 0;

	for (;;) {
		int token = token_new(parked->last_id + 1), r;
		uint32_t slot = 0;

		r = house_try_park(house, &token, 1, &slot);
		(void)close(token);
		if (r == 0) {
			parked->ids[slot] = ++parked->last_id;
			parked->n++;
			n++;
			continue;
		}
		assert_int_equal(r, -EBUSY);
		if (vault_is_full(house->vault))
			return n;
		house_settle(house);
	}
}

static void store_that_takes_nothing_is_full_at_once(void **state)
{
	struct house *house = *state;

	fake_manager_set_max(house->manager, 0);
	house_adopt(house);
	assert_int_equal(vault_stock_wait(house->vault,
					  UNIT_PATIENCE_MSEC * USEC_PER_MSEC),
			 -ENOSPC);
	assert_true(vault_is_full(house->vault));
	assert_int_equal(vault_take_spare(house->vault, &house->packer), -EBUSY);
	assert_int_equal(vault_take_spare(house->vault, house->vault->packer), -EBUSY);
	assert_int_equal(vault_n_parcels(house->vault), 0);
}

static void start_in_slow_store(struct house *house, unsigned max)
{
	fake_manager_set_slow(house->manager, true);
	house_adopt(house);
	(void)adopt_done(house->vault);
	fake_manager_set_max(house->manager, max);
	proof_begin(house->vault);
	assert_int_equal(vault_stock_wait(house->vault,
					  UNIT_PATIENCE_MSEC * USEC_PER_MSEC),
			 0);
}

static void store_that_takes_nothing_is_found_out_when_it_is_slow(void **state)
{
	struct house *house = *state;

	start_in_slow_store(house, 0);
	/* An overdue tick may come just behind the barrier */
	vault_tick(house->vault);
	assert_false(house->vault->stores_nothing);
	fake_manager_set_slow(house->manager, false);
	vault_tick(house->vault);
	assert_true(house->vault->stores_nothing);
}

static void slow_store_that_takes_what_comes_is_not_doubted(void **state)
{
	struct house *house = *state;

	start_in_slow_store(house, FAKE_MANAGER_STORE_MAX);
	fake_manager_sync(house->manager);
	assert_int_equal(fake_manager_count(house->manager, STORE_NAME_PROOF), 1);
	vault_tick(house->vault);
	vault_tick(house->vault);
	assert_false(house->vault->stores_nothing);
	expect_stored_is_known(house);
}

static void proof_is_not_left_to_the_successor(void **state)
{
	struct house *house = *state;

	start_in_slow_store(house, FAKE_MANAGER_STORE_MAX);
	assert_int_equal(give_begin(house->vault), 0);
	expect_stored_is_known(house);
	give_end(house->vault);
}

static void nothing_is_handed_over_where_nothing_is_stored(void **state)
{
	struct house *house = *state;

	start_in_slow_store(house, 0);
	fake_manager_set_slow(house->manager, false);
	assert_int_equal(give_begin(house->vault), -ENOSPC);
	assert_true(house->vault->stores_nothing);
}

static void without_a_manager_nothing_is_proved(void **state)
{
	struct house *house = *state;
	char *before = strdup(getenv("NOTIFY_SOCKET"));

	house_adopt(house);
	(void)adopt_done(house->vault);
	(void)unsetenv("NOTIFY_SOCKET");
	proof_begin(house->vault);
	assert_true(house->vault->proof_fd < 0);
	(void)setenv("NOTIFY_SOCKET", before, 1);
	free(before);
}

static void proof_takes_no_room_from_a_small_store(void **state)
{
	struct house *house = *state;

	house_adopt(house);
	(void)adopt_done(house->vault);
	/* The ledger, all spares and the probe */
	fake_manager_set_max(house->manager, house->vault->n_spares_wanted + 2);
	proof_begin(house->vault);
	assert_int_equal(vault_stock_wait(house->vault,
					  UNIT_PATIENCE_MSEC * USEC_PER_MSEC),
			 0);
	assert_int_equal(vault_n_spares(house->vault), house->vault->n_spares_wanted);
	assert_false(house->vault->stores_nothing);
	expect_stored_is_known(house);
}

/* Newer managers close what they refuse too late for the probe to be sure to see it. */
static void store_of_known_size_is_never_sent_too_much(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};

	fake_manager_set_max(house->manager, 6);
	assert_int_equal(setenv("FDSTORE", "6", 1), 0);
	house_start(house);
	assert_true(fill_store(house, &parked) >= PARCEL_ENTRIES_MAX);
	assert_int_equal(fake_manager_refused(house->manager), 0);
	assert_int_equal(unsetenv("FDSTORE"), 0);
	fake_manager_set_max(house->manager, HOUSE_STORE_MAX);
	expect_adopted(house, &parked);
}

static void full_store_gives_no_parcel_and_recovers_when_there_is_room(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	unsigned n;

	fake_manager_set_max(house->manager, 6);
	house_start(house);
	n = fill_store(house, &parked);
	assert_true(n >= PARCEL_ENTRIES_MAX && n % PARCEL_ENTRIES_MAX == 0);
	assert_true(vault_is_full(house->vault));
	expect_stored_is_known(house);
	fake_manager_set_max(house->manager, HOUSE_STORE_MAX);
	let_retry_time_pass(house);
	vault_tick(house->vault);
	house_settle(house);
	assert_false(vault_is_full(house->vault));
	park_tokens(house, &parked, 1);
	expect_adopted(house, &parked);
}

static void full_store_is_not_tried_at_every_event(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	unsigned n_refused;

	fake_manager_set_max(house->manager, 6);
	house_start(house);
	(void)fill_store(house, &parked);
	n_refused = fake_manager_refused(house->manager);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(packer_make_room(&house->packer), -EBUSY);
		house_settle(house);
	}
	assert_int_equal(fake_manager_refused(house->manager), n_refused);
}

static void deaths_make_room_in_a_full_store(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};

	fake_manager_set_max(house->manager, 8);
	house_start(house);
	(void)fill_store(house, &parked);
	free_tokens(house, &parked, 20);
	house_settle(house);
	park_tokens(house, &parked, 100);
	assert_false(vault_is_full(house->vault));
	fake_manager_set_max(house->manager, HOUSE_STORE_MAX);
	expect_adopted(house, &parked);
}

/*
 * The same, where the living of the half-empty parcels fill more than the one spare that
 * is kept for sweeping: each parcel that goes must make room for the next round.
 */
static void half_empty_parcels_of_a_full_store_are_merged(void **state)
{
	struct house *house = *state;
	struct parked parked = {0};
	uint32_t n_before;

	fake_manager_set_max(house->manager, 9);
	house_start(house);
	assert_true(fill_store(house, &parked) >= 4 * PARCEL_ENTRIES_MAX);
	n_before = vault_n_parcels(house->vault);
	for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++)
		if (parked.ids[slot] && slot % 5 > 1)
			free_token(house, &parked, slot);
	for (unsigned i = 0; i < 5; i++) {
		house_settle(house);
		let_retry_time_pass(house);
		vault_tick(house->vault);
	}
	house_settle(house);
	for (uint32_t i = 0; i < house->vault->parcels_end; i++)
		if (house->vault->parcels[i].state != PARCEL_NONE &&
		    house->vault->parcels[i].n_moved > 0)
			fail_msg("parcel %u of %u still waits to be merged", i, n_before);
	fake_manager_set_max(house->manager, HOUSE_STORE_MAX);
	expect_adopted(house, &parked);
}

/* ---- killed at any moment ---- */

/* What a token's slot is in, as far as the process that is killed can tell. */
enum truth {
	TRUTH_FREE,
	TRUTH_PARKED,
	TRUTH_CHANGING, /* either will do */
};

#define KILLED_TOKENS 256
#define KILLS 60

struct killed {
	struct house *house;
	int steps_fd; /* a byte for each few steps */
	_Atomic uint32_t truth[KILLED_TOKENS];
	uint32_t slots[KILLED_TOKENS];
};

static void killed_adopt(struct killed *killed)
{
	struct house *house = killed->house;
	bool seen[KILLED_TOKENS] = {0};
	struct adopted_entry entry;

	house_adopt(house);
	assert_int_equal(house->report.n_damaged, 0);
	for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++) {
		uint64_t id;

		if (!adopt_take(house->vault, slot, &entry))
			continue;
		id = token_id(entry.fds[0]);
		house_close_entry(&entry);
		assert_true(id < KILLED_TOKENS && !seen[id]);
		assert_true(killed->truth[id] != TRUTH_FREE);
		seen[id] = true;
		killed->slots[id] = slot;
	}
	for (uint32_t id = 0; id < KILLED_TOKENS; id++) {
		assert_true(seen[id] || killed->truth[id] != TRUTH_PARKED);
		killed->truth[id] = seen[id] ? TRUTH_PARKED : TRUTH_FREE;
	}
	house_finish_start(house);
}

static void killed_step(struct killed *killed, uint32_t id)
{
	bool was_parked = killed->truth[id] == TRUTH_PARKED;

	killed->truth[id] = TRUTH_CHANGING;
	if (was_parked) {
		packer_free_slot(&killed->house->packer, killed->slots[id]);
		killed->truth[id] = TRUTH_FREE;
	} else {
		int token = token_new(id);

		killed->slots[id] = house_park(killed->house, &token, 1);
		(void)close(token);
		killed->truth[id] = TRUTH_PARKED;
	}
}

static void killed_work(struct killed *killed, unsigned seed)
{
	(void)setenv("CMOCKA_TEST_ABORT", "1", 1);
	killed_adopt(killed);
	for (unsigned i = 0;; i++) {
		killed_step(killed, (uint32_t)rand_r(&seed) % KILLED_TOKENS);
		if (events_now(vault_fd(killed->house->vault), POLLIN))
			vault_dispatch(killed->house->vault);
		if (i % 97 == 0)
			vault_tick(killed->house->vault);
		if (i % 8 == 0)
			(void)!write(killed->steps_fd, "", 1);
	}
}

static void run_and_kill(struct killed *killed, unsigned seed)
{
	unsigned n_steps = 1 + (unsigned)random() % 400;
	int ends[2], status;
	pid_t child;

	(void)must(pipe2(ends, O_CLOEXEC));
	killed->steps_fd = ends[1];
	child = must(fork());
	if (child == 0) {
		(void)close(ends[0]);
		killed_work(killed, seed);
	}
	(void)close(ends[1]);
	for (unsigned i = 0; i < n_steps; i++) {
		char byte;

		if (read(ends[0], &byte, 1) != 1)
			break;
	}
	(void)must(kill(child, SIGKILL));
	(void)must(waitpid(child, &status, 0));
	(void)close(ends[0]);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void killed_at_any_moment_it_leaves_what_was_parked(void **state)
{
	struct killed *killed = mmap(NULL, sizeof(*killed), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(killed != MAP_FAILED);
	killed->house = *state;
	srandom(2);
	for (unsigned i = 0; i < KILLS; i++)
		run_and_kill(killed, i);
	killed_adopt(killed);
	house_settle(killed->house);
	assert_true(vault_n_parcels(killed->house->vault) <
		    KILLED_TOKENS / VAULT_MERGE_BELOW + 4 +
			    killed->house->vault->n_spares_wanted);
	(void)munmap(killed, sizeof(*killed));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, house_setup, house_teardown)
#define TEST_STARTED(name) \
	cmocka_unit_test_setup_teardown(name, house_setup_started, house_teardown)
	const struct CMUnitTest tests[] = {
		TEST(spares_are_handed_out_once_the_manager_has_them),
		TEST(manager_that_does_not_answer_is_waited_for_no_longer_than_asked),
		TEST_STARTED(last_spare_is_for_the_main_thread),
		TEST_STARTED(taken_spares_are_replaced_and_packers_woken),
		TEST_STARTED(full_parcel_is_followed_by_the_next),
		TEST_STARTED(room_is_made_before_it_is_needed),
		TEST_STARTED(full_ledger_gives_no_slot_until_one_is_free),
		TEST_STARTED(generations_of_a_slot_never_repeat),
		TEST_STARTED(free_slots_go_round_between_packers),
		TEST_STARTED(dead_parcel_is_removed_from_the_store),
		TEST_STARTED(mostly_dead_parcels_are_merged),
		TEST_STARTED(last_sealed_parcel_is_left_until_the_next_one),
		TEST_STARTED(last_sealed_parcel_is_dropped_when_all_is_dead),
		TEST_STARTED(last_sealed_parcel_is_swept_in_a_full_store),
		TEST_STARTED(last_sealed_parcel_is_swept_near_the_limit_of_fds_in_flight),
		TEST_STARTED(few_dead_are_left_until_they_have_rested_for_a_tick),
		TEST_STARTED(current_parcel_with_rested_dead_is_asked_back),
		TEST_STARTED(entries_put_one_by_one_are_packed_at_ticks),
		TEST_STARTED(what_is_packed_stays_until_some_of_it_dies),
		TEST_STARTED(entry_that_dies_while_it_is_moved_is_dead_in_both_parcels),
		TEST_STARTED(swept_parcel_lets_go_of_its_files),
		TEST_STARTED(churn_keeps_the_store_small_and_the_living_alive),
		TEST_STARTED(workers_and_the_sweeping_thread_agree),
		TEST(store_that_takes_nothing_is_full_at_once),
		TEST(store_that_takes_nothing_is_found_out_when_it_is_slow),
		TEST(slow_store_that_takes_what_comes_is_not_doubted),
		TEST(nothing_is_handed_over_where_nothing_is_stored),
		TEST(without_a_manager_nothing_is_proved),
		TEST(proof_takes_no_room_from_a_small_store),
		TEST(proof_is_not_left_to_the_successor),
		TEST(store_of_known_size_is_never_sent_too_much),
		TEST(full_store_gives_no_parcel_and_recovers_when_there_is_room),
		TEST(full_store_is_not_tried_at_every_event),
		TEST(deaths_make_room_in_a_full_store),
		TEST(half_empty_parcels_of_a_full_store_are_merged),
		TEST(killed_at_any_moment_it_leaves_what_was_parked),
	};

	return UNIT_RUN("vault", tests);
}
