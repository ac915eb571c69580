/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/spawn.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "holdfastd/handover.h"

/* Where the successor finds its end of the socket. */
#define SUCCESSOR_FD 3
#define ENVIRONMENT_ENTRY HANDOVER_ENVIRONMENT "=3"

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

static int spawn_with(const char *program, char *const arguments[], char *environment[],
		      int socket, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t blocked;
	int r;

	/* Else the successor could be ended by the next request */
	(void)sigemptyset(&blocked);
	(void)sigaddset(&blocked, SIGUSR2);
	r = posix_spawnattr_init(&attributes);
	if (r > 0)
		return -r;
	r = posix_spawn_file_actions_init(&actions);
	if (r > 0) {
		(void)posix_spawnattr_destroy(&attributes);
		return -r;
	}
	/* These fail for invalid arguments, or without memory */
	r = posix_spawnattr_setsigmask(&attributes, &blocked);
	if (r == 0)
		r = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&actions, socket, SUCCESSOR_FD);
	if (r == 0)
		r = posix_spawn(ret_pid, program, &actions, &attributes, arguments,
				environment);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)posix_spawnattr_destroy(&attributes);
	return -r;
}

int spawn_successor(const char *program, char *const arguments[], pid_t *ret_pid,
		    int *ret_socket)
{
	_cleanup_close_ int ours = -EBADF, theirs = -EBADF;
	char **environment;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) <
	    0)
		return -errno;
	ours = pair[0];
	theirs = pair[1];
	environment = make_environment();
	if (!environment)
		return -ENOMEM;
	r = spawn_with(program, arguments, environment, theirs, ret_pid);
	free(environment);
	if (r < 0)
		return r;
	*ret_socket = take_fd(&ours);
	return 0;
}

void spawn_wait_for_end(pid_t pid, uint64_t usec)
{
	_cleanup_close_ int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};

	/* Interrupted or late: it is asked for by waitid() */
	if (fd >= 0)
		(void)poll(&p, 1, (int)(usec / USEC_PER_MSEC));
}

bool spawn_reap(pid_t pid, siginfo_t *ret_info)
{
	ret_info->si_pid = 0; /* which waitid() leaves while it lives */
	return waitid(P_PID, (id_t)pid, ret_info, WEXITED | WNOHANG) < 0 ||
	       ret_info->si_pid != 0;
}
