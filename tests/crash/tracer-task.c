/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tracer-task.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/user.h>

#include "tracer.h"

/* What a call that was broken off returns within the kernel; in no header of glibc. */
#define ERESTARTSYS 512
#define ERESTARTNOINTR 513
#define ERESTARTNOHAND 514
#define ERESTART_RESTARTBLOCK 516

int task_request(pid_t tid, enum __ptrace_request request, unsigned long data)
{
	if (ptrace(request, tid, NULL, data) < 0 && errno != ESRCH)
		return -errno;
	return 0;
}

static bool is_broken_off(long result)
{
	return result == -ERESTARTSYS || result == -ERESTARTNOINTR ||
	       result == -ERESTARTNOHAND || result == -ERESTART_RESTARTBLOCK;
}

static bool is_same_call(const struct tracer_call *old, const struct tracer_call *new)
{
	return old->instruction == new->instruction && old->stack == new->stack &&
	       (old->number == new->number || new->number == SYS_restart_syscall);
}

/*
 * PTRACE_INTERRUPT has broken off what the task was waiting for. Most calls are taken up
 * again by the kernel, but epoll_wait(2) and others (signal(7)) return EINTR for it. As
 * ERESTARTNOHAND they are taken up, too, unless a signal has come for which a handler is
 * run: then it is EINTR, as without a tracer.
 */
int task_mend_call(struct tracer_task *task)
{
	struct user_regs_struct registers;
	long result;

	if (ptrace(PTRACE_GETREGS, task->tid, NULL, &registers) < 0)
		return errno == ESRCH ? 0 : -errno;
	result = (long)registers.rax;
	if ((long)registers.orig_rax < 0) /* was in no call */
		return 0;
	if (result == -EINTR) {
		result = -ERESTARTNOHAND;
		if (ptrace(PTRACE_POKEUSER, task->tid, offsetof(struct user, regs.rax),
			   result) < 0)
			return errno == ESRCH ? 0 : -errno;
	}
	task->is_interrupted = is_broken_off(result);
	task->call = (struct tracer_call){
		.number = (long)registers.orig_rax,
		.instruction = registers.rip,
		.stack = registers.rsp,
	};
	return 0;
}

bool task_enter(struct tracer_task *task, const struct tracer_call *call,
		bool is_attached, struct tracer_event *ret_event)
{
	const bool is_again = task->is_interrupted && is_same_call(&task->call, call);

	task->is_interrupted = false;
	if (is_again)
		return false;
	task->call = *call;
	task->is_in_call = is_attached;
	if (!is_attached)
		return false;
	*ret_event = (struct tracer_event){
		.kind = TRACER_ENTERED,
		.tid = task->tid,
		.number = call->number,
	};
	memcpy(ret_event->arguments, call->arguments, sizeof(call->arguments));
	return true;
}

bool task_leave(struct tracer_task *task, long result, struct tracer_event *ret_event)
{
	task->is_interrupted = is_broken_off(result);
	if (task->is_interrupted || !task->is_in_call)
		return false;
	task->is_in_call = false;
	*ret_event = (struct tracer_event){
		.kind = TRACER_LEFT,
		.tid = task->tid,
		.result = result,
	};
	return true;
}

int task_skip_call(struct tracer_task *task, long result)
{
	if (ptrace(PTRACE_POKEUSER, task->tid, offsetof(struct user, regs.orig_rax),
		   -1L) < 0)
		return errno == ESRCH ? 0 : -errno;
	task->is_skipped = true;
	task->skip_result = result;
	return 0;
}

/* The kernel has made no call, for want of one of the number that tracer_skip() wrote. */
int task_end_skip(struct tracer_task *task)
{
	task->is_skipped = false;
	if (ptrace(PTRACE_POKEUSER, task->tid, offsetof(struct user, regs.rax),
		   task->skip_result) < 0)
		return errno == ESRCH ? 0 : -errno;
	return 0;
}
