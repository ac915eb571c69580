/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a new process does when the old one has handed over and ends: a process that was
 * started on one CPU, a thread of it in the place of a worker, and the old one.
 */
#include "unit.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/leisure.h"
#include "holdfastd/successor-private.h"
#include "holdfastd/worker.h"

#define PATIENCE_USEC (UNIT_PATIENCE_MSEC * USEC_PER_MSEC)

struct scene {
	int pair[2]; /* ours is the old process's end */
	struct cpus cpus;
	struct worker worker;
	struct shared shared;
	struct successor successor;
	sd_event *event;
	bool is_heard;
};

static void *wait_for_signal(void *unused)
{
	(void)pause();
	return unused;
}

static int released(void *userdata, bool is_heard)
{
	struct scene *scene = userdata;

	scene->is_heard = is_heard;
	return 0;
}

static bool has_cpus(const struct scene *scene, const cpu_set_t *expected)
{
	cpu_set_t cpus;

	return pthread_getaffinity_np(scene->worker.thread, sizeof(cpus), &cpus) == 0 &&
	       CPU_EQUAL(&cpus, expected);
}

static pid_t old_new(const struct scene *scene)
{
	pid_t pid = must(fork());

	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* Nobody has the new process's end but that */
		(void)close(scene->pair[1]);
		(void)pause();
		_exit(EXIT_SUCCESS);
	}
	return pid;
}

static void old_end(pid_t pid)
{
	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
}

/* As it is in a process that has just said that it serves. */
static void begin(struct scene *scene, pid_t old)
{
	leisure_begin(&scene->cpus);
	leisure_learn(scene->pair[1]);
	leisure_end();
	scene->shared = (struct shared){.workers = &scene->worker, .n_workers = 1};
	scene->successor = (struct successor){
		.socket = scene->pair[1],
		.shared = &scene->shared,
		.old_pid = (unsigned long long)old,
		.old_fd = -1,
	};
	(void)must(sd_event_new(&scene->event));
	assert_int_equal(pthread_create(&scene->worker.thread, NULL, wait_for_signal,
					NULL),
			 0);
	assert_true(has_cpus(scene, &scene->cpus.all));
	assert_int_equal(successor_watch_release(&scene->successor, scene->event,
						 released, scene),
			 0);
}

static void run_once(struct scene *scene)
{
	assert_true(sd_event_run(scene->event, PATIENCE_USEC) > 0);
}

static void release(struct scene *scene)
{
	struct handover message = {.type = HANDOVER_RELEASED};

	assert_int_equal(handover_send(scene->pair[0], &message, NULL), 0);
	run_once(scene);
	assert_true(scene->is_heard);
	assert_true(has_cpus(scene, &scene->cpus.all));
}

static void say_farewell(struct scene *scene)
{
	(void)must(shutdown(scene->pair[0], SHUT_WR));
	run_once(scene);
	/* For which the old one waits; its like here may be about to close a copy */
	assert_true(wait_for(scene->pair[0], 0) & POLLHUP);
}

/* Up to where the workers leave a CPU to the old process, which is still there. */
static pid_t begin_exit(struct scene *scene)
{
	pid_t old = old_new(scene);

	begin(scene, old);
	release(scene);
	say_farewell(scene);
	assert_true(has_cpus(scene, &scene->cpus.rest));
	return old;
}

static int exit_is_given_a_cpu(struct scene *scene)
{
	pid_t old = begin_exit(scene);

	old_end(old);
	run_once(scene);
	assert_true(has_cpus(scene, &scene->cpus.all));
	return EXIT_SUCCESS;
}

static int exit_that_takes_long_is_not_waited_for(struct scene *scene)
{
	pid_t old = begin_exit(scene);

	run_once(scene);
	assert_true(has_cpus(scene, &scene->cpus.all));
	old_end(old);
	return EXIT_SUCCESS;
}

static int end_that_came_already_takes_nothing(struct scene *scene)
{
	pid_t old = old_new(scene);

	begin(scene, old);
	old_end(old);
	release(scene);
	say_farewell(scene);
	assert_true(has_cpus(scene, &scene->cpus.all));
	return EXIT_SUCCESS;
}

static int cpus_that_were_not_divided_stay(struct scene *scene)
{
	pid_t old = old_new(scene);

	scene->cpus.one = scene->cpus.all;
	begin(scene, old);
	release(scene);
	/* Nothing more is to be heard of the old one, which must not wait for it */
	assert_true(wait_for(scene->pair[0], 0) & POLLHUP);
	old_end(old);
	assert_true(has_cpus(scene, &scene->cpus.all));
	return EXIT_SUCCESS;
}

/* As of an old process that is dead, the kernel tells nothing of it. */
static int cpus_of_nobody_are_all(struct scene *scene)
{
	int socket_of_nobody = must(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
	cpu_set_t cpus;

	leisure_begin(&scene->cpus);
	leisure_learn(socket_of_nobody);
	leisure_end();
	(void)close(socket_of_nobody);
	(void)must(sched_getaffinity(0, sizeof(cpus), &cpus));
	/* More, if this test was given some only */
	CPU_AND(&cpus, &cpus, &scene->cpus.all);
	assert_true(CPU_EQUAL(&cpus, &scene->cpus.all));
	return EXIT_SUCCESS;
}

/* run: in a process that somebody with all CPUs has made a socket pair for. */
static void run_apart(int (*run)(struct scene *scene))
{
	struct scene scene = {0};
	int status;
	pid_t pid;

	if (!cpus_divide(&scene.cpus))
		skip(); /* There is one only */
	(void)must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
			      scene.pair));
	pid = must(fork());
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* A failed assertion must not go on with the next test in this process */
		(void)signal(SIGABRT, SIG_DFL);
		(void)setenv("CMOCKA_TEST_ABORT", "1", 1);
		_exit(run(&scene));
	}
	(void)close(scene.pair[0]);
	(void)close(scene.pair[1]);
	(void)must(waitpid(pid, &status, 0));
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), EXIT_SUCCESS);
}

static void workers_leave_a_cpu_to_the_exit(void **state)
{
	(void)state;
	run_apart(exit_is_given_a_cpu);
}

static void workers_wait_no_longer_than_they_may(void **state)
{
	(void)state;
	run_apart(exit_that_takes_long_is_not_waited_for);
}

static void process_that_has_gone_is_left_nothing(void **state)
{
	(void)state;
	run_apart(end_that_came_already_takes_nothing);
}

static void undivided_cpus_are_left_alone(void **state)
{
	(void)state;
	run_apart(cpus_that_were_not_divided_stay);
}

static void process_that_nobody_knows_gets_all_cpus(void **state)
{
	(void)state;
	run_apart(cpus_of_nobody_are_all);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(workers_leave_a_cpu_to_the_exit),
		cmocka_unit_test(workers_wait_no_longer_than_they_may),
		cmocka_unit_test(process_that_has_gone_is_left_nothing),
		cmocka_unit_test(undivided_cpus_are_left_alone),
		cmocka_unit_test(process_that_nobody_knows_gets_all_cpus),
	};

	return UNIT_RUN("release", tests);
}
