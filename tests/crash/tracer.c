/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "tracer.h"

#define SIGNAL_AT_CALL (SIGTRAP | 0x80) /* PTRACE_O_TRACESYSGOOD */

/* Whether the calls of the task are not to be seen: it is there to make a child. */
static bool is_parent(const struct tracer *tracer, pid_t tid)
{
	return tracer->options.with_child && tid == tracer->options.pid;
}

static int task_resume(const struct tracer *tracer, pid_t tid, int number)
{
	return task_request(tid, is_parent(tracer, tid) ? PTRACE_CONT : PTRACE_SYSCALL,
			    (unsigned long)number);
}

static struct tracer_task *tracer_find(struct tracer *tracer, pid_t tid)
{
	for (size_t i = 0; i < tracer->n_tasks; i++)
		if (tracer->tasks[i].tid == tid)
			return &tracer->tasks[i];
	return NULL;
}

/* Returns NULL if there are too many. */
static struct tracer_task *tracer_add(struct tracer *tracer, pid_t tid)
{
	struct tracer_task *task;

	if (tracer->n_tasks == TRACER_TASKS_MAX)
		return NULL;
	task = &tracer->tasks[tracer->n_tasks++];
	*task = (struct tracer_task){.tid = tid};
	return task;
}

static void tracer_remove(struct tracer *tracer, struct tracer_task *task)
{
	tracer->n_new -= task->is_new;
	*task = tracer->tasks[--tracer->n_tasks];
}

/* Attaching */

/* Of the process whose calls are seen. */
static unsigned long follow_options(const struct tracer *tracer)
{
	return PTRACE_O_TRACESYSGOOD |
	       (tracer->options.with_threads ? PTRACE_O_TRACECLONE : 0) |
	       (tracer->options.with_each_child ? PTRACE_O_EXITKILL : 0);
}

static unsigned long seize_options(const struct tracer *tracer)
{
	if (tracer->options.with_child)
		return PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
		       (tracer->options.with_each_child ? PTRACE_O_EXITKILL : 0);
	return follow_options(tracer);
}

/* A task's calls can be seen only after it has stood still once. */
static int tracer_seize(struct tracer *tracer, pid_t tid)
{
	struct tracer_task *task;

	if (ptrace(PTRACE_SEIZE, tid, NULL, seize_options(tracer)) < 0)
		return -errno;
	task = tracer_add(tracer, tid);
	if (!task)
		return -E2BIG;
	if (is_parent(tracer, tid))
		return 0;
	task->is_new = true;
	tracer->n_new++;
	return task_request(tid, PTRACE_INTERRUPT, 0);
}

/* Seizes the threads that are not traced yet. Returns their number or a negative errno. */
static int tracer_seize_threads(struct tracer *tracer)
{
	const size_t n_before = tracer->n_tasks;
	char path[64];
	struct dirent *entry;
	DIR *directory;
	int r = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)tracer->options.pid);
	directory = opendir(path);
	if (!directory)
		return -errno;
	while (r >= 0 && (entry = readdir(directory))) {
		pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (tid > 0 && !tracer_find(tracer, tid))
			r = tracer_seize(tracer, tid);
		/* it has ended, or was born traced and shows up at waitpid() */
		if (r == -ESRCH || r == -EPERM)
			r = 0;
	}
	(void)closedir(directory);
	return r < 0 ? r : (int)(tracer->n_tasks - n_before);
}

static int tracer_attach(struct tracer *tracer)
{
	int r = tracer_seize(tracer, tracer->options.pid);

	if (r < 0 || tracer->options.with_child || !tracer->options.with_threads)
		return r;
	/* a thread that is not seized yet can make more of them meanwhile */
	do
		r = tracer_seize_threads(tracer);
	while (r > 0);
	return r;
}

int tracer_init(struct tracer *tracer, const struct tracer_options *options)
{
	sigset_t signals;

	*tracer = (struct tracer){
		.options = *options,
		.process = options->with_child ? 0 : options->pid,
		.deadline_usec = time_now_usec() + options->timeout_usec,
		.signal_fd = -EBADF,
		.pid_fd = -EBADF,
	};
	/* inherited as ignored, it would not be sent when a task stands still */
	(void)signal(SIGCHLD, SIG_DFL); /* cannot fail for this signal */
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGCHLD);
	if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
		return -errno;
	tracer->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
	if (tracer->signal_fd < 0)
		return -errno;
	tracer->pid_fd = (int)syscall(SYS_pidfd_open, options->pid, 0);
	if (tracer->pid_fd < 0)
		return -errno;
	return tracer_attach(tracer);
}

