/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A process's table of open files grows to the highest fd ever asked for, and does not
 * shrink when that is closed. Where threads share the table, each growth waits for a
 * grace period of RCU: what that costs here is printed, beside the cost for one thread.
 *
 * holdfastd (capacity.h) relies on it: it asks for a high fd while it has one thread, and
 * then adopts thousands of connections without such a wait.
 * Source: expand_fdtable(), alloc_fdtable() in fs/file.c; FDSize in proc_pid_status(5).
 */

#include <pthread.h>
#include <sys/resource.h>

#include "check.h"

#define HIGH_FD 2047

static pthread_mutex_t end = PTHREAD_MUTEX_INITIALIZER;

static long table_size(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	char line[256];
	long size = -1;

	require(file, "/proc/self/status can be read");
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, "FDSize:", strlen("FDSize:")) == 0)
			size = strtol(line + strlen("FDSize:"), NULL, 10);
	(void)fclose(file);
	return size;
}

static void *wait_for_end(void *unused)
{
	(void)pthread_mutex_lock(&end);
	return unused;
}

/* Returns the microseconds it has taken to have an fd not below number. */
static double grow(int number)
{
	struct timespec begin, now;
	int fd;

	(void)clock_gettime(CLOCK_MONOTONIC, &begin);
	fd = must(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, number), "fcntl");
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	(void)close(fd);
	return (double)(now.tv_sec - begin.tv_sec) * 1e6 +
	       (double)(now.tv_nsec - begin.tv_nsec) / 1e3;
}

int main(void)
{
	struct rlimit limit;
	pthread_t thread;
	double alone, shared;
	long size;

	check_begin();
	(void)must(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
	limit.rlim_cur = limit.rlim_max;
	(void)must(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
	require(limit.rlim_cur > 2 * HIGH_FD + 1, "the limit of open files allows it");

	require(table_size() < HIGH_FD, "the table is small at first");
	alone = grow(HIGH_FD);
	size = table_size();
	check(size > HIGH_FD, "a high fd that is closed again leaves a large table");

	(void)pthread_mutex_lock(&end);
	require(pthread_create(&thread, NULL, wait_for_end, NULL) == 0,
		"there is a thread");
	shared = grow(HIGH_FD);
	check_equal(table_size(), size, "threads find room in it");
	printf("# with room: %.0f us\n", shared);
	shared = grow(2 * HIGH_FD);
	check(table_size() > size, "without room it grows for threads as well");
	printf("# growth: %.0f us for one thread, %.0f us for two\n", alone, shared);
	return check_end();
}
