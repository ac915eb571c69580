/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A thread may choose the CPUs on which any thread of its user runs, among those that it
 * is given, without a privilege; what it starts has them too, also by exec; and they can
 * be had back. Whoever holds one end of a socket pair learns from it who made the pair.
 *
 * base (leisure) relies on it: a takeover's new process starts on a CPU of its own.
 * Source: sched_setaffinity(2), unix(7) on SO_PEERCRED.
 */

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

#include "check.h"

#define SAY "say"

static cpu_set_t get(pid_t pid)
{
	cpu_set_t cpus;

	(void)must(sched_getaffinity(pid, sizeof(cpus), &cpus), "sched_getaffinity");
	return cpus;
}

static int set(pid_t pid, const cpu_set_t *cpus)
{
	return sched_setaffinity(pid, sizeof(*cpus), cpus);
}

static sem_t ended;

static void *wait_for_end(void *unused)
{
	(void)sem_wait(&ended);
	return unused;
}

/* Whether a program that a child executes, kept to one CPU before, runs on just one. */
static bool is_inherited(const cpu_set_t *one)
{
	char program[] = "/proc/self/exe", argument[] = SAY;
	char *arguments[] = {program, argument, NULL};
	pid_t pid = must(fork(), "fork");

	if (pid == 0) {
		if (set(0, one) == 0)
			(void)execv(program, arguments);
		_exit(EXIT_FAILURE);
	}
	return child_status(pid) == EXIT_SUCCESS;
}

static void check_threads(const cpu_set_t *all, const cpu_set_t *rest)
{
	cpu_set_t cpus;
	pthread_t thread;

	(void)sem_init(&ended, 0, 0);
	check_equal(pthread_create(&thread, NULL, wait_for_end, NULL), 0, "a thread");
	check_equal(pthread_setaffinity_np(thread, sizeof(*rest), rest), 0,
		    "another thread can be kept off one CPU");
	(void)pthread_getaffinity_np(thread, sizeof(cpus), &cpus);
	check(CPU_EQUAL(&cpus, rest), "and is");
	cpus = get(0);
	check(CPU_EQUAL(&cpus, all), "the caller is not");
	check_equal(pthread_setaffinity_np(thread, sizeof(*all), all), 0,
		    "it gets it back");
	(void)pthread_getaffinity_np(thread, sizeof(cpus), &cpus);
	check(CPU_EQUAL(&cpus, all), "and has it");
	(void)sem_post(&ended);
	(void)pthread_join(thread, NULL);
}

/* In a child, which learns from the pair whose CPUs were all. */
static void check_learning(const cpu_set_t *all, const cpu_set_t *one)
{
	int pair[2];
	pid_t pid;

	(void)must(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), "socketpair");
	pid = must(fork(), "fork");
	if (pid == 0) {
		struct ucred peer = {.pid = 0};
		socklen_t size = sizeof(peer);
		cpu_set_t cpus;

		(void)must(set(0, one), "sched_setaffinity");
		(void)must(getsockopt(pair[1], SOL_SOCKET, SO_PEERCRED, &peer, &size),
			   "SO_PEERCRED");
		cpus = get(peer.pid);
		_exit(peer.pid == getppid() && CPU_EQUAL(&cpus, all) && set(0, &cpus) == 0
			      ? EXIT_SUCCESS
			      : EXIT_FAILURE);
	}
	check_equal(child_status(pid), EXIT_SUCCESS,
		    "a child learns whose pair it has, and takes up that process's CPUs");
}

int main(int argc, char *argv[])
{
	cpu_set_t all = get(0), one, rest;

	if (argc == 2 && strcmp(argv[1], SAY) == 0)
		return CPU_COUNT(&all) == 1 ? EXIT_SUCCESS : EXIT_FAILURE;
	check_begin();
	if (CPU_COUNT(&all) < 2) {
		check_skip("CPUs are divided", "there is one only");
		return check_end();
	}
	CPU_ZERO(&one);
	CPU_SET((size_t)must(sched_getcpu(), "sched_getcpu"), &one);
	CPU_XOR(&rest, &all, &one);
	check(is_inherited(&one), "a program that a child executes keeps to its CPU");
	check_threads(&all, &rest);
	check_learning(&all, &one);
	return check_end();
}
