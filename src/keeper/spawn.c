/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "keeper/say.h"

#define FD_FIRST 3 /* SD_LISTEN_FDS_START */

/* value NULL unsets: what the keeper was given by a manager is not the service's. */
static int environment_set(const char *name, const char *value)
{
	int r = value ? setenv(name, value, 1) : unsetenv(name);

	return r < 0 ? -errno : 0;
}

static int environment_set_number(const char *name, uint64_t number, bool is_set)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)number);
	return environment_set(name, is_set ? text : NULL);
}

/* What is passed: listeners as on the command line, then the store, newest first. */
struct passed {
	int n_fds;
	int *fds;
	char *names; /* $LISTEN_FDNAMES */
};

static void passed_add(struct passed *passed, char **end, int fd, const char *name)
{
	if (passed->n_fds > 0)
		*(*end)++ = ':';
	*end = stpcpy(*end, name);
	passed->fds[passed->n_fds++] = fd;
}

/* The memory is given back by exec or exit. */
static int passed_list(const struct spawn *spawn, struct passed *ret_passed)
{
	struct passed passed = {.n_fds = 0};
	const struct stored_fd *stored;
	char *end;
	size_t i;

	passed.fds =
		calloc(spawn->listeners->n_open + spawn->store->n_fds + 1, sizeof(int));
	passed.names = calloc(SPAWN_NAMES_MAX + 1, 1);
	if (!passed.fds || !passed.names) {
		free(passed.fds);
		free(passed.names);
		return -ENOMEM;
	}
	end = passed.names;
	for (i = 0; i < spawn->listeners->n_open; i++)
		passed_add(&passed, &end, spawn->listeners->all[i].fd,
			   spawn->listeners->all[i].name);
	for (stored = spawn->store->newest; stored; stored = stored->next)
		passed_add(&passed, &end, stored->fd, stored->name);
	*ret_passed = passed;
	return 0;
}

static int child_set_environment(const struct spawn *spawn, const struct passed *passed)
{
	uint64_t pid = (uint64_t)getpid(), n_stored_max = spawn->store->n_fds_max;
	bool is_watched = spawn->watchdog_usec > 0;
	int r;

	r = environment_set_number("LISTEN_PID", pid, true);
	if (r == 0)
		r = environment_set_number("LISTEN_FDS", (uint64_t)passed->n_fds, true);
	if (r == 0)
		r = environment_set("LISTEN_FDNAMES", passed->names);
	if (r == 0)
		r = environment_set("NOTIFY_SOCKET", spawn->notify_name);
	if (r == 0)
		r = environment_set_number("FDSTORE", n_stored_max, n_stored_max > 0);
	if (r == 0)
		r = environment_set_number("WATCHDOG_USEC", spawn->watchdog_usec,
					   is_watched);
	if (r == 0)
		r = environment_set_number("WATCHDOG_PID", pid, is_watched);
	return r;
}

/*
 * Puts the fds at FD_FIRST and up, not to be closed at exec. Those that lie where others
 * belong are moved out of the way first, so that each may take two: spawn_raise_limit().
 */
static int child_place_fds(struct passed *passed)
{
	int i, fd;

	for (i = 0; i < passed->n_fds; i++) {
		fd = passed->fds[i];
		if (fd < FD_FIRST + passed->n_fds)
			fd = fcntl(fd, F_DUPFD_CLOEXEC, FD_FIRST + passed->n_fds);
		if (fd < 0)
			return -errno;
		passed->fds[i] = fd;
	}
	for (i = 0; i < passed->n_fds; i++)
		if (dup2(passed->fds[i], FD_FIRST + i) < 0)
			return -errno;
	/* ours close at exec by themselves; what the keeper was started with may not */
	(void)close_range((unsigned int)(FD_FIRST + passed->n_fds), ~0U, 0);
	return 0;
}

static void child_reset(void)
{
	sigset_t none;
	int i, fd;

	for (i = 1; i < NSIG; i++)
		(void)signal(i, SIG_DFL); /* fails for those that cannot be set anyway */
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	(void)setsid(); /* fails only for group leaders, which a new child is not */
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)dup2(fd, STDIN_FILENO); /* else it keeps the keeper's */
}

static void child_run(const struct spawn *spawn)
{
	struct passed passed;
	int r;

	child_reset();
	r = passed_list(spawn, &passed);
	if (r == 0)
		r = child_set_environment(spawn, &passed);
	if (r == 0)
		r = child_place_fds(&passed);
	if (r < 0) {
		say_line(LOG_ERR, "cannot prepare the start of %s: %s", spawn->command[0],
			 strerror(-r));
		return;
	}
	(void)execvp(spawn->command[0], spawn->command);
	say_line(LOG_ERR, "cannot run %s: %s", spawn->command[0], strerror(errno));
}

pid_t spawn_run(const struct spawn *spawn)
{
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		child_run(spawn);
		_exit(SPAWN_EXIT_STATUS);
	}
	return pid;
}

size_t spawn_raise_limit(size_t n_listeners, size_t n_own)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 0;
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		(void)getrlimit(RLIMIT_NOFILE, &limit); /* it worked above */
	n_own += FD_FIRST + 2 * n_listeners;
	return limit.rlim_cur > n_own ? (limit.rlim_cur - n_own) / 2 : 0;
}
