/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/peer.h"

#include <errno.h>
#include <sys/epoll.h>

void peer_init(struct peer *peer, struct connection *connection,
	       _Atomic uint32_t *ledger_flags, uint32_t failed_flag)
{
	*peer = (struct peer){
		.connection = connection,
		.fd = -EBADF,
		.ledger_flags = ledger_flags,
		.failed_flag = failed_flag,
	};
}

void peer_set_fd(struct peer *peer, int fd)
{
	peer->fd = fd;
	peer->is_watched = peer->urgent = peer->hung = peer->failed = false;
	peer->ended = false;
	peer->readable = false; /* the first event will say */
	peer->writable = true;  /* the first write will say */
}

void peer_fail(struct peer *peer)
{
	atomic_fetch_or(peer->ledger_flags, peer->failed_flag);
	peer_set_failed(peer);
}

void peer_set_failed(struct peer *peer)
{
	peer->failed = peer->hung = peer->readable = peer->writable = true;
}

int peer_watch(struct peer *peer, int epoll_fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = peer};
	int operation = peer->is_watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (peer->fd < 0)
		return 0;
	if (events == PEER_UNWATCHED) {
		if (!peer->is_watched)
			return 0;
		operation = EPOLL_CTL_DEL;
	} else if (peer->is_watched && peer->watched == events) {
		return 0;
	}
	if (epoll_ctl(epoll_fd, operation, peer->fd, &event) < 0)
		return -errno;
	peer->is_watched = operation != EPOLL_CTL_DEL;
	peer->watched = events;
	return 0;
}

void peer_note_events(struct peer *peer, uint32_t events)
{
	if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
		peer->readable = true;
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		peer->writable = true;
	if (events & EPOLLPRI)
		peer->urgent = true;
	if (events & EPOLLRDHUP)
		peer->ended = true;
	if (events & (EPOLLHUP | EPOLLERR))
		peer->hung = true;
}
