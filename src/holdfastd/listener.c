/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/listener.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/socket.h"
#include "base/time.h"

static void set(int fd, int level, int option, int value)
{
	/* AF_UNIX knows no TCP options; nothing depends on these being set */
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

static void set_linger(int fd, bool reset_at_close)
{
	struct linger linger = {.l_onoff = reset_at_close, .l_linger = 0};

	/* AF_UNIX takes it and knows no reset; TCP does not refuse it */
	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

void listener_set_orderly_close(int fd)
{
	set_linger(fd, false);
}

void listener_set_options(int fd, uint64_t keepalive_idle_usec)
{
	set(fd, SOL_SOCKET, SO_OOBINLINE, 1);
	if (!socket_is_tcp(fd))
		return;
	set_linger(fd, true);
	set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set(fd, SOL_SOCKET, SO_KEEPALIVE, keepalive_idle_usec != USEC_INFINITY);
	if (keepalive_idle_usec == USEC_INFINITY)
		return;
	set(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)(keepalive_idle_usec / USEC_PER_SEC));
	set(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SEC);
	set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
}

bool listener_is_one(int fd)
{
	int listening = 0, type = 0;
	socklen_t size = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 &&
	       listening && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
	       type == SOCK_STREAM;
}

void listener_check_accepted(int fd, uint64_t keepalive_idle_usec)
{
	int inherited = 0;
	socklen_t size = sizeof(inherited);

	if (getsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &inherited, &size) < 0 || !inherited)
		listener_set_options(fd, keepalive_idle_usec);
}
