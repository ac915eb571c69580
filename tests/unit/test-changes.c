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
#include "vault/changes.h"

/* Four words and a bit, so that the last one is not full. */
#define SLOTS (4 * CHANGES_SLOTS_PER_WORD + 1)

static int setup(void **state)
{
	struct changes *changes = calloc(1, sizeof(*changes));

	assert_non_null(changes);
	assert_int_equal(changes_new(SLOTS, changes), 0);
	*state = changes;
	return 0;
}

static int teardown(void **state)
{
	changes_done(*state);
	free(*state);
	return 0;
}

static unsigned count_bits(struct changes *changes)
{
	unsigned n = 0;

	for (uint32_t word = 0; word < changes->n_words; word++)
		n += (unsigned)__builtin_popcountll(changes_take(changes, word));
	return n;
}

/* Maps a copy of the fd as the successor would. */
static int map_again(int fd, uint32_t n_slots, struct changes *ret_changes)
{
	int copy = must(fcntl(fd, F_DUPFD_CLOEXEC, 3));
	int r = changes_map(copy, n_slots, ret_changes);

	if (r < 0)
		(void)close(copy);
	return r;
}

/* ---- notes ---- */

static void new_ones_have_no_notes(void **state)
{
	struct changes *changes = *state;

	assert_true((uint64_t)changes->n_words * CHANGES_SLOTS_PER_WORD >= SLOTS);
	assert_int_equal(count_bits(changes), 0);
}

static void every_slot_of_a_word_has_a_note_of_its_own(void **state)
{
	struct changes *changes = *state;

	for (uint32_t slot = 0; slot < SLOTS; slot++) {
		uint32_t word = slot / CHANGES_SLOTS_PER_WORD;

		changes_note(changes, slot);
		for (uint32_t i = 0; i < changes->n_words; i++)
			if (i != word)
				assert_true(changes_take(changes, i) == 0);
		assert_true(changes_take(changes, word) ==
			    UINT64_C(1) << slot % CHANGES_SLOTS_PER_WORD);
	}
}

static void note_is_taken_once(void **state)
{
	struct changes *changes = *state;

	changes_note(changes, 3);
	changes_note(changes, 3);
	changes_note(changes, 63);
	assert_true(changes_take(changes, 0) == (UINT64_C(1) << 3 | UINT64_C(1) << 63));
	assert_true(changes_take(changes, 0) == 0);
	changes_note(changes, 3);
	assert_true(changes_take(changes, 0) == UINT64_C(1) << 3);
}

static void all_of_a_full_word_come_at_once(void **state)
{
	struct changes *changes = *state;

	for (uint32_t slot = 0; slot < CHANGES_SLOTS_PER_WORD; slot++)
		changes_note(changes, CHANGES_SLOTS_PER_WORD + slot);
	assert_true(changes_take(changes, 0) == 0);
	assert_true(changes_take(changes, 1) == UINT64_MAX);
	assert_true(changes_take(changes, 1) == 0);
}

/* ---- two sides at once ---- */

/*
 * What is noted is a number for each slot, written before its note, as a record is. In
 * each round every slot is noted once, so that a note that is lost is missed.
 */
#define ROUNDS 10000
/* Few, so that all meet in one word. */
#define RACED_SLOTS 8

struct race {
	_Atomic uint32_t round;
	_Atomic uint32_t n_done; /* noters, in all rounds */
	_Atomic uint32_t values[RACED_SLOTS];
};

static void note_often(struct changes *changes, struct race *race, uint32_t first,
		       uint32_t step)
{
	for (uint32_t round = 1; round <= ROUNDS; round++) {
		for (uint32_t n = 1; race->round < round; n++)
			if (n % 256 == 0)
				(void)sched_yield();
		for (uint32_t slot = first; slot < RACED_SLOTS; slot += step) {
			atomic_store_explicit(&race->values[slot], round,
					      memory_order_relaxed);
			changes_note(changes, slot);
		}
		atomic_fetch_add(&race->n_done, 1);
	}
}

static void take_into(struct changes *changes, const struct race *race, uint32_t *seen)
{
	uint64_t notes = changes_take(changes, 0);

	for (; notes != 0; notes &= notes - 1) {
		uint32_t slot = (uint32_t)__builtin_ctzll(notes);

		assert_true(slot < RACED_SLOTS);
		seen[slot] = race->values[slot];
	}
}

/* Takes what n noters note; the last take of a round comes after their last note. */
static void take_all(struct changes *changes, struct race *race, uint32_t n)
{
	uint32_t seen[RACED_SLOTS] = {0};

	for (uint32_t round = 1; round <= ROUNDS; round++) {
		bool is_last;

		race->round = round;
		do {
			is_last = race->n_done == n * round;
			take_into(changes, race, seen);
			/* Noters are to meet each other, too */
			if (!is_last)
				(void)sched_yield();
		} while (!is_last);
		for (uint32_t slot = 0; slot < RACED_SLOTS; slot++)
			assert_int_equal(seen[slot], round);
	}
}

struct noter {
	struct changes *changes;
	struct race *race;
	uint32_t index;
};

#define NOTERS 2

static void *note_thread(void *userdata)
{
	const struct noter *noter = userdata;

	note_often(noter->changes, noter->race, noter->index, NOTERS);
	return NULL;
}

