/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * While a parcel holds a copy of a TCP socket, close() ends nothing: the peer sees no FIN
 * and can go on sending. shutdown(SHUT_RDWR) sends the FIN, and connect(AF_UNSPEC) an RST
 * at once, which drops what was not sent yet.
 *
 * connection (its end) and vault (a swept parcel) rely on it.
 * Source: tcp_shutdown(), tcp_disconnect() in net/ipv4/tcp.c; connect(2) on AF_UNSPEC.
 */

#include "check.h"

static int in, out; /* the parcel's two ends */

static void parked_pair(int *ret_ours, int *ret_peer)
{
	tcp_pair(ret_ours, ret_peer);
	require(message_put(in, 1, ret_ours, 1) == 24, "put");
}

static void close_sends_nothing(void)
{
	struct message message = {0};
	int ours, peer;

	parked_pair(&ours, &peer);
	(void)close(ours);
	/* the peer's own bytes are acknowledged after the close, so a FIN would be here
	 */
	(void)must(send(peer, "later", 5, 0), "send");
	check(eventually(ask(peer, SIOCOUTQ) == 0),
	      "close: the kernel still acknowledges");
	check_equal(tcp_info(peer).tcpi_state, TCP_STATE_ESTABLISHED,
		    "close: the peer stays ESTABLISHED");
	check_equal(events_now(peer, POLLIN | POLLRDHUP), 0, "close: and sees no event");

	check_equal(message_get(out, 0, &message), 24,
		    "close: take it out of the parcel");
	check_equal(ask(message.fds[0], SIOCINQ), 5, "close: the bytes are there");
	(void)must(shutdown(message.fds[0], SHUT_WR), "shutdown");
	message_close_fds(&message);
	check(wait_for(peer, POLLIN) & POLLIN, "close: the last close ends it");
}

static void shutdown_sends_fin(void)
{
	int ours, peer;

	parked_pair(&ours, &peer);
	(void)must(shutdown(ours, SHUT_RDWR), "shutdown");
	(void)close(ours);
	check(wait_for(peer, POLLRDHUP) & POLLRDHUP, "shutdown: the peer gets the FIN");
	check_equal(tcp_info(peer).tcpi_state, TCP_STATE_CLOSE_WAIT,
		    "shutdown: it is in CLOSE_WAIT");
	check_equal(outcome(recv(peer, (char[1]){0}, 1, 0)), 0, "shutdown: it reads 0");
	check_equal(outcome(send(peer, "x", 1, MSG_NOSIGNAL)), 1,
		    "shutdown: what it sends then is taken");
	check(wait_for(peer, 0) & POLLERR, "shutdown: and answered with an RST");
}

static void shutdown_after_unread_bytes(void)
{
	int ours, peer;

	parked_pair(&ours, &peer);
	(void)must(send(peer, "unread", 6, 0), "send");
	(void)wait_for(ours, POLLIN);
	(void)must(shutdown(ours, SHUT_RDWR), "shutdown");
	(void)close(ours);
	check(wait_for(peer, POLLRDHUP) & POLLRDHUP, "unread: shutdown sends a FIN");
	check_equal(events_now(peer, 0) & POLLERR, 0, "unread: and no RST");
	check(eventually(ask(peer, SIOCOUTQ) == 0), "unread: all was acknowledged");
}

static void reset_is_sent_at_once(void)
{
	int ours, peer;

	parked_pair(&ours, &peer);
	check_equal(outcome(send_reset(ours)), 0, "reset: connect(AF_UNSPEC) gives 0");
	(void)close(ours);
	check(wait_for(peer, 0) & POLLERR, "reset: the peer is told");
	check_equal(outcome(recv(peer, (char[1]){0}, 1, 0)), -ECONNRESET,
		    "reset: its read gives ECONNRESET");
	check_equal(tcp_info(peer).tcpi_state, TCP_STATE_CLOSE, "reset: it is in CLOSE");
}

/* So whoever wants its last bytes delivered waits for SIOCOUTQ to become 0 first. */
static void reset_drops_what_is_not_sent(void)
{
	static char bytes[65536];
	long long n_sent = 0, n_received = 0;
	int ours, peer;
	long n;

	parked_pair(&ours, &peer);
	while ((n = outcome(send(ours, bytes, sizeof(bytes), 0))) > 0)
		n_sent += n;
	check(ask(ours, SIOCOUTQ) > 0, "unsent: the peer's window is full");
	(void)must(send_reset(ours), "reset");
	check(wait_for(peer, 0) & POLLERR, "unsent: the peer is told");
	while ((n = outcome(recv(peer, bytes, sizeof(bytes), 0))) > 0)
		n_received += n;
	check_equal(n, -ECONNRESET, "unsent: its reads end with ECONNRESET");
	check(n_received > 0, "unsent: what had arrived can be read");
	check(n_received < n_sent, "unsent: the rest is lost");
}

static void reset_after_fin(void)
{
	int ours, peer;

	parked_pair(&ours, &peer);
	(void)must(shutdown(ours, SHUT_WR), "shutdown");
	(void)wait_for(peer, POLLRDHUP);
	check_equal(outcome(send_reset(ours)), 0, "reset after our FIN: gives 0");
	check(wait_for(peer, 0) & POLLERR, "reset after our FIN: the peer is told");
}

static void reset_repeated(void)
{
	int ours, peer;

	parked_pair(&ours, &peer);
	check_equal(outcome(send_reset(ours)), 0, "repeated: the first reset");
	check_equal(outcome(send_reset(ours)), 0, "repeated: the second gives 0 as well");
	check_equal(outcome(shutdown(ours, SHUT_RDWR)), -ENOTCONN,
		    "repeated: shutdown after it is ENOTCONN");
	check_equal(outcome(getpeername(ours, &(struct sockaddr){0},
					&(socklen_t){sizeof(struct sockaddr)})),
		    -ENOTCONN, "repeated: and the peer's name is gone");
}

int main(void)
{
	check_begin();
	unix_pair(SOCK_SEQPACKET, &in, &out);
	close_sends_nothing();
	shutdown_sends_fin();
	shutdown_after_unread_bytes();
	reset_is_sent_at_once();
	reset_drops_what_is_not_sent();
	reset_after_fin();
	reset_repeated();
	return check_end();
}
