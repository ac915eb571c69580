/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A connection to a service that sends back what it is sent, with messages that are
 * numbered and checked when they return.
 *
 * A message is a function of the connection's number and its own, so none is kept: what
 * has to be sent follows from how many messages are due and how many bytes have gone. A
 * message that is due is sent although the one before it has not returned.
 *
 * Silent: what went wrong is told to the caller, as text for a person.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define MESSAGE_BYTES_MIN 16
#define MESSAGE_BYTES_MAX 4096

struct conversation {
	int fd;
	uint32_t number;
	uint32_t message_bytes;
	uint64_t n_due;        /* messages that are to be sent by now */
	uint64_t n_sent_bytes; /* of those */
	uint64_t n_answered;   /* messages that have returned */
	uint64_t arrived_usec; /* when the last bytes reached the socket, CLOCK_MONOTONIC */
	uint32_t n_partial;    /* bytes of the next one that have */
	uint32_t events;       /* what epoll was told last */
	bool is_ending;        /* nothing will be due any more: an end is the answer */
	bool has_ended;
	unsigned char *partial; /* message_bytes of them, borrowed */
};

struct complaint {
	char text[256];
};

/*
 * Starts to connect. partial is borrowed, message_bytes long. Returns 0, or a negative
 * errno with a complaint. conversation_done() undoes it.
 */
int conversation_init(struct conversation *conversation, uint32_t number,
		      const struct sockaddr *address, socklen_t address_bytes,
		      unsigned char *partial, uint32_t message_bytes,
		      struct complaint *ret_complaint);
void conversation_done(struct conversation *conversation);

/* What to wait for, from the state alone: a mask for epoll. */
uint32_t conversation_events(const struct conversation *conversation);

/* Sends what is due, as far as the socket takes it. Returns 0, or a negative errno with a
 * complaint. */
int conversation_send(struct conversation *conversation, struct complaint *ret_complaint);

/*
 * Receives once and checks it; n_answered then tells what has returned, and arrived_usec
 * when, as the kernel has stamped it (socket(7): SO_TIMESTAMPNS). Returns 0, or a
 * negative errno with a complaint: -EPROTO where anything is lost, repeated or changed.
 */
int conversation_receive(struct conversation *conversation,
			 struct complaint *ret_complaint);

/* Half-closes; whatever comes then but an end is wrong. All must have been answered. */
int conversation_end(struct conversation *conversation, struct complaint *ret_complaint);
