/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The datagram socket that $NOTIFY_SOCKET names, and reading from it.
 *
 * It is a socket file where one can be made: that can be reached from another network
 * namespace (a service may well run with no network of its own), which an abstract name
 * cannot, and from another mount namespace as long as that shows the directory. An
 * abstract name remains for containers with nothing writable. The file may be written to
 * by all, since a service may change its user; what counts is the sender's pid, which the
 * kernel vouches for.
 */
#pragma once

#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "keeper/message.h"

/* The kernel's SCM_MAX_FD: no message can carry more. */
#define NOTIFY_FDS_MAX 253

struct notify_socket {
	int fd;
	char name[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 1]; /* $NOTIFY_SOCKET */
};

/* One datagram. Its fds belong to it; who keeps one takes it with take_fd(). */
struct notification {
	struct ucred sender;
	size_t n_fds;
	int fds[NOTIFY_FDS_MAX];
	size_t text_size;
	char text[MESSAGE_TEXT_MAX + 1]; /* one more, for message_parse() */
};

/*
 * Opens the socket: in /run, $XDG_RUNTIME_DIR or /tmp, else with an abstract name.
 * Returns 0, or a negative errno of socket(2), setsockopt(2) or bind(2).
 */
int notify_socket_init(struct notify_socket *notify);

/* Closes it and removes its file. notify->fd may be -EBADF. */
void notify_socket_done(struct notify_socket *notify);

/*
 * Receives the next datagram without waiting.
 * Returns 0; -EAGAIN if there is none; -EBADMSG if it was refused because its text or fds
 * were cut short or it has no sender, its fds being closed; or another errno of
 * recvmsg(2).
 */
int notify_socket_receive(struct notify_socket *notify,
			  struct notification *ret_notification);

/* Closes the fds that nobody took. */
void notification_done(struct notification *notification);
