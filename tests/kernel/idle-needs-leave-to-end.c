/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Anybody may make a process of the same user SCHED_IDLE, but only who could lower its
 * nice value to what it is from 20 (RLIMIT_NICE, CAP_SYS_NICE) may make it SCHED_OTHER
 * again. What it starts meanwhile is SCHED_IDLE too, and stays that.
 *
 * base (idle) relies on it: a takeover's new process has to come back, whatever happens.
 * Source: sched(7); user_check_sched_setscheduler() in kernel/sched/syscalls.c.
 */

#include <sched.h>
#include <sys/resource.h>

#include "check.h"

static int set(pid_t pid, int policy)
{
	const struct sched_param param = {0};

	return sched_setscheduler(pid, policy, &param) < 0 ? -errno : 0;
}

static bool has_cap_sys_nice(void)
{
	const rlim_t enough = 20;
	struct rlimit limit;
	int is = getpriority(PRIO_PROCESS, 0);

	if (getrlimit(RLIMIT_NICE, &limit) < 0 || limit.rlim_cur >= enough)
		return false; /* it would not show */
	if (setpriority(PRIO_PROCESS, 0, is - 1) < 0)
		return false;
	(void)must(setpriority(PRIO_PROCESS, 0, is), "setpriority");
	return true;
}

/* A child that answers each byte with the policy of what it starts, until the end. */
static pid_t start(int *ret_socket)
{
	int pair[2];
	char byte;
	pid_t pid;

	(void)must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), "socketpair");
	pid = must(fork(), "fork");
	if (pid == 0) {
		(void)close(pair[0]);
		while (read(pair[1], &byte, 1) == 1) {
			pid_t grandchild = fork();

			if (grandchild == 0)
				_exit(sched_getscheduler(0));
			byte = (char)child_status(grandchild);
			if (write(pair[1], &byte, 1) != 1)
				break;
		}
		_exit(EXIT_SUCCESS);
	}
	(void)close(pair[1]);
	*ret_socket = pair[0];
	return pid;
}

static int policy_of_what_it_starts(int socket)
{
	char byte = 0;

	require(write(socket, &byte, 1) == 1 && read(socket, &byte, 1) == 1,
		"the child answers");
	return byte;
}

static void with_privilege(void)
{
	int socket;
	pid_t child = start(&socket);

	check_equal(set(child, SCHED_IDLE), 0, "a process is made SCHED_IDLE");
	check_equal(policy_of_what_it_starts(socket), SCHED_IDLE,
		    "what it starts is SCHED_IDLE too");
	if (!has_cap_sys_nice()) {
		check_skip("who has CAP_SYS_NICE ends it", "this process lacks it");
	} else {
		check_equal(set(child, SCHED_OTHER), 0, "who has CAP_SYS_NICE ends it");
		check_equal(policy_of_what_it_starts(socket), SCHED_OTHER,
			    "and what it starts is SCHED_OTHER again");
	}
	(void)close(socket);
	(void)child_status(child);
}

static int without_privilege(void)
{
	const struct rlimit none = {0};
	pid_t child;
	int socket;

	check_n_failed = 0;
	(void)must(setrlimit(RLIMIT_NICE, &none), "setrlimit");
	if (!become_unprivileged())
		return 2;
	child = start(&socket);
	check_equal(set(child, SCHED_IDLE), 0, "without privilege it is made so as well");
	check_equal(set(child, SCHED_OTHER), -EPERM, "but can't be made SCHED_OTHER");
	check_equal(sched_getscheduler(child), SCHED_IDLE, "and stays what it is");
	(void)close(socket);
	(void)child_status(child);
	return check_n_failed > 0;
}

int main(void)
{
	pid_t child;
	int status;

	check_begin();
	with_privilege();
	child = must(fork(), "fork");
	if (child == 0)
		_exit(without_privilege());
	status = child_status(child);
	check_n_done += status == 2 ? 0 : 3; /* the child's lines */
	if (status == 2)
		check_skip("without privilege it can't be ended", "no other user");
	else
		check_n_failed += status != 0;
	return check_end();
}
