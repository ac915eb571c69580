/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "service.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "syscall-names.h" /* syscall_names[], by number */

/* A service that does not stay up comes to no rest. */
#define PROCESSES_MAX 30
/* Looks at a service that is not at rest: so often giving way only, from then on asleep.
 */
#define YIELDS_MAX 200

static const size_t n_names = sizeof(syscall_names) / sizeof(syscall_names[0]);

static_assert(sizeof(syscall_names) / sizeof(syscall_names[0]) <= CALL_EPOLL_CTL_ADD,
	      "its number must not be another call's");

const char *call_name(long kind)
{
	static char other[32];

	if (kind == CALL_EPOLL_CTL_ADD)
		return "epoll_ctl_add";
	if (kind >= 0 && (size_t)kind < n_names && syscall_names[kind])
		return syscall_names[kind];
	(void)snprintf(other, sizeof(other), "syscall_%ld", kind);
	return other;
}

long call_find(const char *name)
{
	for (long kind = 0; kind < CALL_KINDS; kind++)
		if (strcmp(call_name(kind), name) == 0)
			return kind;
	return -1;
}

static long call_kind(const struct tracer_event *event)
{
	if (event->number == SYS_epoll_ctl && event->arguments[1] == EPOLL_CTL_ADD)
		return CALL_EPOLL_CTL_ADD;
	return event->number >= 0 && event->number < CALL_KINDS ? event->number : 0;
}

/* The start */

/* In the child, which waits until it is traced. */
__attribute__((noreturn)) static void become_keeper(int gate, int said,
						    char *const arguments[])
{
	char byte;

	/* no bytes: the parent has given up */
	if (read(gate, &byte, 1) == 1 && dup2(said, STDERR_FILENO) >= 0 &&
	    dup2(said, STDOUT_FILENO) >= 0) {
		sigset_t none;

		(void)sigemptyset(&none);
		(void)sigprocmask(SIG_SETMASK, &none, NULL);
		(void)execv(arguments[0], arguments);
	}
	_exit(127);
}

static int spawn_keeper(struct service *service, char *const arguments[], int *ret_gate)
{
	int gate[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate) < 0)
		return -errno;
	service->keeper = fork();
	if (service->keeper == 0) {
		(void)close(gate[1]);
		become_keeper(gate[0], service->said_fd, arguments);
	}
	(void)close(gate[0]);
	if (service->keeper < 0) {
		(void)close(gate[1]);
		return -errno;
	}
	*ret_gate = gate[1];
	return 0;
}

static int trace_keeper(struct service *service, int gate, uint64_t timeout_usec)
{
	const struct tracer_options options = {
		.pid = service->keeper,
		.with_child = true,
		.with_each_child = true,
		.with_threads = true,
		.timeout_usec = timeout_usec,
	};
	int r = tracer_init(&service->tracer, &options);

	if (r == 0 && write(gate, "", 1) < 0)
		r = -errno;
	return r;
}

int service_start(struct service *service, const char *keeper, const char *listen,
		  char *const command[], uint64_t timeout_usec)
{
	_cleanup_close_ int gate = -EBADF;
	char listen_option[128];
	char *arguments[32];
	size_t n = 0;
	int r;

	(void)snprintf(listen_option, sizeof(listen_option), "--listen=%s", listen);
	arguments[n++] = (char *)(uintptr_t)keeper;
	arguments[n++] = listen_option;
	/* a test kills often: the growing delay would be all that it waits for */
	arguments[n++] = (char[]){"--restart-delay-max=0"};
	/* whatever a call that fails makes the service end with, it is started again */
	arguments[n++] = (char[]){"--restart-prevent-exit-status=255"};
	arguments[n++] = (char[]){"--"};
	while (*command && n < sizeof(arguments) / sizeof(arguments[0]) - 1)
		arguments[n++] = *command++;
	arguments[n] = NULL;

	service->tracer.signal_fd = service->tracer.pid_fd = -EBADF;
	service->deadline_usec = time_now_usec() + timeout_usec;
	service->said_fd = memfd_create("said", MFD_CLOEXEC);
	if (service->said_fd < 0)
		return -errno;
	r = spawn_keeper(service, arguments, &gate);
	return r < 0 ? r : trace_keeper(service, gate, timeout_usec);
}

