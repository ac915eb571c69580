/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What to do when the service has ended. Policy only: it starts nothing and asks no clock
 * (all times are CLOCK_MONOTONIC in microseconds, from the caller).
 *
 * How it ended matters little: exit, crash and SIGKILL all mean a restart after a delay,
 * which doubles from one to the next up to a bound, so that a service that cannot start
 * costs little, and starts anew once the service was up for a while. It is never given
 * up.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define RESTART_DELAY_MIN_MSEC 10
#define RESTART_DELAY_MAX_SEC 5
/* Up for so long, it was no part of a crash loop. */
#define RESTART_STEADY_SEC 10
/* An exit status: the service had nothing to do. The next connection starts it again. */
#define RESTART_STATUS_IDLE 77
/* last_status of a service that did not exit(2). */
#define RESTART_STATUS_NONE -1
#define RESTART_STATUSES 256

enum restart_action {
	RESTART_NOW,
	RESTART_LATER,         /* at not_before_usec */
	RESTART_ON_CONNECTION, /* but not before not_before_usec */
	RESTART_NEVER,         /* leave with exit_status */
};

struct restart {
	bool is_prevented[RESTART_STATUSES]; /* by exit status; RESTART_STATUS_IDLE: wait
					      */
	uint64_t delay_max_usec;
	uint64_t delay_usec; /* the next one */
	uint64_t started_usec;
	uint64_t not_before_usec;
	int last_status; /* 0..255 or RESTART_STATUS_NONE */
	int exit_status; /* of the keeper */
	bool is_asked;   /* a restart was asked for: it takes place at once */
	bool is_leaving; /* no restart any more */
	/*
	 * There are stored fds: no exit status is a reason to leave. A service that
	 * refuses its command line after a mistake in it must not cost what it held
	 * before.
	 */
	bool is_holding;
};

/* No exit status prevents a restart, and the bound is RESTART_DELAY_MAX_SEC. */
void restart_init(struct restart *restart);

/* The service is being started. */
void restart_begin(struct restart *restart, uint64_t now_usec);

/* It has ended, as last_status says, or could not be started: what is next? */
enum restart_action restart_decide(struct restart *restart, uint64_t now_usec);

/* How long to wait from now until not_before_usec. */
uint64_t restart_wait_usec(const struct restart *restart, uint64_t now_usec);
