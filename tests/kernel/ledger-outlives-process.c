/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A memfd sealed F_SEAL_SHRINK|F_SEAL_GROW can neither shrink nor grow (EPERM) nor lose
 * its seals, yet stays writable: a mapping of it raises no SIGBUS. Stores to a MAP_SHARED
 * mapping are in the file at once: those of a process killed after them are all there.
 *
 * vault (ledger) relies on it.
 * Source: memfd_create(2), F_ADD_SEALS in fcntl(2); mmap(2).
 */

#include <sys/mman.h>

#include "check.h"

#define SIZE (64 * 4096)

static int sealed_memfd(void)
{
	int fd = must(memfd_create("ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd");

	(void)must(ftruncate(fd, SIZE), "ftruncate");
	check_equal(outcome(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW)), 0,
		    "seals are added after ftruncate");
	return fd;
}

static volatile uint64_t *map(int fd)
{
	void *start = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	require(start != MAP_FAILED, "the ledger is mapped");
	return start;
}

static void size_is_fixed(int fd)
{
	struct stat status;
	char path[64];
	int again;

	check_equal(outcome(ftruncate(fd, SIZE - 4096)), -EPERM, "shrinking is EPERM");
	check_equal(outcome(ftruncate(fd, SIZE + 4096)), -EPERM, "growing is EPERM");
	check_equal(outcome(ftruncate(fd, SIZE)), 0, "the same size is no error");
	check_equal(outcome(pwrite(fd, "x", 1, SIZE)), -EPERM,
		    "writing past it is EPERM");
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDWR | O_TRUNC | O_CLOEXEC);
	check_equal(outcome(again), -EPERM, "opening it with O_TRUNC is EPERM");
	(void)must(fstat(fd, &status), "fstat");
	check_equal(status.st_size, SIZE, "the size is what it was");
	check_equal(outcome(fcntl(fd, F_GET_SEALS)), F_SEAL_SHRINK | F_SEAL_GROW,
		    "the seals can be asked for");
}

static void stores_outlive_the_process(int fd)
{
	volatile uint64_t *words = map(fd);
	pid_t child = must(fork(), "fork");
	bool same = true;

	if (child == 0) {
		volatile uint64_t *own = map(fd);

		for (size_t i = 0; i < SIZE / sizeof(*own); i++)
			own[i] = i * 3;
		(void)raise(SIGKILL);
	}
	check_equal(child_status(child), 128 + SIGKILL, "a child stores and is killed");
	for (size_t i = 0; i < SIZE / sizeof(*words); i++)
		same = same && words[i] == i * 3;
	check(same, "every word is there in a mapping made before");
	words = map(fd);
	check_equal((long long)words[SIZE / sizeof(*words) - 1],
		    (long long)(SIZE / sizeof(*words) - 1) * 3, "and in one made after");
}

/* Two counters stored one after the other are never found the other way round. */
static void stores_keep_their_order(int fd)
{
	volatile uint64_t *words = map(fd);
	bool counting = true, ordered = true;

	words[0] = words[1] = 0;
	for (int i = 0; i < 100; i++) {
		uint64_t before = words[1];
		pid_t child = must(fork(), "fork");

		while (child == 0) {
			words[0] = words[0] + 1;
			words[1] = words[0];
		}
		counting = counting && eventually(words[1] > before);
		(void)must(kill(child, SIGKILL), "kill");
		(void)child_status(child);
		ordered = ordered && words[0] - words[1] <= 1;
	}
	check(counting, "a hundred children count and are killed");
	check(ordered, "the first counter is the second or one more");
}

int main(void)
{
	int fd;

	check_begin();
	fd = sealed_memfd();
	size_is_fixed(fd);
	stores_outlive_the_process(fd);
	stores_keep_their_order(fd);
	return check_end();
}