/* A task that has come to stand still */

static int tracer_at_call(struct tracer *tracer, struct tracer_task *task,
			  struct tracer_event *ret_event)
{
	struct __ptrace_syscall_info info;
	bool is_told;
	int r;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, task->tid, sizeof(info), &info) < 0)
		return errno == ESRCH ? 0 : -errno;
	if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
		struct tracer_call call = {
			.number = (long)info.entry.nr,
			.instruction = info.instruction_pointer,
			.stack = info.stack_pointer,
		};

		memcpy(call.arguments, info.entry.args, sizeof(call.arguments));
		is_told = task_enter(task, &call, tracer->is_attached, ret_event);
	} else if (task->is_skipped) {
		r = task_end_skip(task);
		if (r < 0)
			return r;
		is_told = task_leave(task, task->skip_result, ret_event);
	} else {
		is_told = task_leave(task, (long)info.exit.rval, ret_event);
	}
	if (!is_told)
		return task_resume(tracer, task->tid, 0);
	tracer->held = task->tid;
	return 0;
}

/* PTRACE_EVENT_STOP: of a job control stop, at its end, at birth, by PTRACE_INTERRUPT. */
static int tracer_at_stop(struct tracer *tracer, struct tracer_task *task, int number,
			  bool was_new)
{
	int r;

	if (number != SIGTRAP)
		return task_request(task->tid, PTRACE_LISTEN, 0);
	if (was_new) {
		r = task_mend_call(task);
		if (r < 0)
			return r;
	}
	if (tracer->is_attached || tracer->n_new > 0)
		return task_resume(tracer, task->tid, 0);
	/* so that a signal which the caller sends comes before any further call */
	tracer->held = task->tid;
	return 0;
}

/* The child stands still for the first time. */
static int tracer_follow(struct tracer *tracer, pid_t tid)
{
	tracer->process = tid;
	/* it has inherited its parent's; its own children are left alone */
	return task_request(tid, PTRACE_SETOPTIONS, follow_options(tracer));
}

static int tracer_at_birth(struct tracer *tracer, struct tracer_task *task)
{
	pid_t tid = task->tid;

	if (!is_parent(tracer, tid) || tracer->options.with_each_child)
		return task_resume(tracer, tid, 0);
	tracer_remove(tracer, task);
	return task_request(tid, PTRACE_DETACH, 0);
}

static int tracer_stopped(struct tracer *tracer, pid_t tid, int status,
			  struct tracer_event *ret_event)
{
	struct tracer_task *task = tracer_find(tracer, tid);
	const int number = WSTOPSIG(status);
	bool was_new;
	int r;

	if (!task) { /* born traced: a thread of the followed process, or the child */
		task = tracer_add(tracer, tid);
		if (!task)
			return -E2BIG;
		r = tracer->process ? 0 : tracer_follow(tracer, tid);
		if (r < 0)
			return r;
	}
	/* any stop will do: it may come instead of the one that was asked for */
	was_new = task->is_new;
	tracer->n_new -= was_new;
	task->is_new = false;
	if (number == SIGNAL_AT_CALL)
		return tracer_at_call(tracer, task, ret_event);
	switch (status >> 16) {
	case 0:
		return task_resume(tracer, tid, number); /* the signal is passed on */
	case PTRACE_EVENT_STOP:
		return tracer_at_stop(tracer, task, number, was_new);
	default:
		return tracer_at_birth(tracer, task);
	}
}

static void tracer_died(struct tracer *tracer, pid_t tid, int status,
			struct tracer_event *ret_event)
{
	struct tracer_task *task = tracer_find(tracer, tid);

	if (task)
		tracer_remove(tracer, task);
	if (tid == tracer->process || (!tracer->process && tid == tracer->options.pid))
		*ret_event = (struct tracer_event){
			.kind = TRACER_EXITED,
			.tid = tid,
			.status = status,
		};
	if (tracer->options.with_each_child && tid == tracer->process)
		tracer->process = 0;
}

