/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "vault/ledger.h"

#define SLOTS 16

static int setup(void **state)
{
	struct ledger *ledger = calloc(1, sizeof(*ledger));

	assert_non_null(ledger);
	assert_int_equal(ledger_new(SLOTS, ledger), 0);
	*state = ledger;
	return 0;
}

static int teardown(void **state)
{
	ledger_done(*state);
	free(*state);
	return 0;
}

/* Maps a copy of the ledger's fd as the next process would. */
static int map_again(const struct ledger *ledger, struct ledger *ret_ledger)
{
	int fd = must(fcntl(ledger->fd, F_DUPFD_CLOEXEC, 3));
	int r = ledger_map(fd, ret_ledger);

	if (r < 0)
		(void)close(fd);
	return r;
}

static void expect_refused(const struct ledger *ledger, int expected)
{
	struct ledger other = {.fd = -42};
	unsigned n_fds = count_fds();

	assert_int_equal(map_again(ledger, &other), expected);
	assert_int_equal(other.fd, -42);
	assert_int_equal(count_fds(), n_fds);
}

/* ---- the whole ---- */

static void new_ledger_is_empty_and_maps(void **state)
{
	struct ledger *ledger = *state, other;

	assert_int_equal(map_again(ledger, &other), 0);
	assert_int_equal(other.header->version, LEDGER_VERSION);
	assert_int_equal(other.header->n_slots, SLOTS);
	assert_int_equal(other.header->n_slots_used, 0);
	assert_int_equal(other.header->next_id, 1);
	for (uint32_t slot = 0; slot < SLOTS; slot++) {
		assert_int_equal(other.slots[slot].state, SLOT_FREE);
		assert_true(ledger_slot_is_sane(&other, slot));
	}
	ledger_done(&other);
}

static void mapping_shares_what_is_written(void **state)
{
	struct ledger *ledger = *state, other;

	assert_int_equal(map_again(ledger, &other), 0);
	ledger->slots[3].id = 77;
	assert_int_equal(other.slots[3].id, 77);
	ledger_done(&other);
}

static void size_is_sealed(void **state)
{
	struct ledger *ledger = *state;

	assert_int_equal(ftruncate(ledger->fd, 0), -1);
	assert_int_equal(ftruncate(ledger->fd, 1 << 20), -1);
}

static void largest_ledger_maps(void **state)
{
	struct ledger ledger, other;

	(void)state;
	assert_int_equal(ledger_new(LEDGER_SLOTS_MAX, &ledger), 0);
	assert_int_equal(map_again(&ledger, &other), 0);
	assert_int_equal(other.slots[LEDGER_SLOTS_MAX - 1].state, SLOT_FREE);
	ledger_done(&other);
	ledger_done(&ledger);
}

static void done_may_be_repeated(void **state)
{
	struct ledger ledger;

	(void)state;
	assert_int_equal(ledger_new(1, &ledger), 0);
	ledger_done(&ledger);
	ledger_done(&ledger);
	assert_int_equal(ledger.fd, -EBADF);
}

/* ---- what is no ledger ---- */

static void other_kinds_of_files_are_refused(void **state)
{
	static const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
	static const off_t sizes[] = {0, 1, 4095, 4096, 4096 + 127, 1 << 20};
	struct ledger ledger;
	int fds[2];

	(void)state;
	(void)must(pipe2(fds, O_CLOEXEC));
	assert_int_equal(ledger_map(fds[0], &ledger), -EBADMSG);
	(void)close(fds[0]);
	(void)close(fds[1]);
	unix_pair(&fds[0], &fds[1]);
	assert_int_equal(ledger_map(fds[0], &ledger), -EBADMSG);
	(void)close(fds[0]);
	(void)close(fds[1]);
	assert_int_equal(ledger_map(-1, &ledger), -EBADMSG);
	for (size_t i = 0; i < N_ELEMENTS(sizes); i++) {
		int fd = must(memfd_create("zeroes", MFD_CLOEXEC | MFD_ALLOW_SEALING));

		(void)must(ftruncate(fd, sizes[i]));
		(void)must(fcntl(fd, F_ADD_SEALS, seals));
		assert_int_equal(ledger_map(fd, &ledger), -EBADMSG);
		(void)close(fd);
	}
}

/* A memfd with the bytes of the ledger, of any size and with any seals. */
static int copy_of(const struct ledger *ledger, off_t size, int seals)
{
	int fd = must(memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING));

	assert_int_equal(pwrite(fd, ledger->header, ledger->size, 0), ledger->size);
	(void)must(ftruncate(fd, size));
	(void)must(fcntl(fd, F_ADD_SEALS, seals));
	return fd;
}

