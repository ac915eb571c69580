/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/control.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/fd.h"
#include "base/socket.h"

/* Returns 0 where there is nothing (more) at address. */
static int remove_stale(const struct sockaddr_un *address)
{
	_cleanup_close_ int fd = -EBADF;
	struct stat status;

	if (lstat(address->sun_path, &status) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(status.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* EAGAIN: its accept queue is full (tests/kernel/unix-connect-backlog-full.c) */
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
	    errno == EAGAIN)
		return -EADDRINUSE;
	if (errno != ECONNREFUSED)
		return -errno;
	return unlink(address->sun_path) < 0 ? -errno : 0;
}

int control_listen(const char *path, int *ret_fd)
{
	_cleanup_close_ int fd = -EBADF;
	struct sockaddr_un address;
	int r;

	r = socket_set_path(path, &address);
	if (r < 0)
		return r;
	r = remove_stale(&address);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The file never has another mode (tests/kernel/unix-bind-takes-mode.c) */
	if (fd < 0 || fchmod(fd, 0600) < 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, CONTROL_CLIENTS_MAX) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

bool control_is_listening_at(int fd, const char *path)
{
	struct sockaddr_un address = {0};
	socklen_t size = sizeof(address) - 1; /* so that the path ends */

	return getsockname(fd, (struct sockaddr *)&address, &size) == 0 &&
	       address.sun_family == AF_UNIX && strcmp(address.sun_path, path) == 0;
}

const char *control_listen_strerror(int error)
{
	switch (-error) {
	case ENAMETOOLONG:
		return "the path of a socket has 107 bytes at the most";
	case EADDRINUSE:
		return "another process listens there";
	case EEXIST:
		return "there is something that is no socket";
	default:
		return strerror(-error);
	}
}
