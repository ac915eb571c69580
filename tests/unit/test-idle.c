/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/idle.h"

static pid_t start(void)
{
	pid_t pid = must(fork());

	if (pid == 0)
		for (;;)
			(void)pause();
	return pid;
}

static void end(pid_t pid)
{
	(void)must(kill(pid, SIGKILL));
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Runs test in a child whose policy and nice value may change. */
static void in_child(void (*test)(void))
{
	pid_t pid = must(fork());
	int status;

	if (pid == 0) {
		test();
		_exit(EXIT_SUCCESS);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void require(bool holds)
{
	if (!holds)
		_exit(EXIT_FAILURE);
}

/* Whatever it was allowed to do, idle_end() leaves nothing of it. */
static void begun_is_ended(void **state)
{
	pid_t pid = start();
	int nice = getpriority(PRIO_PROCESS, 0);

	(void)state;
	if (idle_begin(pid))
		assert_int_equal(sched_getscheduler(pid), SCHED_IDLE);
	else
		assert_int_equal(sched_getscheduler(pid), SCHED_OTHER);
	idle_end(pid);
	assert_int_equal(sched_getscheduler(pid), SCHED_OTHER);
	assert_int_equal(sched_getscheduler(0), SCHED_OTHER);
	assert_int_equal(getpriority(PRIO_PROCESS, 0), nice);
	end(pid);
}

/* The tests run as root as a rule, where nothing else would show that it works. */
static void root_may_begin(void **state)
{
	pid_t pid;

	(void)state;
	if (setpriority(PRIO_PROCESS, 0, -1) < 0)
		skip(); /* no root, or that of a user namespace */
	(void)must(setpriority(PRIO_PROCESS, 0, 0));
	pid = start();
	assert_true(idle_begin(pid));
	idle_end(pid);
	assert_int_equal(sched_getscheduler(pid), SCHED_OTHER);
	end(pid);
}

static void try_without_leave(void)
{
	const struct rlimit none = {0};
	pid_t pid;

	require(setrlimit(RLIMIT_NICE, &none) == 0);
	if (geteuid() == 0)
		require(setresgid(65534, 65534, 65534) == 0 &&
			setresuid(65534, 65534, 65534) == 0);
	pid = start();
	require(!idle_begin(pid));
	require(sched_getscheduler(pid) == SCHED_OTHER);
	end(pid);
}

static void what_could_not_be_ended_is_not_begun(void **state)
{
	(void)state;
	in_child(try_without_leave);
}

static void try_as_idle(void)
{
	const struct sched_param param = {0};
	pid_t pid;

	require(sched_setscheduler(0, SCHED_IDLE, &param) == 0);
	pid = start();
	require(!idle_begin(pid));
	require(sched_getscheduler(pid) == SCHED_IDLE);
	end(pid);
}

static void other_policies_are_left_alone(void **state)
{
	(void)state;
	in_child(try_as_idle);
}

static void *tell_thread(void *userdata)
{
	int *fd = userdata;
	pid_t id = (pid_t)syscall(SYS_gettid);

	require(write(*fd, &id, sizeof(id)) == sizeof(id));
	for (;;)
		(void)pause();
	return NULL;
}

/* Starts a thread as soon as it is told to, and tells its id. */
static pid_t start_with_thread(int socket)
{
	pid_t pid = must(fork());
	pthread_t thread;
	char byte;

	if (pid != 0)
		return pid;
	require(read(socket, &byte, 1) == 1);
	require(pthread_create(&thread, NULL, tell_thread, &socket) == 0);
	for (;;)
		(void)pause();
}

static void threads_are_ended_too(void **state)
{
	int pair[2];
	pid_t pid, thread;
	bool is_begun;

	(void)state;
	(void)must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	pid = start_with_thread(pair[1]);
	is_begun = idle_begin(pid);
	write_exactly(pair[0], "", 1);
	read_exactly(pair[0], &thread, sizeof(thread));
	assert_int_equal(sched_getscheduler(thread), is_begun ? SCHED_IDLE : SCHED_OTHER);
	idle_end(pid);
	assert_int_equal(sched_getscheduler(thread), SCHED_OTHER);
	assert_int_equal(sched_getscheduler(pid), SCHED_OTHER);
	end(pid);
	(void)close(pair[0]);
	(void)close(pair[1]);
}

static void who_has_gone_is_no_error(void **state)
{
	pid_t pid = start();

	(void)state;
	end(pid);
	assert_false(idle_begin(pid));
	idle_end(pid);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(begun_is_ended),
		cmocka_unit_test(root_may_begin),
		cmocka_unit_test(what_could_not_be_ended_is_not_begun),
		cmocka_unit_test(other_policies_are_left_alone),
		cmocka_unit_test(threads_are_ended_too),
		cmocka_unit_test(who_has_gone_is_no_error),
	};

	return UNIT_RUN("idle", tests);
}
