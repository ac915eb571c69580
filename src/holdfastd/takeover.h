/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Takeover, the serving process's half: it starts the installed program, which may be a
 * new version, lets that follow (successor.h) while it serves on itself, stops its
 * workers at the end of what each is doing, offers to hand over, and leaves once the
 * successor serves. handover.h is what they say to each other.
 *
 * Until the successor has taken the offer, anything that goes wrong with it, or takes too
 * long, leaves this process serving as if nothing had happened; so does the successor's
 * death. From then on the successor is the service: should it die, that is a crash like
 * any other, and the store has everything.
 *
 * Main thread only. One takeover at a time.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include <systemd/sd-event.h>

#include "holdfastd/handover.h"

struct shared;
struct takeover;

/* How long peers may be kept waiting for a successor that is told to go. */
#define TAKEOVER_PAUSE_USEC_MAX (1 * USEC_PER_SEC)
/* How long the service manager may take to note the new main process. */
#define TAKEOVER_MANAGER_USEC_MAX (5 * USEC_PER_SEC)
/* How long a process that ends waits for the successor's workers to make room. */
#define TAKEOVER_MAKE_WAY_MSEC_MAX 20
/* How long a successor that has failed or was killed may take to be gone. */
#define TAKEOVER_END_USEC_MAX (1 * USEC_PER_SEC)

/*
 * Parcels that may be made while a successor gets ready: nothing is swept meanwhile, and
 * what was parked in them counts against the limit of files in flight.
 */
#define TAKEOVER_PARCELS_MAX 64u

enum takeover_result {
	TAKEOVER_DONE,        /* the successor serves: leave */
	TAKEOVER_ROLLED_BACK, /* this process serves on */
	/* The successor had begun to serve and has died: leave, to be started again,
	 * since what this process knows of the connections may no longer be so */
	TAKEOVER_LOST,
};

/*
 * ended is called when a takeover that has begun is over: with its result, the pid of the
 * successor, and why where the result is not TAKEOVER_DONE. It is called from the event
 * loop, or from within takeover_begin(). arguments: the command line of this process,
 * borrowed for ever. Returns 0 or a negative errno.
 */
int takeover_new(struct shared *shared, sd_event *event, char *arguments[],
		 void (*ended)(void *userdata, enum takeover_result result, pid_t pid,
			       const char *why),
		 void *userdata, struct takeover **ret_takeover);

/*
 * Begins a takeover by the program and with the arguments of command_line (borrowed, the
 * first one an absolute path); NULL: by the file that this process was started from, with
 * its own. Returns 0; -EBUSY if one is under way; or another negative errno if the
 * successor could not be started. *ret_why is a text about it then, valid until the next
 * call. What happens is logged.
 */
int takeover_begin(struct takeover *takeover, char *const command_line[],
		   const char **ret_why);

/*
 * Once the successor serves, and before this process lets go of what it had and ends: gets
 * its threads out of the way of the successor's, and waits until those have made room.
 */
void takeover_make_way(const struct takeover *takeover);

/* To be called when the vault may have made parcels, or has had an answer. */
void takeover_look(struct takeover *takeover);
