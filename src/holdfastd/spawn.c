/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/leisure.h"
#include "base/time.h"
#include "holdfastd/handover.h"

#define EXIT_NOT_EXECUTED 127  /* nobody looks at it */
#define STACK_SIZE (64 * 1024) /* for a few calls */
#define REAPED_WAIT_MSEC 200
#define ENVIRONMENT_ENTRY HANDOVER_ENVIRONMENT "=3"
static_assert(SUCCESSOR_FD == 3, "as the environment says");

/*
 * The thread sanitizer's clone() is made for children with memory of their own: in that
 * which this one shares it would forget what it knows of every fd, and take each parcel's
 * next use for a race. This is glibc's own name of the same function.
 */
#ifdef __SANITIZE_THREAD__
int __clone(int (*function)(void *), void *stack, int flags, void *argument, ...);
#define clone __clone
#endif

/*
 * The path as it was executed, not the file that it led to: an upgrade may replace a link
 * as well as a file. A manager that executes an open file leaves no path of use there.
 */
int spawn_find_program(char *ret_path, size_t size)
{
	const char *executed = (const char *)getauxval(AT_EXECFN);
	ssize_t n;

	if (executed && executed[0] == '/' &&
	    strncmp(executed, "/dev/fd/", strlen("/dev/fd/")) != 0)
		return snprintf(ret_path, size, "%s", executed) < (int)size
			       ? 0
			       : -ENAMETOOLONG;
	n = readlink("/proc/self/exe", ret_path, size - 1);
	if (n < 0)
		return -errno;
	ret_path[n] = '\0';
	return 0;
}

/* What is at SUCCESSOR_FD while no successor is being started. */
static int placeholder = -EBADF;

int spawn_keep_fd(void)
{
	_cleanup_close_ int moved = -EBADF;

	placeholder = eventfd(0, EFD_CLOEXEC);
	if (placeholder < 0)
		return -errno;
	if (placeholder == SUCCESSOR_FD) {
		placeholder = fcntl(SUCCESSOR_FD, F_DUPFD_CLOEXEC, SUCCESSOR_FD + 1);
		return placeholder < 0 ? -errno : 0;
	}
	moved = fcntl(SUCCESSOR_FD, F_DUPFD_CLOEXEC, SUCCESSOR_FD + 1);
	if (moved < 0 && errno != EBADF)
		return -errno;
	if (dup3(placeholder, SUCCESSOR_FD, O_CLOEXEC) < 0)
		return -errno;
	return moved < 0 ? 0 : take_fd(&moved);
}

/* What the manager has told this process, and only this one. */
static bool is_own(const char *entry)
{
	static const char *const names[] = {"LISTEN_PID=", "LISTEN_FDS=",
					    "LISTEN_FDNAMES=", "LISTEN_PIDFDID=",
					    "WATCHDOG_PID="};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strncmp(entry, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

/* The environment of the successor: its entries are borrowed. NULL without memory. */
static char **make_environment(void)
{
	static char handover[] = ENVIRONMENT_ENTRY;
	size_t n = 0;
	char **result;

	while (environ[n])
		n++;
	result = calloc(n + 2, sizeof(*result));
	if (!result)
		return NULL;
	n = 0;
	for (char **entry = environ; *entry; entry++)
		if (!is_own(*entry))
			result[n++] = *entry;
	result[n] = handover;
	return result;
}

/* What the child needs to know before it executes the program, and what comes of that. */
struct start {
	const char *program;
	char *const *arguments;
	char *const *environment;
	const struct cpus *cpus; /* where it starts; NULL: anywhere */
	int error;               /* why it could not be executed; 0: it was */
};

/*
 * Leaves this process's table of files, which has thousands, for one of its own with the
 * first few: copying them all, and closing the copies in execve(2), would take some ms of
 * a CPU that the kernel gives nobody else meanwhile.
 * (tests/kernel/close-range-unshares.c)
 *
 * A sandbox or a tool between may not know close_range(2): then they are copied.
 */
static bool leave_files(void)
{
	return syscall(SYS_close_range, SUCCESSOR_FD + 1, ~0U, CLOSE_RANGE_UNSHARE) ==
		       0 ||
	       unshare(CLONE_FILES) == 0;
}

/*
 * In the child, which has this process's memory until it executes the program (and this
 * process's caught signals: all are blocked). Only system calls.
 */
static int run_child(void *userdata)
{
	struct start *start = userdata;
	sigset_t blocked;

	/* Else the successor could be ended by the next request for a takeover */
	(void)sigemptyset(&blocked);
	(void)sigaddset(&blocked, SIGUSR2);
	/* Nobody waits for all that it does before it is told to go */
	leisure_begin(start->cpus);
	if (leave_files() && fcntl(SUCCESSOR_FD, F_SETFD, 0) == 0) {
		(void)sigprocmask(SIG_SETMASK, &blocked, NULL);
		(void)execve(start->program, start->arguments, start->environment);
	}
	start->error = errno;
	_exit(EXIT_NOT_EXECUTED);
}

/*
 * As posix_spawn(3) does it, but for CLONE_PARENT: the successor is to be a child of the
 * service manager from the start. systemd looks at that when it is told MAINPID=, once,
 * and would not wait for the end of a process that was not its child then. A process that
 * is the init of its namespace can't have siblings; its child has to do there.
 */
static int clone_child(struct start *start, struct spawned *ret_spawned)
{
	int flags = CLONE_VM | CLONE_FILES | CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
	char *stack = malloc(STACK_SIZE), *top;
	int fd = -EBADF, pid;

	if (!stack)
		return -ENOMEM;
	top = (char *)((uintptr_t)(stack + STACK_SIZE) & ~(uintptr_t)63);
	pid = clone(run_child, top, flags | CLONE_PARENT, start, &fd);
	if (pid < 0 && errno == EINVAL)
		pid = clone(run_child, top, flags, start, &fd);
	if (pid < 0)
		pid = -errno;
	free(stack);
	if (pid < 0)
		return pid;
	*ret_spawned = (struct spawned){.pid = pid, .fd = fd};
	return 0;
}

static int start_child(struct start *start, struct spawned *ret_spawned)
{
	sigset_t all, before;
	int r;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	r = clone_child(start, ret_spawned);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (r == 0 && start->error != 0) {
		(void)spawn_has_ended(ret_spawned, 0); /* reaps it if it is ours */
		ret_spawned->fd = fd_close(ret_spawned->fd);
		r = -start->error;
	}
	return r;
}

/* One end for this process, and one at SUCCESSOR_FD. */
static int make_pair(int *ret_ours)
{
	_cleanup_close_ int ours = -EBADF, theirs = -EBADF;
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) <
	    0)
		return -errno;
	ours = pair[0];
	theirs = pair[1];
	if (dup3(theirs, SUCCESSOR_FD, O_CLOEXEC) < 0)
		return -errno;
	*ret_ours = take_fd(&ours);
	return 0;
}