/* Events */

/* Takes one report of the kernel, if there is one. Returns whether, or a negative errno. */
static int tracer_take_report(struct tracer *tracer, struct tracer_event *ret_event)
{
	int r, status;
	pid_t tid = waitpid(-1, &status, __WALL | WNOHANG);

	if (tid == 0)
		return 0;
	if (tid < 0)
		return -errno;
	if (!WIFSTOPPED(status)) {
		tracer_died(tracer, tid, status, ret_event);
		return 1;
	}
	r = tracer_stopped(tracer, tid, status, ret_event);
	return r < 0 ? r : 1;
}

static int msec_until(uint64_t deadline_usec)
{
	const uint64_t now_usec = time_now_usec();

	if (now_usec >= deadline_usec)
		return 0;
	return (int)((deadline_usec - now_usec + USEC_PER_MSEC - 1) / USEC_PER_MSEC);
}

/* Looks for what no report tells, and waits for the next report if is_idle. */
static int tracer_wait(struct tracer *tracer, bool is_idle,
		       struct tracer_event *ret_event)
{
	const bool has_child = tracer->options.with_child && tracer->process;
	const int left_msec = msec_until(tracer->deadline_usec);
	struct pollfd pollfds[] = {
		{.fd = tracer->signal_fd, .events = POLLIN},
		{.fd = has_child ? tracer->pid_fd : -1, .events = POLLIN},
	};
	struct signalfd_siginfo signal;

	if (left_msec == 0) {
		ret_event->kind = TRACER_TIMED_OUT;
		return 0;
	}
	if (poll(pollfds, 2, is_idle ? left_msec : 0) < 0)
		return -errno;
	if (pollfds[0].revents)
		/* it says only that waitpid() is worth a try, which comes anyway */
		(void)!read(tracer->signal_fd, &signal, sizeof(signal));
	if (pollfds[1].revents) {
		tracer->pid_fd = fd_close(tracer->pid_fd);
		ret_event->kind = TRACER_PARENT_EXITED;
	}
	return 0;
}

static int tracer_let_go(struct tracer *tracer)
{
	pid_t tid = tracer->held;

	tracer->held = 0;
	return tid ? task_resume(tracer, tid, 0) : 0;
}

int tracer_next(struct tracer *tracer, struct tracer_event *ret_event)
{
	struct tracer_event event = {.kind = TRACER_NONE};
	bool is_idle = false;
	int r = tracer_let_go(tracer);

	while (r >= 0 && event.kind == TRACER_NONE) {
		if (!tracer->is_attached && tracer->n_new == 0) {
			tracer->is_attached = true;
			event.kind = TRACER_ATTACHED;
			break;
		}
		r = tracer_wait(tracer, is_idle, &event);
		if (r < 0 || event.kind != TRACER_NONE)
			break;
		r = tracer_take_report(tracer, &event);
		is_idle = r == 0;
	}
	if (r < 0)
		return r;
	*ret_event = event;
	return 0;
}

int tracer_poll(struct tracer *tracer, struct tracer_event *ret_event)
{
	struct tracer_event event = {.kind = TRACER_NONE};
	struct signalfd_siginfo signal;
	int r = tracer_let_go(tracer);

	tracer->is_attached = true;
	/* before the reports that it announces are taken */
	(void)!read(tracer->signal_fd, &signal, sizeof(signal));
	while (r >= 0 && event.kind == TRACER_NONE) {
		r = tracer_take_report(tracer, &event);
		if (r == 0)
			break;
	}
	if (r < 0)
		return r;
	*ret_event = event;
	return 0;
}

int tracer_skip(struct tracer *tracer, long result)
{
	struct tracer_task *task = tracer_find(tracer, tracer->held);

	if (!task || !task->is_in_call)
		return -EINVAL;
	return task_skip_call(task, result);
}

void tracer_done(struct tracer *tracer)
{
	tracer->signal_fd = fd_close(tracer->signal_fd);
	tracer->pid_fd = fd_close(tracer->pid_fd);
}

int tracer_kill(struct tracer *tracer)
{
	tracer->held = 0; /* SIGKILL moves it */
	return kill(tracer->process, SIGKILL) < 0 ? -errno : 0;
}
