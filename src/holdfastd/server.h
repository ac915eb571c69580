/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The server: the control plane, in the main thread. It adopts what the last process
 * left, starts the workers, and then handles signals, the watchdog, the status line and
 * the vault's chores. It never touches a byte.
 *
 * Stopping is crashing, at a moment of our choice: SIGTERM ends the process with nothing
 * to be saved, but between two steps of each worker, so that none has a connection that
 * it has accepted but not put, or an entry in the journal that is not counted; unless one
 * of them, or the journal, takes longer for a step than HALT_USEC_MAX.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/time.h"
#include "holdfastd/options.h"
#include "vault/adopt.h"

enum exit_status {
	EXIT_STATUS_USAGE = 2,  /* bad command line, or not started as it must be */
	EXIT_STATUS_AGAIN = 75, /* to be started again, at once */
	EXIT_STATUS_IDLE =
		77, /* --exit-idle-time=; the unit's RestartPreventExitStatus= */
};

/*
 * Blocks SIGUSR2, which ends a process that does not know it: first of all. It waits
 * until a takeover is possible.
 */
void server_block_takeover_signal(void);

/*
 * Blocks the other signals that the event loop takes, and ignores SIGPIPE: before the
 * first thread is made, since threads inherit it.
 */
void server_block_signals(void);

/* What a process begins with. Borrowed for ever, but for the stored fds. */
struct inheritance {
	char **arguments;  /* the command line */
	bool is_activated; /* by a manager that passed sockets */
	/* Of a successor (successor.h): its end of the socket; -EBADF, and then: */
	int handover;
	int *listeners;
	size_t n_listeners;
	struct stored_fd *stored; /* what came from the fd store, taken over */
	size_t n_stored;
};

/* Serves until told to stop, or until a successor serves. Returns the exit status. */
int server_run(const struct options *options, const struct inheritance *inheritance);

/*
 * Before the end of the process, if it is one that was planned: halts the workers, each
 * at the end of what it is doing. One that hangs is not waited for longer than
 * HALT_USEC_MAX.
 */
void server_halt(void);
#define HALT_USEC_MAX (200 * USEC_PER_MSEC)
