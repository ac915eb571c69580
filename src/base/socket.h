/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the kernel knows of a stream socket, asked without touching its bytes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sockaddr_un;

/*
 * The address of an AF_UNIX socket in the file system. Returns 0, -EINVAL for an empty
 * path, or -ENAMETOOLONG for one of more than SOCKET_PATH_MAX bytes.
 */
int socket_set_path(const char *path, struct sockaddr_un *ret_address);
#define SOCKET_PATH_MAX 107 /* of sun_path's 108; the last is NUL */

/*
 * Resets a connection at once, whoever else holds a copy of its socket: TCP sends RST
 * (tests/kernel/tcp-end-while-parked.c). An AF_UNIX socket, which knows no such
 * thing, is shut down. fd is borrowed and may be anything.
 */
void socket_abort(int fd);

struct socket_counts {
	bool is_closed;     /* TCP_CLOSE: nothing goes in or out any more */
	bool is_connecting; /* its SYN is on its way; SIOCINQ says nothing then */
	bool has_fin; /* the peer's FIN is surely among n_taken (CLOSE_WAIT and so on) */
	bool has_sent_fin; /* a FIN is surely among n_written (FIN_WAIT1 and so on) */
	uint64_t n_taken; /* bytes that were read from it, plus 1 if a FIN was received */
	uint64_t n_written; /* bytes that were written to it, plus 1 for the SYN of
			     * connect(), plus 1 if a FIN was sent */
};

/*
 * The kernel's own counts of a TCP socket (tests/kernel/tcp-info-audits-bytes.c,
 * tests/kernel/tcp-info-audits-ends.c). Of an MPTCP socket they are worth nothing.
 * Returns 0, or -EOPNOTSUPP for another kind of socket, or a negative errno.
 */
int socket_get_counts(int fd, struct socket_counts *ret_counts);

enum socket_progress {
	SOCKET_CONNECTING,
	SOCKET_CONNECTED, /* also where the other side has sent its end since */
	SOCKET_CLOSED,    /* refused, or reset since; SO_ERROR tells why, once */
};

/*
 * What has come of connect() (tests/kernel/tcp-connect-seen-by-adopter.c). Returns enum
 * socket_progress, or -EOPNOTSUPP for another kind of socket than TCP, or a negative
 * errno.
 */
int socket_get_progress(int fd);

/* Bytes that were written to fd and that its peer's kernel has not yet acknowledged (for
 * AF_UNIX: not yet read). Returns 0 or a negative errno. */
int socket_get_unsent(int fd, size_t *ret_unsent);

/* Whether fd is a socket of TCP itself, and not of MPTCP or another protocol. */
bool socket_is_tcp(int fd);

/* Whether the next byte to be read is an urgent one (SIOCATMARK). */
bool socket_is_at_urgent(int fd);

/*
 * "127.0.0.1:8888", "[::1]:8888", "/path", "@abstract" or "unnamed" in ret_text[size], with
 * a question mark for each byte that is not printable ASCII: an AF_UNIX name may have any.
 */
void socket_format_peer(int fd, char *ret_text, size_t size);
void socket_format_local(int fd, char *ret_text, size_t size);
#define SOCKET_NAME_SIZE 128