static void no_note_of_a_thread_is_lost(void **state)
{
	struct noter noters[NOTERS];
	pthread_t threads[NOTERS];
	struct race race = {0};

	for (uint32_t i = 0; i < NOTERS; i++) {
		noters[i] = (struct noter){*state, &race, i};
		assert_int_equal(pthread_create(&threads[i], NULL, note_thread,
						&noters[i]),
				 0);
	}
	take_all(*state, &race, NOTERS);
	for (uint32_t i = 0; i < NOTERS; i++)
		pthread_join(threads[i], NULL);
}

static void no_note_of_another_process_is_lost(void **state)
{
	struct race *race = mmap(NULL, sizeof(*race), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	const struct changes *ours = *state;
	struct changes theirs;
	pid_t child;

	assert_true(race != MAP_FAILED);
	assert_int_equal(map_again(ours->fd, SLOTS, &theirs), 0);
	child = must(fork());
	if (child == 0) {
		/* A test that fails leaves it alone */
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		note_often(*state, race, 0, 1);
		_exit(0);
	}
	take_all(&theirs, race, 1);
	(void)must(waitpid(child, NULL, 0));
	changes_done(&theirs);
	(void)munmap(race, sizeof(*race));
}

/* Two threads note slots of one word as fast as they can: neither wipes out the other's. */
static void *note_and_look(void *userdata)
{
	const struct noter *noter = userdata;
	_Atomic uint64_t *word = &noter->changes->words[0];
	uint64_t bit = UINT64_C(1) << noter->index;
	uint32_t n_lost = 0;

	for (uint32_t i = 0; i < 50 * ROUNDS; i++) {
		changes_note(noter->changes, noter->index);
		n_lost += (atomic_fetch_and(word, ~bit) & bit) == 0;
	}
	return n_lost == 0 ? NULL : userdata;
}

static void notes_of_one_word_leave_each_other_alone(void **state)
{
	struct noter noters[NOTERS];
	pthread_t threads[NOTERS];

	for (uint32_t i = 0; i < NOTERS; i++) {
		noters[i] = (struct noter){.changes = *state, .index = i};
		assert_int_equal(pthread_create(&threads[i], NULL, note_and_look,
						&noters[i]),
				 0);
	}
	for (uint32_t i = 0; i < NOTERS; i++) {
		void *lost;

		assert_int_equal(pthread_join(threads[i], &lost), 0);
		assert_null(lost);
	}
}

/* ---- mapping ---- */

static void mapping_shares_the_notes(void **state)
{
	struct changes *changes = *state, other;

	changes_note(changes, 77);
	assert_int_equal(map_again(changes->fd, SLOTS, &other), 0);
	assert_int_equal(other.n_words, changes->n_words);
	assert_true(changes_take(&other, 1) == UINT64_C(1) << 13);
	assert_int_equal(count_bits(changes), 0);
	changes_done(&other);
	assert_int_equal(other.fd, -EBADF);
	changes_done(&other);
}

static void expect_refused(int fd, uint32_t n_slots)
{
	struct changes other = {.fd = -42};
	unsigned n_fds = count_fds();

	assert_int_equal(map_again(fd, n_slots, &other), -EBADMSG);
	assert_int_equal(other.fd, -42);
	assert_int_equal(count_fds(), n_fds);
}

static void another_number_of_slots_is_refused(void **state)
{
	const struct changes *changes = *state;
	struct changes other;

	expect_refused(changes->fd, SLOTS + CHANGES_SLOTS_PER_WORD);
	expect_refused(changes->fd, SLOTS - 2);
	expect_refused(changes->fd, 0);
	/* It is the words that count */
	assert_int_equal(map_again(changes->fd, SLOTS + 1, &other), 0);
	changes_done(&other);
}

static void what_is_not_sealed_is_refused(void **state)
{
	static const int seals[] = {0, F_SEAL_SHRINK, F_SEAL_GROW};
	const struct changes *changes = *state;

	for (size_t i = 0; i < N_ELEMENTS(seals); i++) {
		_cleanup_close_ int fd =
			must(memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));

		(void)must(ftruncate(fd, changes->n_words * (off_t)sizeof(uint64_t)));
		if (seals[i] != 0)
			(void)must(fcntl(fd, F_ADD_SEALS, seals[i]));
		expect_refused(fd, SLOTS);
	}
}

static void other_kinds_of_files_are_refused(void **state)
{
	int fds[2];

	(void)state;
	(void)must(pipe2(fds, O_CLOEXEC));
	expect_refused(fds[0], SLOTS);
	(void)close(fds[0]);
	(void)close(fds[1]);
	fds[0] = must(open("/dev/zero", O_RDWR | O_CLOEXEC));
	expect_refused(fds[0], SLOTS);
	(void)close(fds[0]);
}

static void size_is_sealed(void **state)
{
	const struct changes *changes = *state;

	assert_int_equal(ftruncate(changes->fd, 0), -1);
	assert_int_equal(ftruncate(changes->fd, 1 << 20), -1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(new_ones_have_no_notes),
		TEST(every_slot_of_a_word_has_a_note_of_its_own),
		TEST(note_is_taken_once),
		TEST(all_of_a_full_word_come_at_once),
		TEST(no_note_of_a_thread_is_lost),
		TEST(no_note_of_another_process_is_lost),
		TEST(notes_of_one_word_leave_each_other_alone),
		TEST(mapping_shares_the_notes),
		TEST(another_number_of_slots_is_refused),
		TEST(what_is_not_sealed_is_refused),
		TEST(other_kinds_of_files_are_refused),
		TEST(size_is_sealed),
	};

	return UNIT_RUN("changes", tests);
}
