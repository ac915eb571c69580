/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * An unprivileged user whose pipes have fs.pipe-user-pages-soft pages (16,384 by default,
 * 1,024 pipes of 16) gets pipes of two pages, and F_SETPIPE_SZ to more is EPERM. They
 * work as others do. A pipe closed makes room for a full one.
 *
 * vault (pipes) relies on it: its pool goes on growing, with smaller pipes.
 * Source: alloc_pipe_info(), pipe_set_size() in fs/pipe.c; pipe(7).
 */

#include <sys/resource.h>

#include "check.h"

#define SIZE_FULL 65536
#define SIZE_SMALL 8192
#define PIPES_MAX 16384

enum found {
	FOUND_ALL = 0,
	FOUND_NO_USER = EXIT_FAILURE + 1, /* EXIT_FAILURE is must()'s */
	FOUND_NO_LIMIT,
	FOUND_GROWN,
	FOUND_NOT_SMALL,
	FOUND_NO_ROOM_AGAIN,
};

static int pipes[PIPES_MAX];

static long soft_limit_pages(void)
{
	FILE *file = fopen("/proc/sys/fs/pipe-user-pages-soft", "re");
	char line[32] = "";

	if (!file || !fgets(line, sizeof(line), file))
		line[0] = '\0';
	if (file)
		(void)fclose(file);
	return strtol(line, NULL, 10);
}

/* The fds that the limit takes, one a pipe, and some for the rest. */
static bool raise_fd_limit(long n)
{
	struct rlimit limit;

	(void)must(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
	if (limit.rlim_cur >= (rlim_t)n)
		return true;
	if (limit.rlim_max < (rlim_t)n)
		return false;
	limit.rlim_cur = (rlim_t)n;
	return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static int fill_and_count(int pipe_fd)
{
	static const char bytes[SIZE_FULL];

	return (int)write(pipe_fd, bytes, sizeof(bytes));
}

static enum found try_limit(int n_max)
{
	int n = 0, size = 0;

	if (!become_unprivileged())
		return FOUND_NO_USER;
	while (n < n_max) {
		pipes[n] = pipe_of_one_fd();
		size = fcntl(pipes[n++], F_GETPIPE_SZ);
		if (size < SIZE_FULL)
			break;
	}
	printf("# pipe %d has %d bytes\n", n, size);
	if (size >= SIZE_FULL)
		return FOUND_NO_LIMIT;
	if (outcome(fcntl(pipes[n - 1], F_SETPIPE_SZ, SIZE_FULL)) != -EPERM)
		return FOUND_GROWN;
	if (size != SIZE_SMALL || fill_and_count(pipes[n - 1]) != SIZE_SMALL)
		return FOUND_NOT_SMALL;
	(void)close(pipes[0]);
	(void)close(pipes[1]);
	if (fcntl(pipe_of_one_fd(), F_GETPIPE_SZ) != SIZE_FULL)
		return FOUND_NO_ROOM_AGAIN;
	return FOUND_ALL;
}

int main(void)
{
	long n_max = soft_limit_pages() / 16 + 2;
	pid_t child;
	int found;

	check_begin();
	if (n_max <= 2 || n_max > PIPES_MAX || !raise_fd_limit(n_max + 64)) {
		check_skip("small pipes",
			   "no soft limit here, or it is too large to reach");
		return check_end();
	}
	child = must(fork(), "fork");
	if (child == 0)
		_exit((int)try_limit((int)n_max));
	found = child_status(child);
	if (found == FOUND_NO_USER) {
		check_skip("small pipes", "cannot become an unprivileged user here");
		return check_end();
	}
	check(found != FOUND_NO_LIMIT, "over the soft limit pipes are smaller");
	check(found != FOUND_GROWN, "enlarging one is EPERM");
	check(found != FOUND_NOT_SMALL, "a small one holds two pages");
	check(found != FOUND_NO_ROOM_AGAIN,
	      "with two closed there is room for a full one");
	check_equal(found, FOUND_ALL, "the child found all of it");
	return check_end();
}
