/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * SIOCOUTQ of a TCP socket is 0 once the peer's kernel has acknowledged everything,
 * whether or not the peer's process has read it: from then on an RST of ours takes
 * nothing from the peer. While the peer's window is full it stays above 0. For AF_UNIX it
 * counts memory, not bytes, and is 0 only when the peer has read everything.
 *
 * connection relies on it: deliver what is pending, then reset.
 * Source: tcp_ioctl() in net/ipv4/tcp.c, unix_outq_len() in net/unix/af_unix.c; tcp(7).
 */

#include "check.h"

static void tcp_drains(void)
{
	char bytes[16];
	int ours, peer;

	tcp_pair(&ours, &peer);
	(void)must(send(ours, "0123456789", 10, 0), "send");
	check(eventually(ask(ours, SIOCOUTQ) == 0), "TCP: 0 when acknowledged, unread");
	(void)must(send_reset(ours), "reset");
	check(wait_for(peer, 0) & POLLERR, "TCP: an RST then");
	check_equal(outcome(recv(peer, bytes, sizeof(bytes), 0)), 10,
		    "TCP: leaves the peer all bytes");
	check_equal(outcome(recv(peer, bytes, sizeof(bytes), 0)), -ECONNRESET,
		    "TCP: and the error after them");
}

static void tcp_full(void)
{
	static char bytes[65536];
	int ours, peer;

	tcp_pair(&ours, &peer);
	while (outcome(send(ours, bytes, sizeof(bytes), 0)) > 0)
		continue;
	check(ask(ours, SIOCOUTQ) > 0, "TCP: above 0 while the window is full");
	check(eventually(recv(peer, bytes, sizeof(bytes), 0) < 0 &&
			 ask(ours, SIOCOUTQ) == 0),
	      "TCP: 0 after the peer has read");
}

static void unix_drains_when_read(void)
{
	char bytes[16];
	int ours, peer;

	unix_pair(SOCK_STREAM, &ours, &peer);
	check_equal(ask(ours, SIOCOUTQ), 0, "AF_UNIX: 0 at first");
	(void)must(send(ours, "0123456789", 10, 0), "send");
	check(ask(ours, SIOCOUTQ) > 10, "AF_UNIX: more than the bytes sent");
	(void)must(recv(peer, bytes, 9, 0), "recv");
	check(ask(ours, SIOCOUTQ) > 10, "AF_UNIX: and so with one byte unread");
	(void)must(recv(peer, bytes, 1, 0), "recv");
	check_equal(ask(ours, SIOCOUTQ), 0, "AF_UNIX: 0 when all is read");
}

int main(void)
{
	check_begin();
	tcp_drains();
	tcp_full();
	unix_drains_when_read();
	return check_end();
}
