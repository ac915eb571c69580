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

static bool has(int fd, int level, int option)
{
	int value = 0;
	socklen_t size = sizeof(value);

	return getsockopt(fd, level, option, &value, &size) == 0 && value;
}

void listener_set_stream_options(int fd, bool is_tcp)
{
	set(fd, SOL_SOCKET, SO_OOBINLINE, 1);
	if (!is_tcp)
		return;
	set_linger(fd, true);
	set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

static void set_keepalive(int fd, uint64_t idle_usec)
{
	set(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)(idle_usec / USEC_PER_SEC));
	set(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_SEC);
	set(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES);
	/* The last one: it tells the next process that the others are set */
	set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

void listener_keep_alive(int fd, uint64_t keepalive_idle_usec)
{
	if (!has(fd, SOL_SOCKET, SO_KEEPALIVE))
		set_keepalive(fd, keepalive_idle_usec);
}

void listener_set_options(int fd, uint64_t keepalive_idle_usec)
{
	bool is_tcp = socket_is_tcp(fd);

	listener_set_stream_options(fd, is_tcp);
	if (!is_tcp)
		return;
	if (keepalive_idle_usec == USEC_INFINITY)
		set(fd, SOL_SOCKET, SO_KEEPALIVE, 0);
	else
		set_keepalive(fd, keepalive_idle_usec);
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
	if (!has(fd, SOL_SOCKET, SO_OOBINLINE))
		listener_set_options(fd, keepalive_idle_usec);
}