static void unsealed_ledgers_are_refused(void **state)
{
	static const int lacking[] = {0, F_SEAL_SHRINK, F_SEAL_GROW};
	struct ledger *ledger = *state, other;

	for (size_t i = 0; i < N_ELEMENTS(lacking); i++) {
		int fd = copy_of(ledger, (off_t)ledger->size, lacking[i]);

		assert_int_equal(ledger_map(fd, &other), -EPERM);
		(void)close(fd);
	}
}

static void truncated_ledgers_are_refused(void **state)
{
	struct ledger *ledger = *state, other;
	const off_t sizes[] = {
		0,
		1,
		LEDGER_HEADER_SIZE - 1,
		LEDGER_HEADER_SIZE,
		(off_t)ledger->size - (off_t)sizeof(struct ledger_slot),
		(off_t)ledger->size - 1,
		(off_t)ledger->size + 1,
		(off_t)ledger->size + (off_t)sizeof(struct ledger_slot),
	};

	for (size_t i = 0; i < N_ELEMENTS(sizes); i++) {
		int fd = copy_of(ledger, sizes[i], F_SEAL_SHRINK | F_SEAL_GROW);

		assert_int_equal(ledger_map(fd, &other), -EBADMSG);
		(void)close(fd);
	}
}

/* ---- its header ---- */

static void wrong_magic_is_refused(void **state)
{
	struct ledger *ledger = *state;

	for (unsigned bit = 0; bit < 64; bit++) {
		ledger->header->magic = LEDGER_MAGIC ^ 1ULL << bit;
		expect_refused(ledger, -EBADMSG);
	}
}

static void impossible_versions_are_refused(void **state)
{
	struct ledger *ledger = *state;

	ledger->header->version = 0;
	expect_refused(ledger, -EBADMSG);
	ledger->header->version = LEDGER_VERSION;
	ledger->header->min_reader = 0;
	expect_refused(ledger, -EBADMSG);
	ledger->header->min_reader = LEDGER_VERSION + 1;
	expect_refused(ledger, -EBADMSG);
}

static void ledger_that_only_newer_versions_read_is_told_apart(void **state)
{
	struct ledger *ledger = *state;

	ledger->header->version = LEDGER_VERSION + 5;
	ledger->header->min_reader = LEDGER_VERSION + 1;
	expect_refused(ledger, -EPROTONOSUPPORT);
	/* Its sizes may be others, and mean nothing to this version */
	ledger->header->slot_size = 256;
	ledger->header->header_size = 8192;
	expect_refused(ledger, -EPROTONOSUPPORT);
}

static void newer_ledger_that_allows_it_is_read(void **state)
{
	struct ledger *ledger = *state, other;

	ledger->header->version = LEDGER_VERSION + 5;
	assert_int_equal(map_again(ledger, &other), 0);
	assert_int_equal(other.header->version, LEDGER_VERSION + 5);
	ledger_done(&other);
}

static void sizes_that_contradict_each_other_are_refused(void **state)
{
	struct ledger *ledger = *state;
	struct ledger_header good = *ledger->header;

	ledger->header->header_size = LEDGER_HEADER_SIZE + 1;
	expect_refused(ledger, -EBADMSG);
	*ledger->header = good;
	ledger->header->slot_size = sizeof(struct ledger_slot) + 8;
	expect_refused(ledger, -EBADMSG);
	*ledger->header = good;
	for (uint32_t i = 0; i < 32; i++) {
		ledger->header->n_slots = SLOTS ^ 1u << i;
		expect_refused(ledger, -EBADMSG);
	}
	ledger->header->n_slots = 0;
	expect_refused(ledger, -EBADMSG);
	ledger->header->n_slots = UINT32_MAX;
	expect_refused(ledger, -EBADMSG);
}

static void impossible_counts_are_refused(void **state)
{
	struct ledger *ledger = *state;

	ledger->header->n_slots_used = SLOTS + 1;
	expect_refused(ledger, -EBADMSG);
	ledger->header->n_slots_used = UINT32_MAX;
	expect_refused(ledger, -EBADMSG);
	ledger->header->n_slots_used = SLOTS;
	ledger->header->next_id = 0;
	expect_refused(ledger, -EBADMSG);
}

/* ---- its slots ---- */

static void states_are_far_apart(void **state)
{
	static const uint32_t good[] = {SLOT_FREE, SLOT_CONNECTION, SLOT_PIPE};
	struct ledger *ledger = *state;

	for (size_t i = 0; i < N_ELEMENTS(good); i++) {
		ledger->slots[0].state = good[i];
		assert_true(ledger_slot_is_sane(ledger, 0));
		for (unsigned bit = 0; bit < 32; bit++) {
			ledger->slots[0].state = good[i] ^ 1u << bit;
			assert_false(ledger_slot_is_sane(ledger, 0));
		}
	}
}

