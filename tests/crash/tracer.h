/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The tracer: follows the system calls of a process that it did not start, by ptrace(2),
 * and lets its caller act while the process stands before or behind one of them. It
 * counts nothing and decides nothing.
 *
 * Invariants:
 * - A task (a thread, in the kernel's words) stands still only while the caller holds an
 *   event of it, that is until the next tracer_next(). At most one does.
 * - No blocking call fails because of the tracer. Attaching breaks off the call that is
 *   in progress, and the kernel takes it up again.
 * - Detaching is the end of this program: the kernel then lets go of every task without
 *   waking it, and a task that stood still goes on, with the signal that it was about to
 *   get. PTRACE_DETACH would have to break off what is in progress first.
 * - It is never the parent of what it traces. The parent learns of an end, with its
 *   status, once tracer_next() has told it or this program has ended.
 *
 * It is for x86-64: it writes a register.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tracer-task.h"

/* Threads of one process that can be followed. */
#define TRACER_TASKS_MAX 1024

struct tracer_options {
	pid_t pid;
	/* Follow the next child process that pid's main thread makes, instead of pid. */
	bool with_child;
	/*
	 * with_child: when that is dead, follow the next one, and so on until pid is.
	 * What is traced dies with this program then.
	 */
	bool with_each_child;
	/* Follow each thread of the process, not only the main thread. */
	bool with_threads;
	uint64_t timeout_usec;
};

enum tracer_event_kind {
	TRACER_NONE,
	/* From now on no call is missed. The first event, once. */
	TRACER_ATTACHED,
	/* A task is about to make a system call. */
	TRACER_ENTERED,
	/*
	 * It has made the call of its last TRACER_ENTERED. Missing if the call does not
	 * return (exit_group), or was broken off and a signal handler is run: the next
	 * TRACER_ENTERED of the task says as much.
	 */
	TRACER_LEFT,
	/* with_child: pid has exited. Once, and not if pid has not made a child yet. */
	TRACER_PARENT_EXITED,
	/*
	 * The followed process (as long as there is no child: pid) is dead. The last one,
	 * unless with_each_child and it is not pid.
	 */
	TRACER_EXITED,
	TRACER_TIMED_OUT,
};

struct tracer_event {
	enum tracer_event_kind kind;
	pid_t tid;                            /* entered, left, exited */
	long number;                          /* entered: SYS_* */
	uint64_t arguments[TRACER_ARGUMENTS]; /* entered */
	long result; /* left: what the call returns, an error as a negative errno */
	int status;  /* exited: as of waitpid() */
};

struct tracer {
	struct tracer_options options;
	pid_t process; /* the followed one; 0 as long as there is no child */
	struct tracer_task tasks[TRACER_TASKS_MAX];
	size_t n_tasks;
	size_t n_new; /* tasks with is_new */
	bool is_attached;
	pid_t held; /* the task that stands still for the caller, or 0 */
	uint64_t deadline_usec;
	int signal_fd; /* SIGCHLD: a task stands still, or is dead */
	int pid_fd;    /* pid, as long as TRACER_PARENT_EXITED is not yet told */
};

/*
 * Begins to trace. The calling thread must be the only one of this program, and have no
 * children but pid. SIGCHLD is blocked from then on. Returns 0 or a negative errno:
 * -ESRCH, and -EPERM if pid may not be traced, or already is, or is a zombie.
 */
int tracer_init(struct tracer *tracer, const struct tracer_options *options);

/* Waits for the next event; first lets go of the task of the last one. Returns 0 or a
 * negative errno. */
int tracer_next(struct tracer *tracer, struct tracer_event *ret_event);

/*
 * As tracer_next(), but if there is no event now it is TRACER_NONE, and no time is too
 * long. tracer->signal_fd is readable when it is worth another try.
 */
int tracer_poll(struct tracer *tracer, struct tracer_event *ret_event);

/*
 * To be called while a TRACER_ENTERED is held: its call is not made, and returns result
 * (an error as a negative errno). Returns 0 or a negative errno.
 */
int tracer_skip(struct tracer *tracer, long result);

/*
 * Ends the tracing: what is traced goes on as the options say. The tracer may be begun
 * again.
 */
void tracer_done(struct tracer *tracer);

/*
 * Kills the followed process. A task that stands before a call does not make it
 * (ptrace_report_syscall() in the kernel; test_kill_at_call.py). TRACER_EXITED follows.
 * Returns 0 or a negative errno.
 */
int tracer_kill(struct tracer *tracer);