void service_stop(struct service *service)
{
	int status;

	/* The keeper first, or it would start another */
	if (service->keeper > 0)
		(void)kill(service->keeper, SIGKILL);
	if (service->tracer.process > 0)
		(void)kill(service->tracer.process, SIGKILL);
	/* Its processes are reported to their tracer, which we are, until there are none
	 */
	while (waitpid(-1, &status, __WALL) > 0 || errno == EINTR)
		;
	tracer_done(&service->tracer);
	service->said_fd = fd_close(service->said_fd);
}

/* What happens at a call */

static bool is_at_point(const struct service_thread *thread, const struct point *point)
{
	if (point->call_kind == CALL_ANY)
		return point->call == thread->n_calls;
	return point->call_kind == thread->call &&
	       point->call == thread->n_calls_of[thread->call];
}

static struct service_thread *find_thread(struct service *service, pid_t tid)
{
	struct service_thread *thread;

	for (unsigned i = 0; i < service->n_threads; i++)
		if (service->threads[i].tid == tid)
			return &service->threads[i];
	if (service->n_threads == SERVICE_THREADS_MAX)
		return NULL;
	thread = &service->threads[service->n_threads++];
	*thread = (struct service_thread){.tid = tid, .call = -1};
	return thread;
}

static struct point *find_point(struct service *service,
				const struct service_thread *thread)
{
	for (size_t i = 0; i < service->n_points; i++) {
		struct point *point = &service->points[i];

		if (point->process == service->n_processes &&
		    point->thread == (unsigned)(thread - service->threads) &&
		    !point->is_reached && is_at_point(thread, point))
			return point;
	}
	return NULL;
}

static int point_kill(struct service *service, struct point *point)
{
	int r = tracer_kill(&service->tracer);

	if (r < 0)
		return r;
	/* It may be any thread that dies between the two */
	for (unsigned i = 0; i < service->n_threads; i++)
		if (service->threads[i].is_unprotected)
			point->is_unprotected = true;
	point->is_reached = true;
	service->n_unprotected_kills += point->is_unprotected;
	return 0;
}

static int point_fail(struct service *service, struct point *point)
{
	point->is_reached = true;
	return tracer_skip(&service->tracer, -point->error);
}

static bool is_sleep(long call)
{
	return call == SYS_clock_nanosleep || call == SYS_nanosleep;
}

static int thread_entered(struct service *service, struct service_thread *thread)
{
	struct point *point;

	thread->n_calls++;
	thread->n_calls_of[thread->call]++;
	service->n_calls++;
	point = find_point(service, thread);
	thread->at = NULL;
	if (point) {
		point->reached_kind = thread->call;
		if (point->kind == POINT_BEFORE)
			return point_kill(service, point);
		if (point->kind == POINT_FAIL)
			return point_fail(service, point);
		thread->at = point;
	}
	/* A service that can't start waits before it gives up: that would only take time.
	 * A thread of a sanitizer's sleeps all the time. */
	if (thread == service->threads && is_sleep(thread->call))
		return tracer_skip(&service->tracer, 0);
	return 0;
}

static void show_call(const struct service *service, const struct service_thread *thread,
		      long call, long result)
{
	if (service->is_shown)
		(void)printf("call %u.%u.%u %s %ld\n", service->n_processes,
			     (unsigned)(thread - service->threads), thread->n_calls,
			     call_name(call), result);
}

/* The only sendmsg(2) between the two that a worker makes is the put: of the client. */
static void note_protection(struct service_thread *thread, long call, long result)
{
	if (call == SYS_accept4 && result >= 0)
		thread->is_unprotected = true;
	if (call == SYS_sendmsg && result >= 0)
		thread->is_unprotected = false;
}

static int thread_left(struct service *service, struct service_thread *thread, long call,
		       long result)
{
	struct point *point = thread->at;

	thread->at = NULL;
	note_protection(thread, call, result);
	show_call(service, thread, call, result);
	return point ? point_kill(service, point) : 0;
}

/*
 * The first calls are those of the keeper's child: execve() makes it the service. A
 * sanitizer may do so once more, and counting begins anew, with none of the old threads.
 */
static void process_begun(struct service *service)
{
	service->n_processes += !service->is_running;
	service->is_running = true;
	service->n_threads = 0;
}