static void unknown_flags_are_not_sane(void **state)
{
	struct ledger *ledger = *state;

	ledger->slots[0].state = SLOT_CONNECTION;
	ledger->slots[0].flags = SLOT_FLAGS_ALL;
	assert_true(ledger_slot_is_sane(ledger, 0));
	for (unsigned bit = 0; bit < 32; bit++) {
		ledger->slots[0].flags = 1u << bit;
		assert_int_equal(ledger_slot_is_sane(ledger, 0),
				 (1u << bit & SLOT_FLAGS_ALL) != 0);
	}
}

static void pipe_references_must_lie_in_the_ledger(void **state)
{
	struct ledger *ledger = *state;
	struct ledger_slot *slot = &ledger->slots[0];

	slot->state = SLOT_CONNECTION;
	for (size_t i = 0; i < LEDGER_FLOWS; i++) {
		slot->flows[i].pipe = slot_ref_make(0, 1);
		assert_true(ledger_slot_is_sane(ledger, 0));
		slot->flows[i].pipe = slot_ref_make(SLOTS - 1, UINT32_MAX);
		assert_true(ledger_slot_is_sane(ledger, 0));
		slot->flows[i].pipe = slot_ref_make(SLOTS, 1);
		assert_false(ledger_slot_is_sane(ledger, 0));
		slot->flows[i].pipe = UINT64_MAX;
		assert_false(ledger_slot_is_sane(ledger, 0));
		slot->flows[i].pipe = (slot_ref)5 << 32; /* a generation of no slot */
		assert_false(ledger_slot_is_sane(ledger, 0));
		slot->flows[i].pipe = 0;
	}
}

static void references_name_slot_and_generation(void **state)
{
	slot_ref ref = slot_ref_make(LEDGER_SLOTS_MAX - 1, UINT32_MAX);

	(void)state;
	assert_int_equal(slot_ref_slot(ref), LEDGER_SLOTS_MAX - 1);
	assert_int_equal(slot_ref_generation(ref), UINT32_MAX);
	assert_true(slot_ref_make(0, 0) != 0);
}

static void clearing_keeps_the_generations_only(void **state)
{
	struct ledger *ledger = *state;
	struct ledger_slot *slot = &ledger->slots[2], expected = {0};

	memset(slot, 0x5a, sizeof(*slot));
	expected.generation = expected.last_generation = 0x5a5a5a5a;
	ledger_slot_clear(slot);
	assert_memory_equal(slot, &expected, sizeof(expected));
}

/* ---- who serves ---- */

static void offer_can_be_taken_once(void **state)
{
	struct ledger *ledger = *state;
	uint64_t offer = ledger_offer(ledger);

	assert_true(ledger_take_offer(ledger, offer));
	assert_false(ledger_take_offer(ledger, offer));
	assert_false(ledger_withdraw_offer(ledger, offer));
}

static void withdrawn_offer_is_void(void **state)
{
	struct ledger *ledger = *state;
	uint64_t offer = ledger_offer(ledger), next;

	assert_true(ledger_withdraw_offer(ledger, offer));
	assert_false(ledger_take_offer(ledger, offer));
	next = ledger_offer(ledger);
	assert_false(ledger_take_offer(ledger, offer));
	assert_false(ledger_withdraw_offer(ledger, offer));
	assert_true(ledger_take_offer(ledger, next));
}

static void later_offer_makes_the_one_before_void(void **state)
{
	struct ledger *ledger = *state;
	uint64_t offer = ledger_offer(ledger), next = ledger_offer(ledger);

	assert_true(offer != next);
	assert_false(ledger_take_offer(ledger, offer));
	assert_false(ledger_withdraw_offer(ledger, offer));
	assert_true(ledger_take_offer(ledger, next));
}

static void no_offer_of_the_last_process_can_be_taken(void **state)
{
	struct ledger *ledger = *state;
	uint64_t offer = ledger_offer(ledger);

	ledger_withdraw_any_offer(ledger);
	assert_false(ledger_take_offer(ledger, offer));
	assert_false(ledger_withdraw_offer(ledger, offer));
	assert_false(ledger_take_offer(ledger, ledger_offer(ledger) - 2));
	ledger_withdraw_any_offer(ledger);
	ledger_withdraw_any_offer(ledger);
	assert_true(ledger_take_offer(ledger, ledger_offer(ledger)));
}

static void offer_that_was_never_made_is_void(void **state)
{
	struct ledger *ledger = *state;
	uint64_t offer;

	offer = ledger_offer(ledger);
	assert_false(ledger_take_offer(ledger, offer + 1));
	assert_false(ledger_take_offer(ledger, offer + 2));
	assert_false(ledger_take_offer(ledger, offer - 2));
	assert_true(ledger_take_offer(ledger, offer));
}

