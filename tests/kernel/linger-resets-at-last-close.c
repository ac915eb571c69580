/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * With SO_LINGER of zero, which an accepted socket inherits from its listener, the last
 * close of a connection sends an RST, whoever's copy is the last: here a parcel's.
 * Switched off before, it sends what is left and a FIN.
 *
 * listener (what a connection that is cut off looks like) and connection (its end in
 * order) rely on it. Source: socket(7), SO_LINGER; __tcp_close() in net/ipv4/tcp.c.
 */

#include "check.h"

static void set_linger(int fd, bool on)
{
	struct linger linger = {.l_onoff = on};

	(void)must(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)),
		   "SO_LINGER");
}

/* A connection whose accepted side is in a parcel only. */
static void park_accepted(int *ret_out, int *ret_peer, bool in_order)
{
	struct sockaddr_in address;
	int listener = tcp_listen(&address, 1), accepted, in;

	set_linger(listener, true);
	*ret_peer = tcp_connect(&address);
	accepted = must(accept(listener, NULL, NULL), "accept");
	unix_pair(SOCK_SEQPACKET, &in, ret_out);
	require(message_put(in, 1, &accepted, 1) == 24, "put");
	(void)must(send(accepted, "tail", 4, 0), "send");
	if (in_order)
		set_linger(accepted, false);
	(void)close(accepted);
	(void)close(in);
	(void)close(listener);
}

static void last_close_resets(void)
{
	int out, peer;

	park_accepted(&out, &peer, false);
	check_equal(events_now(peer, POLLRDHUP), 0, "reset: not while a copy is parked");
	(void)close(out);
	check(wait_for(peer, 0) & POLLERR, "reset: the parcel's close sends an RST");
}

static void last_close_in_order_ends(void)
{
	char text[8];
	int out, peer;

	park_accepted(&out, &peer, true);
	(void)close(out);
	check(wait_for(peer, POLLRDHUP) & POLLRDHUP,
	      "in order: the parcel's close sends a FIN");
	check_equal(outcome(recv(peer, text, sizeof(text), 0)), 4,
		    "in order: behind the tail");
	check_equal(outcome(recv(peer, text, sizeof(text), 0)), 0,
		    "in order: then the end");
}

int main(void)
{
	check_begin();
	last_close_resets();
	last_close_in_order_ends();
	return check_end();
}