int spawn_successor(const char *program, char *const arguments[], const struct cpus *cpus,
		    struct spawned *ret_spawned, int *ret_socket)
{
	_cleanup_close_ int ours = -EBADF;
	struct start start = {.program = program, .arguments = arguments, .cpus = cpus};
	char **environment;
	int r;

	r = make_pair(&ours);
	if (r < 0)
		return r;
	environment = make_environment();
	start.environment = environment;
	r = environment ? start_child(&start, ret_spawned) : -ENOMEM;
	free(environment);
	/* Closes the successor's end here */
	(void)dup3(placeholder, SUCCESSOR_FD, O_CLOEXEC);
	if (r < 0)
		return r;
	*ret_socket = take_fd(&ours);
	return 0;
}

bool spawn_has_ended(const struct spawned *spawned, uint64_t usec)
{
	struct pollfd p = {.fd = spawned->fd, .events = POLLIN};
	siginfo_t info;

	if (poll(&p, 1, (int)(usec / USEC_PER_MSEC)) <= 0)
		return false;
	/* Where it is our own child; else its parent reaps it */
	(void)waitid(P_PID, (id_t)spawned->pid, &info, WEXITED | WNOHANG);
	return true;
}

void spawn_kill(const struct spawned *spawned)
{
	/* Fails for one that has ended */
	(void)syscall(SYS_pidfd_send_signal, spawned->fd, SIGKILL, NULL, 0);
}

/*
 * PIDFD_GET_INFO of linux/pidfd.h, whose exit_code is from Linux 6.15: the status as
 * wait(2) tells it, once the process has been reaped.
 */
struct pidfd_exit_info {
	uint64_t mask;
	uint64_t cgroup_id;
	uint32_t ids[11];
	int32_t exit_code;
};

#define PIDFD_EXIT_INFO (UINT64_C(1) << 3)
#define PIDFD_GET_EXIT_INFO _IOWR(0xff, 11, struct pidfd_exit_info)

void spawn_explain_end(const struct spawned *spawned, char *ret_text, size_t size)
{
	struct pidfd_exit_info info = {.mask = PIDFD_EXIT_INFO};
	struct pollfd p = {.fd = spawned->fd};

	/* POLLHUP: it has been reaped */
	(void)poll(&p, 1, REAPED_WAIT_MSEC);
	if (ioctl(spawned->fd, PIDFD_GET_EXIT_INFO, &info) < 0 ||
	    !(info.mask & PIDFD_EXIT_INFO))
		(void)snprintf(ret_text, size, "the new process has ended");
	else if (WIFEXITED(info.exit_code))
		(void)snprintf(ret_text, size, "the new process exited with status %d",
			       WEXITSTATUS(info.exit_code));
	else
		(void)snprintf(ret_text, size, "the new process was killed by signal %d",
			       WTERMSIG(info.exit_code));
}
