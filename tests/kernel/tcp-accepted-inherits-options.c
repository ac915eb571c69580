/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A TCP socket takes over from its listener at accept(): SO_OOBINLINE, TCP_NODELAY,
 * SO_KEEPALIVE with its times and TCP_USER_TIMEOUT. O_NONBLOCK it does not.
 *
 * server relies on it: it sets them once, and no urgent byte can arrive before its
 * connection has SO_OOBINLINE.
 * Source: inet_csk_clone_lock(), sk_clone_lock() in the kernel; accept(2).
 */

#include "check.h"

static const struct {
	int level, option, value;
	const char *sentence;
} inherited[] = {
	{SOL_SOCKET, SO_OOBINLINE, 1, "SO_OOBINLINE is inherited"},
	{SOL_SOCKET, SO_KEEPALIVE, 1, "SO_KEEPALIVE is inherited"},
	{IPPROTO_TCP, TCP_NODELAY, 1, "TCP_NODELAY is inherited"},
	{IPPROTO_TCP, TCP_KEEPIDLE, 61, "TCP_KEEPIDLE is inherited"},
	{IPPROTO_TCP, TCP_KEEPINTVL, 13, "TCP_KEEPINTVL is inherited"},
	{IPPROTO_TCP, TCP_KEEPCNT, 5, "TCP_KEEPCNT is inherited"},
	{IPPROTO_TCP, TCP_USER_TIMEOUT, 120000, "TCP_USER_TIMEOUT is inherited"},
};

#define N_INHERITED (sizeof(inherited) / sizeof(*inherited))

static void set_all(int fd)
{
	for (size_t i = 0; i < N_INHERITED; i++)
		set_option(fd, inherited[i].level, inherited[i].option,
			   inherited[i].value);
}

static void check_all(int fd)
{
	for (size_t i = 0; i < N_INHERITED; i++)
		check_equal(get_option(fd, inherited[i].level, inherited[i].option),
			    inherited[i].value, inherited[i].sentence);
}

/* A connection that was complete before the options were set does not have them. */
static void options_set_too_late(void)
{
	struct sockaddr_in address;
	int listener = tcp_listen(&address, 1);
	int client = tcp_connect(&address), accepted;

	set_all(listener);
	accepted = must(accept4(listener, NULL, NULL, SOCK_CLOEXEC), "accept4");
	check_equal(get_option(accepted, SOL_SOCKET, SO_OOBINLINE), 0,
		    "a connection already in the queue does not get the options");
	(void)close(client);
}

int main(void)
{
	struct sockaddr_in address;
	int listener, client, accepted;

	check_begin();
	listener = tcp_listen(&address, 1);
	set_all(listener);
	make_nonblocking(listener);
	client = tcp_connect(&address);
	(void)must(send(client, "!", 1, MSG_OOB), "send urgent");
	(void)wait_for(listener, POLLIN);
	accepted = must(accept4(listener, NULL, NULL, SOCK_CLOEXEC), "accept4");
	check_all(accepted);
	check_equal(must(fcntl(accepted, F_GETFL), "F_GETFL") & O_NONBLOCK, 0,
		    "O_NONBLOCK is not inherited");
	(void)wait_for(accepted, POLLIN);
	check_equal(ask(accepted, SIOCINQ), 1,
		    "an urgent byte sent before accept is inline");
	options_set_too_late();
	return check_end();
}
