/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is set on listeners and on upstream sockets. Accepted TCP sockets inherit it from
 * their listener, which saves calls per connection; but not those that were in the accept
 * queue already, and no AF_UNIX ones (tests/kernel/tcp-accepted-inherits-options.c,
 * tests/kernel/unix-urgent-passes-splice.c).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Probes of a silent peer, after the idle time: it is gone when none is answered. */
#define KEEPALIVE_PROBES 6
#define KEEPALIVE_INTERVAL_SEC 10

/*
 * What a stream needs before its first byte. TCP_NODELAY; SO_OOBINLINE, so that urgent
 * bytes stay in the stream. What a family does not have is left out (is_tcp).
 *
 * And SO_LINGER of zero: whoever closes the last copy of the socket, be it the service
 * manager that releases the store, resets the connection
 * (tests/kernel/linger-resets-at-last-close.c). A stream that is cut off must not look
 * like one that has ended.
 */
void listener_set_stream_options(int fd, bool is_tcp);

/*
 * Keepalive after keepalive_idle_usec, unless the socket has it: four calls that a
 * connection which ends soon does without.
 */
void listener_keep_alive(int fd, uint64_t keepalive_idle_usec);

/* Both, and keepalive anew (USEC_INFINITY: none). */
void listener_set_options(int fd, uint64_t keepalive_idle_usec);

/* Sets the same on an accepted socket that has not inherited it. */
void listener_check_accepted(int fd, uint64_t keepalive_idle_usec);

/* Lets the last close of a connection that has ended in order leave what is still to be
 * sent. */
void listener_set_orderly_close(int fd);

/* Whether fd is a stream socket that listens (SO_ACCEPTCONN). */
bool listener_is_one(int fd);
