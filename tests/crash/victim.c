/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * crash-victim: what kill-at-call's tests trace. Says "ready", waits for SIGUSR2 in a
 * blocking call, and then makes a few system calls which the tests know by name.
 *
 *   crash-victim epoll|read|pause [busy]   getppid, write, exit; busy: with threads that
 *                                          make calls of their own all the time
 *   crash-victim threads                   an old and a new thread make a call each
 *   crash-victim spawn                     spawns a successor, and exits when that says so
 *
 * Exits with VICTIM_DISTURBED if a call that waits has come back without a reason.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define VICTIM_DISTURBED 70
#define VICTIM_FAILED 71
/* Where the successor finds the pipe to its predecessor. */
#define SUCCESSOR_FD 3

extern char **environ;

static int signal_fd, epoll_fd, event_fd;

/* Without what exit() does before: the very next call is this one. */
__attribute__((noreturn)) static void victim_exit(int status)
{
	for (;;)
		(void)syscall(SYS_exit_group, status);
}

static long must(long result)
{
	if (result < 0)
		victim_exit(VICTIM_FAILED);
	return result;
}

static void say(const char *line)
{
	(void)must(write(STDOUT_FILENO, line, strlen(line)));
}

static void on_signal(int number)
{
	(void)number;
}

static int watch(int fd)
{
	struct epoll_event event = {.events = EPOLLIN};
	int watcher = (int)must(epoll_create1(EPOLL_CLOEXEC));

	(void)must(epoll_ctl(watcher, EPOLL_CTL_ADD, fd, &event));
	return watcher;
}

static void block_signals(void)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGUSR2);
	(void)sigaddset(&signals, SIGCHLD);
	(void)must(sigprocmask(SIG_BLOCK, &signals, NULL));
	signal_fd = (int)must(signalfd(-1, &signals, SFD_CLOEXEC));
	epoll_fd = watch(signal_fd);
}

static void wait_for_signal(const char *how)
{
	struct signalfd_siginfo signal;
	struct epoll_event event;

	if (strcmp(how, "pause") == 0) /* which always fails */
		(void)syscall(SYS_pause);
	else if (strcmp(how, "epoll") == 0 && epoll_wait(epoll_fd, &event, 1, -1) != 1)
		victim_exit(VICTIM_DISTURBED);
	else if (strcmp(how, "read") == 0 &&
		 read(signal_fd, &signal, sizeof(signal)) != sizeof(signal))
		victim_exit(VICTIM_DISTURBED);
}

static void act(const char *how)
{
	say("ready\n");
	wait_for_signal(how);
	(void)syscall(SYS_getppid);
	say("acted\n");
	victim_exit(0);
}

/* Threads */

static void *be_busy(void *unused)
{
	for (;;)
		(void)syscall(SYS_getuid);
	return unused;
}

/* Nothing is ever to be read. */
static void *wait_for_ever(void *unused)
{
	struct epoll_event event;

	(void)epoll_wait(watch(event_fd), &event, 1, -1);
	victim_exit(VICTIM_DISTURBED);
	return unused;
}

static void *call_getpgrp(void *unused)
{
	uint64_t count;

	(void)must(read(event_fd, &count, sizeof(count)));
	(void)syscall(SYS_getpgrp);
	return unused;
}

static void *call_getsid(void *unused)
{
	(void)syscall(SYS_getsid, 0);
	return unused;
}

static pthread_t start(void *(*routine)(void *))
{
	pthread_t thread;

	(void)must(-pthread_create(&thread, NULL, routine, NULL));
	return thread;
}

static void act_with_threads(void)
{
	pthread_t thread = start(call_getpgrp);

	say("ready\n");
	wait_for_signal("epoll");
	(void)must(eventfd_write(event_fd, 1));
	(void)must(-pthread_join(thread, NULL));
	(void)must(-pthread_join(start(call_getsid), NULL));
	victim_exit(0);
}

/* Two processes */

static void spawn_successor(char *program, int pipe_fd)
{
	char *const arguments[] = {program, (char[]){"successor"}, NULL};
	posix_spawn_file_actions_t actions;
	pid_t pid;

	(void)must(-posix_spawn_file_actions_init(&actions));
	(void)must(-posix_spawn_file_actions_adddup2(&actions, pipe_fd, SUCCESSOR_FD));
	(void)must(-posix_spawn(&pid, program, &actions, NULL, arguments, environ));
}

static void tell_end_of_child(void)
{
	int status;
	char line[64];

	(void)must(wait(&status));
	(void)snprintf(line, sizeof(line), "child died of %d\n",
		       WIFSIGNALED(status) ? WTERMSIG(status) : 0);
	say(line);
	victim_exit(0);
}

static void await_successor(int pipe_fd)
{
	struct pollfd pollfds[] = {
		{.fd = pipe_fd, .events = POLLIN},
		{.fd = signal_fd, .events = POLLIN},
	};

	for (;;) {
		(void)must(poll(pollfds, 2, -1));
		/* first: it may have said it and be dead */
		if (pollfds[0].revents & POLLIN) {
			say("succeeded\n");
			victim_exit(0);
		}
		if (pollfds[0].revents)
			pollfds[0].fd = -1;
		if (pollfds[1].revents)
			tell_end_of_child();
	}
}

static void be_succeeded(char *program)
{
	struct signalfd_siginfo signal;
	int ends[2];

	(void)must(pipe2(ends, O_CLOEXEC));
	say("ready\n");
	wait_for_signal("epoll");
	(void)must(read(signal_fd, &signal, sizeof(signal)));
	spawn_successor(program, ends[1]);
	(void)close(ends[1]);
	await_successor(ends[0]);
}

static void succeed(void)
{
	struct pollfd pollfd = {.events = POLLIN};

	pollfd.fd = (int)must(syscall(SYS_pidfd_open, syscall(SYS_getppid), 0));
	(void)must(write(SUCCESSOR_FD, "", 1));
	(void)must(syscall(SYS_poll, &pollfd, 1, -1));
	(void)syscall(SYS_getpgrp);
	say("alone\n");
	victim_exit(0);
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";

	if (strcmp(how, "successor") == 0)
		succeed();
	/* Yama lets only ancestors trace otherwise; without Yama it fails */
	(void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	event_fd = (int)must(eventfd(0, EFD_CLOEXEC));
	if (strcmp(how, "pause") == 0)
		(void)signal(SIGUSR2, on_signal);
	else
		block_signals();
	if (argc > 2)
		(void)start(be_busy), (void)start(wait_for_ever);
	if (strcmp(how, "spawn") == 0)
		be_succeeded(argv[0]);
	if (strcmp(how, "threads") == 0)
		act_with_threads();
	act(how);
}
