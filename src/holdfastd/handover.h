/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the two processes of a takeover say to each other, over an AF_UNIX SOCK_SEQPACKET
 * pair that the new one inherits; $HOLDFAST_HANDOVER tells it the fd.
 *
 *   serving process                  successor
 *     BEGIN (ledger, changes) ->
 *     CONTROL                 ->
 *     LISTENERS...            ->
 *     PARCELS...              ->     (follows, while the other one serves)
 *     END_OF_STATE            ->
 *     PARCELS (new ones)      ->
 *                             <-     READY, or FAILED
 *     (stops its workers)
 *     PARCELS (new ones)      ->
 *     GO (offer)              ->     (looks a last time, takes the offer)
 *                             <-     SERVING, or FAILED
 *     (MAINPID= to the manager)
 *     RELEASED                ->     (may speak to the manager)
 *     end of what it sends    ->     (leaves it a CPU for its end, and hangs up)
 *     (lets its sockets go)
 *
 * The end of either is the end of the socket. Who serves is not decided by these messages
 * but by the offer in the ledger (ledger_offer()).
 */
#pragma once

#include <stdint.h>

/*
 * Both must speak the same one; else the successor refuses and the other serves on. So
 * the layout of HANDOVER_FAILED is the same in all versions.
 */
#ifndef HANDOVER_VERSION /* tests/versions builds another one */
#define HANDOVER_VERSION 1u
#endif
#define HANDOVER_ENVIRONMENT "HOLDFAST_HANDOVER"
/* An even number below the kernel's limit of 253 for one message (SCM_MAX_FD). */
#define HANDOVER_FDS_MAX 252
#define HANDOVER_TEXT_SIZE 256

enum handover_type {
	HANDOVER_BEGIN = 1, /* fds: ledger, changes. number: of the process */
	HANDOVER_CONTROL,   /* fd: the control socket, where there is one */
	HANDOVER_LISTENERS,
	/* parcels: number << 1 | whether the sending end comes too, after the store's */
	HANDOVER_PARCELS,
	HANDOVER_END_OF_STATE,
	HANDOVER_READY,   /* number: of connections */
	HANDOVER_GO,      /* number: the offer. usec: when the workers were stopped */
	HANDOVER_SERVING, /* number: of connections */
	HANDOVER_RELEASED,
	HANDOVER_FAILED, /* text: why */
};

struct handover {
	uint32_t version;
	uint32_t type;
	uint32_t n_fds;
	uint32_t n_parcels;
	uint64_t number;
	uint64_t usec; /* CLOCK_MONOTONIC */
	union {
		uint32_t parcels[HANDOVER_FDS_MAX];
		char text[HANDOVER_TEXT_SIZE];
	};
};

enum handover_received {
	HANDOVER_GONE = 0, /* the other process has ended, or closed its end */
	HANDOVER_MESSAGE = 1,
};

/*
 * Sends a message with message->n_fds borrowed fds; version is filled in. Returns 0,
 * -EPIPE if nobody is there any more, or another negative errno.
 */
int handover_send(int fd, struct handover *message, const int *fds);

/*
 * Receives a message, waiting until until_usec (CLOCK_MONOTONIC; 0: not at all). Returns
 * enum handover_received; -ETIME; -EPROTO if the other speaks another version; -EBADMSG
 * if what came is no message; or another negative errno. On HANDOVER_MESSAGE the caller
 * owns the ret_message->n_fds fds in ret_fds[HANDOVER_FDS_MAX].
 */
int handover_receive(int fd, uint64_t until_usec, struct handover *ret_message,
		     int *ret_fds);

/* Closes what was received with a message. */
void handover_close_fds(const struct handover *message, const int *fds);
