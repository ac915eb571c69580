/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One task of tracer.h: where it is in its system calls, and what is done to them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/ptrace.h>
#include <sys/types.h>

#define TRACER_ARGUMENTS 6

struct tracer_event;

/* A system call as it is known again when the kernel takes it up once more. */
struct tracer_call {
	long number;
	uint64_t arguments[TRACER_ARGUMENTS];
	uint64_t instruction;
	uint64_t stack;
};

struct tracer_task {
	pid_t tid;
	bool is_new;         /* attached, but not yet seen standing still */
	bool is_in_call;     /* its TRACER_ENTERED was given, its TRACER_LEFT was not */
	bool is_interrupted; /* call is to be taken up again */
	bool is_skipped;     /* by tracer_skip() */
	long skip_result;
	struct tracer_call call;
};

/* A ptrace(2) request. A task that is no more is no error: waitpid() reports its end. */
int task_request(pid_t tid, enum __ptrace_request request, unsigned long data);

/* To be called for a task that PTRACE_INTERRUPT has stopped, so that it notices nothing. */
int task_mend_call(struct tracer_task *task);

/* The task stands before a call, or behind it: returns whether the caller is to be told. */
bool task_enter(struct tracer_task *task, const struct tracer_call *call,
		bool is_attached, struct tracer_event *ret_event);
bool task_leave(struct tracer_task *task, long result, struct tracer_event *ret_event);

/* Before a call: it is not made; and behind it: the task gets the result. */
int task_skip_call(struct tracer_task *task, long result);
int task_end_skip(struct tracer_task *task);
