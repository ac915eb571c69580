/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/pipe.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fd.h"

int pipe_open_both_ends(int *ret_fd)
{
	char path[sizeof("/proc/self/fd/") + 11];
	int ends[2], fd, r;

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%i", ends[0]);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	r = fd < 0 ? -errno : 0;
	(void)fd_close(ends[0]);
	(void)fd_close(ends[1]);
	if (r == 0)
		*ret_fd = fd;
	return r;
}

int pipe_get_pending(int fd, size_t *ret_pending)
{
	int pending;

	if (ioctl(fd, FIONREAD, &pending) < 0)
		return -errno;
	*ret_pending = (size_t)pending;
	return 0;
}
