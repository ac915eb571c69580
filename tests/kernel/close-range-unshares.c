/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A child that shares its parent's table of open files (CLONE_FILES) leaves it with
 * close_range(CLOSE_RANGE_UNSHARE) for one of its own, which has only the fds below the
 * range: the parent keeps all, nothing that the child does then reaches the parent's
 * table, and no thousands of files are copied only to be closed. What both ways cost from
 * clone(2) to the end of execve(2) is printed.
 *
 * Kernels of before August 2024 may take further fds of the child for open that were so
 * in the parent, and skip their numbers (CVE-2024-45025, "fix bitmap corruption on
 * close_range() with CLOSE_RANGE_UNSHARE"): a successor has too few then, if the limit is
 * some thousand or less. This program fails there.
 *
 * spawn.c starts the successor of a takeover so.
 * Source: close_range(2), __close_range() in fs/file.c.
 */

#include <linux/close_range.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "check.h"

#define KEPT_FD 3
#define N_FILES 10000
#define STACK_SIZE (64 * 1024)

/* The child's exit status has a bit for each of these. */
enum {
	SAW_HIGH_BEFORE = 1 << 0,
	SAW_HIGH_AFTER = 1 << 1,
	SAW_KEPT_AFTER = 1 << 2,
	FAILED = 1 << 3,
	SKIPPED_FREE = 1 << 4,
};

static int high_fd;

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static bool leave(void)
{
	return syscall(SYS_close_range, KEPT_FD + 1, ~0U, CLOSE_RANGE_UNSHARE) == 0;
}

/* Whether the table, which has none but the lowest, gives the numbers one by one. */
static bool gives_lowest(void)
{
	for (int fd = KEPT_FD + 1; fd < 100; fd++)
		if (dup(KEPT_FD) != fd)
			return false;
	return true;
}

/* It has its parent's memory: only system calls. */
static int run_child(void *unused)
{
	int status = is_open(high_fd) ? SAW_HIGH_BEFORE : 0;

	(void)unused;
	if (!leave() || fcntl(KEPT_FD, F_SETFD, 0) < 0)
		status |= FAILED;
	if (is_open(high_fd))
		status |= SAW_HIGH_AFTER;
	if (is_open(KEPT_FD))
		status |= SAW_KEPT_AFTER;
	if (!gives_lowest())
		status |= SKIPPED_FREE;
	(void)close(KEPT_FD);
	_exit(status);
}

static int execute_sharing(void *unused)
{
	(void)unused;
	if (leave())
		(void)execl("/bin/true", "true", (char *)NULL);
	_exit(FAILED);
}

static int execute_copying(void *unused)
{
	(void)unused;
	(void)execl("/bin/true", "true", (char *)NULL);
	_exit(FAILED);
}

/* Returns the exit status; *ret_usec: until the child had executed, or exited. */
static int run(int (*function)(void *), int flags, double *ret_usec)
{
	static char stack[STACK_SIZE] __attribute__((aligned(64)));
	struct timespec begin, now;
	int pid, status;

	(void)clock_gettime(CLOCK_MONOTONIC, &begin);
	pid = must(clone(function, stack + STACK_SIZE,
			 flags | CLONE_VM | CLONE_VFORK | SIGCHLD, NULL),
		   "clone");
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	(void)must(waitpid(pid, &status, 0), "waitpid");
	require(WIFEXITED(status), "the child exits");
	*ret_usec = (double)(now.tv_sec - begin.tv_sec) * 1e6 +
		    (double)(now.tv_nsec - begin.tv_nsec) / 1e3;
	return WEXITSTATUS(status);
}

static void open_many(void)
{
	struct rlimit limit;
	int most;

	(void)must(dup3(STDERR_FILENO, KEPT_FD, O_CLOEXEC), "dup3");
	(void)must(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
	limit.rlim_cur = limit.rlim_max;
	(void)must(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
	most = limit.rlim_max < N_FILES ? (int)limit.rlim_max : N_FILES;
	require(most > 100, "a hundred files may be open");
	for (int i = 0; i < most - 50; i++)
		high_fd =
			must(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, KEPT_FD + 1), "fcntl");
}

int main(void)
{
	double usec, copying_usec;
	int status;

	check_begin();
	open_many();
	status = run(run_child, CLONE_FILES, &usec);
	check(status & SAW_HIGH_BEFORE, "the child begins with its parent's files");
	check(!(status & FAILED), "it can leave them");
	check(!(status & SAW_HIGH_AFTER), "then it has none of the range");
	check(status & SAW_KEPT_AFTER, "but those below it");
	check(!(status & SKIPPED_FREE), "and all numbers above are free");
	check(is_open(high_fd), "the parent keeps those of the range");
	check_equal(outcome(fcntl(KEPT_FD, F_GETFD)), FD_CLOEXEC,
		    "and what the child does to its own is not done to the parent's");
	check_equal(run(execute_copying, 0, &copying_usec), 0,
		    "a copying child executes");
	check_equal(run(execute_sharing, CLONE_FILES, &usec), 0,
		    "a sharing one does as well");
	printf("# with fd %d: %.0f us where the table is copied, %.0f us where it is left\n",
	       high_fd, copying_usec, usec);
	return check_end();
}
