/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Starting the service: fork, the environment of sd_listen_fds(3) and sd_notify(3), fds,
 * exec.
 *
 * The keeper has one thread, so the child may use all of libc between fork() and exec:
 * $LISTEN_PID has to be set there, for only then is the pid known.
 *
 * The child gets a session of its own, as from systemd: a Ctrl-C for the keeper is not
 * one for the service, and the process group tells what belongs to it. PR_SET_PDEATHSIG
 * is not set: when the keeper dies the store is lost, but a service left alone still
 * serves everyone that it holds, and killing it would gain nobody anything. (It would not
 * hold for a successor that the service starts, either. As pid 1 the keeper takes all
 * with it anyway.)
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "keeper/listeners.h"
#include "keeper/store.h"

/* How a child exits that could not run the command: as shells have it. */
#define SPAWN_EXIT_STATUS 127
/*
 * $LISTEN_FDNAMES is one string of the environment, of at most MAX_ARG_STRLEN of the
 * kernel: its name and its terminating NUL are taken off here.
 */
#define SPAWN_NAMES_MAX (128 * 1024 - sizeof("LISTEN_FDNAMES="))

/* All borrowed. */
struct spawn {
	char *const *command;              /* NULL-terminated; looked up in $PATH */
	const struct listeners *listeners; /* become 3, 4, ... */
	const struct store *store; /* after them, newest first; its maximum: $FDSTORE */
	const char *notify_name;   /* $NOTIFY_SOCKET */
	uint64_t watchdog_usec;    /* $WATCHDOG_USEC; 0: unset, there is no watchdog */
};

/*
 * Starts the command, with default signal dispositions, nothing blocked, and /dev/null as
 * stdin. Returns its pid, or a negative errno of fork(2). What fails later is said by the
 * child on stderr, and it exits with SPAWN_EXIT_STATUS.
 */
pid_t spawn_run(const struct spawn *spawn);

/*
 * Raises the soft limit of open fds to the hard one, for the keeper and, since a service
 * that keeps fds in a store uses many, for the service too. Returns how many fds a store
 * may hold so that they can still be passed on, beside n_listeners listeners and n_own
 * other fds of the keeper.
 */
size_t spawn_raise_limit(size_t n_listeners, size_t n_own);
