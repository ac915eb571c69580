/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The measurement: opens all connections, sends what falls due, runs the commands that
 * mark windows, and proves at the end that no connection was lost. client-options.c has
 * the text for its users.
 *
 * Open loop: the times at which messages are due are fixed at the start (schedule.h). A
 * service that stands still doesn't hold up the messages that would have met the pause.
 * Two times of each are taken: as a user has it, from when it was due until the answer
 * has been read, and as its peer makes it, from when we went to send it, whether the
 * socket took it or not, until the kernel had the answer. Between them lies what this
 * process, which may share its processors with the service, waits for one.
 *
 * One thread, and it never blocks but in epoll_wait().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/time.h"
#include "client-options.h"
#include "commands.h"
#include "conversation.h"
#include "schedule.h"
#include "window.h"

#define BENCH_CHECK_INTERVAL_USEC USEC_PER_SEC
/* Messages of which it is known when we went to send them; one that is answered after so
 * many others counts from when it was due */
#define BENCH_SENT_KEPT 65536

enum phase {
	PHASE_OPENING, /* each connection echoes one message, OPENING_MAX at a time */
	PHASE_RUNNING, /* messages fall due, commands are read */
	PHASE_CLOSING, /* nothing falls due any more; the last window is awaited */
	PHASE_PROVING, /* the idle connections echo one more */
	PHASE_ENDING,  /* all are half-closed and have to end */
	PHASE_DONE,
};

struct bench {
	const struct client_options *options;
	enum phase phase;
	uint64_t phase_usec; /* when it began */
	uint64_t check_usec; /* when to look next for what takes too long */
	struct conversation *conversations;
	unsigned char *partials;
	uint32_t n_opened;
	uint32_t n_ended;
	uint64_t n_unanswered;
	struct schedule schedule;
	uint64_t n_due; /* messages that have fallen due since then */
	uint64_t sent_usec[BENCH_SENT_KEPT]; /* of message n, modulo that */
	struct window window;
	struct window closing; /* the one before, while it is not complete */
	bool has_closing;
	bool is_end_wanted;
	struct commands commands;
	bool is_watching_commands;
	int epoll_fd, timer_fd, signal_fd;
	struct complaint complaint;
};

/* options is borrowed. Blocks SIGTERM. Returns 0 or a negative errno; bench_done() is due
 * in either case. */
int bench_init(struct bench *bench, const struct client_options *options);
void bench_done(struct bench *bench);

/* Runs to the end. Returns 0, or a negative errno with, mostly, a complaint. */
int bench_run(struct bench *bench);

/* Once a BENCH_CHECK_INTERVAL_USEC, looks for a connection that owes something for longer
 * than the timeout. Returns 0, or -ETIMEDOUT with a complaint. For bench_run(). */
int bench_check_patience(struct bench *bench);