static void numbers_of_offers_never_repeat(void **state)
{
	struct ledger *ledger = *state;
	uint64_t last = 0;

	/* Each number is above the last one, whatever comes in between */
	for (unsigned way = 0; way < 2 * 5 * 5 * 5; way++) {
		uint64_t offer = ledger_offer(ledger);

		assert_true(offer > last);
		last = offer;
		for (unsigned rest = way; rest > 0; rest /= 5) {
			if (rest % 5 == 1)
				(void)ledger_take_offer(ledger, offer);
			else if (rest % 5 == 2)
				(void)ledger_withdraw_offer(ledger, offer);
			else if (rest % 5 == 3)
				ledger_withdraw_any_offer(ledger);
		}
	}
}

#define RACES 30000

/* What both processes of a race see. */
struct race {
	_Atomic uint64_t offer; /* 0: none; UINT64_MAX: no further one */
	_Atomic uint64_t answered;
	_Atomic uint32_t n_taken;
};

static void take_each(struct ledger *ledger, struct race *race)
{
	uint64_t last = 0, offer;
	uint32_t n_idle = 0;

	while ((offer = race->offer) != UINT64_MAX) {
		if (offer == last) {
			/* Soon enough to meet the other one, and no hindrance to it */
			if (++n_idle % 256 == 0)
				(void)sched_yield();
			continue;
		}
		last = offer;
		if (ledger_take_offer(ledger, offer))
			race->n_taken++;
		race->answered = offer;
	}
}

static void withdraw_each(struct ledger *ledger, struct race *race)
{
	for (uint32_t i = 0; i < RACES; i++) {
		uint32_t n_taken = race->n_taken;
		uint64_t offer = ledger_offer(ledger);
		bool is_void;

		race->offer = offer;
		/* At first at once, later ever later */
		for (volatile uint32_t n = i % 128; n > 0; n--)
			;
		is_void = ledger_withdraw_offer(ledger, offer);
		while (race->answered != offer)
			(void)sched_yield();
		assert_int_equal(race->n_taken - n_taken, !is_void);
	}
	race->offer = UINT64_MAX;
}

struct taker {
	struct ledger ledger;
	struct race *race;
};

static void *take_in_thread(void *userdata)
{
	struct taker *taker = userdata;

	take_each(&taker->ledger, taker->race);
	return NULL;
}

static void of_two_threads_exactly_one_serves(void **state)
{
	struct race race = {0};
	struct taker taker = {.race = &race};
	pthread_t thread;

	assert_int_equal(map_again(*state, &taker.ledger), 0);
	assert_int_equal(pthread_create(&thread, NULL, take_in_thread, &taker), 0);
	withdraw_each(*state, &race);
	pthread_join(thread, NULL);
	ledger_done(&taker.ledger);
}

static void of_two_processes_exactly_one_serves(void **state)
{
	struct race *race = mmap(NULL, sizeof(*race), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct ledger theirs;
	pid_t child;

	assert_true(race != MAP_FAILED);
	child = must(fork());
	if (child == 0) {
		/* A test that fails leaves it alone */
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (map_again(*state, &theirs) == 0)
			take_each(&theirs, race);
		_exit(0);
	}
	withdraw_each(*state, race);
	(void)must(waitpid(child, NULL, 0));
	(void)munmap(race, sizeof(*race));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(new_ledger_is_empty_and_maps),
		TEST(mapping_shares_what_is_written),
		TEST(size_is_sealed),
		TEST(largest_ledger_maps),
		TEST(done_may_be_repeated),
		TEST(other_kinds_of_files_are_refused),
		TEST(unsealed_ledgers_are_refused),
		TEST(truncated_ledgers_are_refused),
		TEST(wrong_magic_is_refused),
		TEST(impossible_versions_are_refused),
		TEST(ledger_that_only_newer_versions_read_is_told_apart),
		TEST(newer_ledger_that_allows_it_is_read),
		TEST(sizes_that_contradict_each_other_are_refused),
		TEST(impossible_counts_are_refused),
		TEST(states_are_far_apart),
		TEST(unknown_flags_are_not_sane),
		TEST(pipe_references_must_lie_in_the_ledger),
		TEST(references_name_slot_and_generation),
		TEST(clearing_keeps_the_generations_only),
		TEST(offer_can_be_taken_once),
		TEST(withdrawn_offer_is_void),
		TEST(later_offer_makes_the_one_before_void),
		TEST(no_offer_of_the_last_process_can_be_taken),
		TEST(offer_that_was_never_made_is_void),
		TEST(numbers_of_offers_never_repeat),
		TEST(of_two_threads_exactly_one_serves),
		TEST(of_two_processes_exactly_one_serves),
	};

	return UNIT_RUN("ledger", tests);
}
