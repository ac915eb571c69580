/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "listen.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "argument.h"
#include "base/fd.h"

int listen_at(const char *text, int *ret_listener)
{
	_cleanup_close_ int fd = -EBADF;
	struct sockaddr_storage address;
	socklen_t address_bytes;
	const int on = 1;
	int r = argument_parse_address(text, &address, &address_bytes);

	if (r < 0)
		return r;
	fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (const struct sockaddr *)&address, address_bytes) < 0 ||
	    listen(fd, SOMAXCONN) < 0)
		return -errno;
	(void)puts("ready");
	(void)fflush(stdout);
	*ret_listener = take_fd(&fd);
	return 0;
}
