/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A thread of the ordinary policy has a time slice of its own, which it may lengthen to
 * 100 ms without a privilege; what it forks has it, an exec keeps it, and 0 gives back
 * that of the system. Since Linux 6.12; before, there is nothing to be seen of it.
 *
 * base (slice) relies on it: a takeover's new process has to start with a long one.
 * Source: __setscheduler_params(), sched_getattr() in kernel/sched/syscalls.c;
 * sched_setattr(2) knows sched_runtime of SCHED_DEADLINE only.
 */

#include <sched.h>
#include <sys/syscall.h>

#include "check.h"

#define LONG_NSEC 100000000
#define SAY "say"

struct attributes {
	uint32_t size;
	uint32_t policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime;
	uint64_t deadline;
	uint64_t period;
};

static struct attributes get(void)
{
	struct attributes attributes;

	(void)must((int)syscall(SYS_sched_getattr, 0, &attributes, sizeof(attributes), 0),
		   "sched_getattr");
	return attributes;
}

static int set(uint64_t nsec)
{
	struct attributes attributes = get();

	attributes.runtime = nsec;
	return (int)syscall(SYS_sched_setattr, 0, &attributes, 0);
}

/* Whether a program that a child executes has the long slice. */
static bool is_inherited(void)
{
	char program[] = "/proc/self/exe", argument[] = SAY;
	char *arguments[] = {program, argument, NULL};
	pid_t pid = must(fork(), "fork");

	if (pid == 0) {
		(void)execv(program, arguments);
		_exit(EXIT_FAILURE);
	}
	return child_status(pid) == EXIT_SUCCESS;
}

int main(int argc, char *argv[])
{
	uint64_t before = get().runtime;

	if (argc == 2 && strcmp(argv[1], SAY) == 0)
		return before == LONG_NSEC ? EXIT_SUCCESS : EXIT_FAILURE;
	check_begin();
	if (before == 0) {
		check_skip("long slices", "before Linux 6.12 there are none");
		return check_end();
	}
	check(before < LONG_NSEC, "the system's slice is shorter");
	check_equal(outcome(set(LONG_NSEC)), 0, "it can be lengthened");
	check_equal((long long)get().runtime, LONG_NSEC, "and is what was asked for");
	check(is_inherited(), "a program that a child executes has it too");
	check_equal(outcome(set(0)), 0, "0 can be asked for");
	check_equal((long long)get().runtime, (long long)before,
		    "and is the system's slice");
	return check_end();
}
