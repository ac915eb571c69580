/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A peer: one socket of a connection, as its worker's epoll sees it.
 *
 * Level-triggered on purpose: after a short read or write nothing has to be tried once
 * more just to see EAGAIN, which saves a system call for each small message. What to wait
 * for is computed from the flows after each batch and given to peer_watch(); it is never
 * remembered elsewhere.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct connection;

struct peer {
	struct connection *connection;
	int fd;           /* owned by the connection; -EBADF where there is none */
	uint32_t watched; /* events that epoll has been asked for */
	bool is_watched;  /* whether epoll knows the fd at all */
	bool readable;    /* a read may find something */
	bool writable;    /* a write may find room */
	bool urgent;      /* an urgent byte is somewhere in what can be read */
	bool ended;       /* EPOLLRDHUP was seen: its end comes after what can be read */
	/*
	 * EPOLLHUP or EPOLLERR was seen. Both are reported for ever and can't be masked,
	 * so the fd leaves epoll; from then on reads give bytes, EOF or an error, never
	 * EAGAIN.
	 */
	bool hung;
	/* It ended in an error: what it still has to give is delivered, then the other
	 * side is reset. The ledger has the same in its flags. */
	bool failed;
	_Atomic uint32_t *ledger_flags;
	uint32_t failed_flag;
};

/* What peer_watch() may be asked for beside EPOLL* events: to leave epoll. */
#define PEER_UNWATCHED UINT32_MAX

/* ledger_flags: of its connection's slot, in which failed_flag stands for this peer's
 * failure. */
void peer_init(struct peer *peer, struct connection *connection,
	       _Atomic uint32_t *ledger_flags, uint32_t failed_flag);

/* Gives it another socket, of which nothing is known yet. */
void peer_set_fd(struct peer *peer, int fd);

/*
 * Notes that it ended in an error. The ledger first: the error may have been told to us
 * by a call that took it from the socket, and no other process could learn it then. What
 * it still has to give is there already, so reads never wait from now on.
 */
void peer_fail(struct peer *peer);

/* The same where the ledger has it already. */
void peer_set_failed(struct peer *peer);

/*
 * Makes epoll wait for events (EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP; 0 for errors
 * only), or forget the fd. Does nothing where nothing changes. Must have been called with
 * PEER_UNWATCHED before the fd is closed: while a parcel holds the file, the registration
 * would outlive the fd (tests/kernel/epoll-outlives-close.c). Returns 0 or a negative
 * errno (-ENOMEM, -ENOSPC: fs.epoll.max_user_watches).
 */
int peer_watch(struct peer *peer, int epoll_fd, uint32_t events);

/* Takes note of what epoll said. Does not judge it. */
void peer_note_events(struct peer *peer, uint32_t events);