static int at_call(struct service *service, const struct tracer_event *event)
{
	struct service_thread *thread = find_thread(service, event->tid);
	long call;

	if (!thread)
		return -E2BIG;
	if (event->kind == TRACER_ENTERED) {
		thread->call = call_kind(event);
		return service->is_running ? thread_entered(service, thread) : 0;
	}
	call = thread->call;
	thread->call = -1;
	if (call == SYS_execve && event->result == 0) {
		process_begun(service);
		return 0;
	}
	return service->is_running ? thread_left(service, thread, call, event->result)
				   : 0;
}

static int process_ended(struct service *service, const struct tracer_event *event)
{
	if (event->tid == service->keeper) {
		service->keeper = 0;
		return -ECHILD;
	}
	service->n_kills += WIFSIGNALED(event->status);
	if (service->is_shown)
		(void)printf("end %u\n", service->n_processes);
	service->n_threads = 0;
	service->is_running = false;
	return 0;
}

/* Takes what there is to be taken of the tracer. Returns 0 or a negative errno. */
static int service_pump(struct service *service)
{
	struct tracer_event event = {.kind = TRACER_NONE};
	int r;

	do {
		r = tracer_poll(&service->tracer, &event);
		if (r < 0)
			return r;
		if (event.kind == TRACER_EXITED)
			r = process_ended(service, &event);
		else if (event.kind != TRACER_NONE)
			r = at_call(service, &event);
	} while (r == 0 && event.kind != TRACER_NONE);
	return r;
}

/* Rest */

static bool is_wait(long call)
{
	return call == SYS_epoll_wait || call == SYS_epoll_pwait || call == SYS_futex ||
	       call == SYS_poll || call == SYS_ppoll || is_sleep(call);
}

/* Whether a task of a process sleeps. One that is gone does not. */
static bool is_asleep(pid_t pid, pid_t tid)
{
	_cleanup_close_ int fd = -EBADF;
	char path[64], text[512], *end;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", (int)pid, (int)tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return false;
	text[n] = '\0';
	end = strrchr(text, ')');
	return end && strncmp(end, ") S", 3) == 0;
}

/* Whether a thread does nothing until something comes. */
static bool thread_is_at_rest(const struct service *service,
			      const struct service_thread *thread)
{
	if (thread->call == SYS_exit) /* for good */
		return true;
	return is_wait(thread->call) && is_asleep(service->tracer.process, thread->tid);
}

static bool is_at_rest(const struct service *service)
{
	if (!service->is_running || !is_asleep(service->keeper, service->keeper))
		return false;
	for (unsigned i = 0; i < service->n_threads; i++)
		if (!thread_is_at_rest(service, &service->threads[i]))
			return false;
	return true;
}

void service_show(const struct service *service)
{
	for (unsigned i = 0; i < service->n_threads; i++)
		(void)printf("| thread %u.%u is in %s since call %u\n",
			     service->n_processes, i, call_name(service->threads[i].call),
			     service->threads[i].n_calls);
}

static void give_way(const struct service *service, unsigned n_looks)
{
	struct pollfd pollfd = {.fd = service->tracer.signal_fd, .events = POLLIN};

	if (n_looks < YIELDS_MAX)
		(void)sched_yield();
	else
		(void)poll(&pollfd, 1, 1); /* whatever it says, there is another look */
}

int service_settle(struct service *service)
{
	unsigned n_rests = 0;

	/* Twice in a row: one task may have woken another that was looked at before it */
	for (unsigned n_looks = 0; n_rests < 2; n_looks++) {
		const unsigned n_calls = service->n_calls;
		int r = service_pump(service);

		if (r < 0)
			return r;
		if (service->n_calls != n_calls)
			n_looks = 0;
		n_rests = is_at_rest(service) ? n_rests + 1 : 0;
		if (n_rests > 0)
			continue;
		if (time_now_usec() > service->deadline_usec ||
		    service->n_processes > PROCESSES_MAX)
			return -ETIMEDOUT;
		give_way(service, n_looks);
	}
	return 0;
}

int service_kill(struct service *service)
{
	const unsigned n = service->n_processes;
	int r = tracer_kill(&service->tracer);

	while (r == 0 && service->n_processes == n) {
		r = service_pump(service);
		if (r == 0 && time_now_usec() > service->deadline_usec)
			r = -ETIMEDOUT;
		if (r == 0)
			give_way(service, YIELDS_MAX);
	}
	return r < 0 ? r : service_settle(service);
}
