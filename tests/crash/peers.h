/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Ends of the connections that a service serves: the clients', and the upstreams' of a
 * relay. Every byte is known by its place: by the connection and the direction that it
 * belongs to, and by its position, so that one that is missing, repeated or misled is
 * seen at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define CONNECTIONS_MAX 4u /* two bits of each byte tell which one */

enum end_state {
	END_OPEN,
	END_CLOSED, /* by us */
	END_EOF,
	END_RESET,
};

struct end {
	int fd; /* -EBADF: none */
	enum end_state state;
	unsigned connection;
	bool is_far;              /* not a client */
	const struct end *source; /* whose bytes arrive here */
	uint64_t n_wanted;        /* bytes that are to be sent in all */
	uint64_t n_sent;
	uint64_t n_received;
	bool is_reading;
	bool is_shut;       /* no byte is to follow the wanted ones */
	bool is_aborted;    /* by us: what it has sent may not arrive */
	bool has_failed;    /* sending has */
	uint64_t urgent_at; /* position + 1 of the byte that is sent as urgent; 0: none */
	uint64_t n_repeated; /* see end_take() */
	uint64_t last_size;  /* of the entry that was taken last */
};

/* Which connection a byte belongs to. */
unsigned end_byte_connection(uint8_t byte);

/* The byte that source sends at position. */
uint8_t end_byte(const struct end *source, uint64_t position);

/* Sends what is wanted and fits. Whether anything was sent. */
bool end_send(struct end *end);

/* Takes what has arrived. Returns whether anything has, or -EBADMSG: a wrong byte. */
int end_receive(struct end *end);

/*
 * Takes the n bytes of one entry of a log, which may be the last one once more: then
 * n_repeated is counted. Returns 0 or -EBADMSG.
 */
int end_take(struct end *end, const uint8_t *bytes, uint64_t n);

/* Has the peer see a reset. */
void end_abort(struct end *end);
void end_close(struct end *end);
void end_shut(struct end *end);
