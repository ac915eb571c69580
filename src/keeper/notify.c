/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper/notify.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/fd.h"

/* Everybody may write; see the head of notify.h. */
#define NOTIFY_UMASK 0111

static int bind_in_directory(int fd, const char *directory, char *ret_name, size_t size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	uint64_t random;
	mode_t saved_umask;
	int n, r;

	/* not by pid: two containers may share the directory, and be pid 1 each */
	if (!directory || getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -ENOENT;
	n = snprintf(address.sun_path, sizeof(address.sun_path),
		     "%s/holdfast-keeper.%016" PRIx64, directory, random);
	if (n < 0 || (size_t)n >= sizeof(address.sun_path) || *directory != '/')
		return -ENAMETOOLONG;
	saved_umask = umask(NOTIFY_UMASK);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	(void)umask(saved_umask);
	if (r == 0)
		(void)snprintf(ret_name, size, "%s", address.sun_path);
	return r;
}

static int bind_abstract(int fd, char *ret_name, size_t size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t address_size = sizeof(sa_family_t);
	size_t name_size;

	/* an address without a name: the kernel finds a free abstract one; see unix(7) */
	if (bind(fd, (struct sockaddr *)&address, address_size) < 0)
		return -errno;
	address_size = sizeof(address);
	if (getsockname(fd, (struct sockaddr *)&address, &address_size) < 0)
		return -errno;
	name_size = address_size - offsetof(struct sockaddr_un, sun_path);
	(void)snprintf(ret_name, size, "@%.*s", (int)name_size - 1, address.sun_path + 1);
	return 0;
}

int notify_socket_init(struct notify_socket *notify)
{
	const char *directories[] = {"/run", getenv("XDG_RUNTIME_DIR"), "/tmp"};
	_cleanup_close_ int fd = -EBADF;
	int r = -ENOENT, on = 1;
	size_t i;

	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0)
		return -errno;
	for (i = 0; r < 0 && i < sizeof(directories) / sizeof(directories[0]); i++)
		r = bind_in_directory(fd, directories[i], notify->name,
				      sizeof(notify->name));
	if (r < 0)
		r = bind_abstract(fd, notify->name, sizeof(notify->name));
	if (r < 0)
		return r;
	notify->fd = take_fd(&fd);
	return 0;
}

void notify_socket_done(struct notify_socket *notify)
{
	if (notify->fd < 0)
		return;
	notify->fd = fd_close(notify->fd);
	if (notify->name[0] == '/')
		(void)unlink(notify->name); /* a file that stays harms nobody */
}

/* Takes what came with the text. Returns whether the kernel told who sent it. */
static bool take_control(struct msghdr *header, struct notification *notification)
{
	struct cmsghdr *control;
	bool has_sender = false;
	size_t size;

	for (control = CMSG_FIRSTHDR(header); control;
	     control = CMSG_NXTHDR(header, control)) {
		if (control->cmsg_level != SOL_SOCKET)
			continue;
		size = control->cmsg_len - CMSG_LEN(0);
		if (control->cmsg_type == SCM_RIGHTS && notification->n_fds == 0) {
			assert(size <= sizeof(notification->fds));
			memcpy(notification->fds, CMSG_DATA(control), size);
			notification->n_fds = size / sizeof(int);
		} else if (control->cmsg_type == SCM_CREDENTIALS) {
			memcpy(&notification->sender, CMSG_DATA(control),
			       sizeof(struct ucred));
			has_sender = true;
		}
	}
	return has_sender;
}

int notify_socket_receive(struct notify_socket *notify,
			  struct notification *ret_notification)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(struct ucred)) +
			   CMSG_SPACE(NOTIFY_FDS_MAX * sizeof(int))];
	} control;
	struct iovec text = {.iov_base = ret_notification->text,
			     .iov_len = MESSAGE_TEXT_MAX};
	struct msghdr header = {
		.msg_iov = &text,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(notify->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

	ret_notification->n_fds = 0;
	ret_notification->sender = (struct ucred){.pid = 0};
	if (n < 0)
		return -errno;
	ret_notification->text_size = (size_t)n;
	if (!take_control(&header, ret_notification) ||
	    (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
		notification_done(ret_notification);
		return -EBADMSG;
	}
	return 0;
}

void notification_done(struct notification *notification)
{
	size_t i;

	for (i = 0; i < notification->n_fds; i++)
		notification->fds[i] = fd_close(notification->fds[i]);
	notification->n_fds = 0;
}
