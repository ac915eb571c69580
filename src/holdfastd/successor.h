/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Takeover, the new process's half (takeover.h is the other one). It makes connections
 * of what the serving process holds, registered in the epolls of its workers, and keeps
 * them up to date while that one serves (vault/follow.h). So when it is told to go, it
 * has to look at those only that have changed since a moment ago; it takes the offer,
 * says that it serves, and its workers begin.
 *
 * Before it has taken the offer it changes nothing but itself, so that the other process
 * can go on; it says why it fails where it does, and ends when the other one has ended.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-event.h>

struct shared;
struct successor;
struct vault;

/* How long the serving process may take for what it is to say at once. */
#define SUCCESSOR_STATE_USEC_MAX (10 * USEC_PER_SEC)
/* Looks before it says that it is ready, and how few changes end them. */
#define SUCCESSOR_LOOKS_MAX 16
#define SUCCESSOR_FEW_CHANGES 64
/* Of which it makes a break after each FOLLOW_STEP, for the serving process and its
 * peers. */
#define SUCCESSOR_BREATH_USEC 50
/* How often it looks while it waits to be told to go. */
#define SUCCESSOR_LOOK_USEC (2 * USEC_PER_MSEC)
/* How long its workers leave a CPU to the other process's end, at the most. */
#define SUCCESSOR_MAKES_WAY_USEC_MAX (1 * USEC_PER_SEC)

/*
 * Whether this process was started to take over: returns the fd of its end of the socket,
 * or -EBADF. Removes the variable that says so from the environment.
 */
int successor_find_socket(void);

/* Says why this process can't take over, to the one that started it. */
void successor_say_failure(int socket, const char *why);

/*
 * Receives the state of the serving process into vault, which is a new one. socket:
 * taken over. Returns 0, or a negative errno after it has said why.
 */
int successor_new(int socket, struct vault *vault, struct successor **ret_successor);

/* The listeners that were passed; they live as long as the process. */
const int *successor_get_listeners(const struct successor *successor, size_t *ret_n);

/*
 * Makes the connections, for workers that are initialised and wait at the gate, which is
 * closed; keeps them up to date until told to go; takes the offer, says so, and opens the
 * gate. Returns 0: this process serves now. Or a negative errno: it does not, and must
 * end; it has said why.
 */
int successor_take_over(struct successor *successor, struct shared *shared);

/* The control socket that was passed, given away; -EBADF where there was none. */
int successor_take_control_fd(struct successor *successor);

/* How many connections it has taken over. */
uint32_t successor_get_n_connections(const struct successor *successor);

struct successor_result {
	uint32_t n_connections;
	uint32_t n_refused;
	uint64_t pending_bytes;
	uint64_t pause_usec; /* in which neither process served */
};

/* What has come of the takeover. */
void successor_get_result(const struct successor *successor,
			  struct successor_result *ret_result);

/*
 * Calls released once, with whether the service manager listens to this process. If not,
 * the other process has died before it has seen to that: nothing that this process puts
 * would be stored, so it has to leave, to be started again. What released returns goes to
 * sd_event. Returns 0 or a negative errno.
 */
int successor_watch_release(struct successor *successor, sd_event *event,
			    int (*released)(void *userdata, bool is_heard),
			    void *userdata);
