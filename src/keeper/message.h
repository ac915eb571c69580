/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The text of one sd_notify(3) datagram: newline-separated assignments.
 *
 * It comes from outside the process, so the parser is total: any bytes give a struct or
 * an error, and it knows nothing but the text (tests/fuzz/fuzz_keeper_message.c). Unknown
 * assignments are ignored, as the protocol wants, and so are RELOADING= and ERRNO=, which
 * the keeper has no use for. Of an assignment that stands twice, the first counts.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The protocol's bound: longer messages are truncated by the receiver and refused. */
#define MESSAGE_TEXT_MAX 4096

enum message_watchdog {
	MESSAGE_WATCHDOG_NONE,
	MESSAGE_WATCHDOG_ALIVE,   /* WATCHDOG=1 */
	MESSAGE_WATCHDOG_TRIGGER, /* WATCHDOG=trigger: act as if the time had run out */
};

/* All text borrows from the parsed buffer. */
struct message {
	size_t n_assignments;
	bool is_barrier;      /* BARRIER=1: the sender waits for its fd to be closed */
	bool is_store;        /* FDSTORE=1 */
	bool is_store_remove; /* FDSTOREREMOVE=1 */
	bool is_poll_off;     /* FDPOLL=0: keep the fd after EPOLLHUP and EPOLLERR */
	bool is_ready;
	bool is_stopping;
	enum message_watchdog watchdog;
	bool has_watchdog_usec;
	uint64_t watchdog_usec;
	pid_t main_pid;        /* 0: none was named */
	const char *fd_name;   /* valid; NULL: none was given, or not a valid one */
	const char *status;    /* NULL: none was given */
	const char *malformed; /* the last known assignment with a bad value, or NULL */
};

/*
 * Parses the size bytes at text, which are changed: assignments become strings. There
 * must be room for one byte more, text[size]. A NUL at the very end is allowed. Returns
 * 0, or -EBADMSG if there is no text, or a NUL within it.
 */
int message_parse(char *text, size_t size, struct message *ret_message);
