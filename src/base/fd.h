/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File descriptor ownership.
 *
 * Whoever owns an fd says so: `_cleanup_close_ int fd = -EBADF;`. Ownership is given away
 * aloud: `connection->client = take_fd(&fd);`. Everything else borrows.
 */
#pragma once

#include <errno.h>
#include <unistd.h>

/* Closes fd if it is one, keeping errno as it is. Returns -EBADF, to be assigned. */
static inline int fd_close(int fd)
{
	if (fd >= 0) {
		int saved_errno = errno;

		/* Linux frees the slot whatever close() returns; there is nothing to
		 * retry */
		(void)close(fd);
		errno = saved_errno;
	}
	return -EBADF;
}

static inline void fd_close_pointer(int *fd)
{
	*fd = fd_close(*fd);
}

#define _cleanup_close_ __attribute__((cleanup(fd_close_pointer)))

/* Gives away the ownership of *fd: returns it and leaves -EBADF behind. */
static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -EBADF;
	return taken;
}
