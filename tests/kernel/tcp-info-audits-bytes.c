/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * TCP_INFO with SIOCINQ and SIOCOUTQ is an exact audit of a socket, with no book kept by
 * the process: consumed = tcpi_bytes_received - SIOCINQ, written = tcpi_bytes_acked +
 * SIOCOUTQ. A FIN received adds one to tcpi_bytes_received, and SIOCINQ never counts it.
 * The SYN of connect() and a FIN sent each add one to what was written.
 *
 * flow and connection rely on it after adopt.
 * Source: tcp_rcv_nxt_update(), tcp_snd_una_update(), tcp_inq(), tcp_ioctl() in the
 * kernel's net/ipv4/; tcp(7).
 */

#include "check.h"

static long long consumed(int fd)
{
	return (long long)tcp_info(fd).tcpi_bytes_received - ask(fd, SIOCINQ);
}

static long long written(int fd)
{
	return (long long)tcp_info(fd).tcpi_bytes_acked + ask(fd, SIOCOUTQ);
}

static void bytes_without_fin(void)
{
	static const char bytes[100000];
	int ours, peer;

	tcp_pair(&ours, &peer);
	check_equal(consumed(ours), 0, "an accepted socket starts with nothing consumed");
	check_equal(written(ours), 0, "an accepted socket starts with nothing written");
	check_equal(written(peer), 1, "a connected socket counts its SYN as written");
	check_equal(consumed(peer), 0, "a connected socket does not count the other SYN");

	(void)must(send(peer, bytes, 1000, 0), "send");
	check(eventually(ask(ours, SIOCINQ) == 1000), "SIOCINQ counts what waits");
	check_equal(consumed(ours), 0, "what waits is not consumed");
	receive_all(ours, 300);
	check_equal(consumed(ours), 300, "what was read is consumed");

	(void)must(send(ours, bytes, sizeof(bytes), 0), "send");
	check_equal(written(ours), sizeof(bytes),
		    "what was sent is written, acked or not");
	receive_all(peer, sizeof(bytes));
	check_equal(consumed(peer), sizeof(bytes), "100000 bytes consumed by the peer");
	check(eventually(tcp_info(ours).tcpi_bytes_acked == sizeof(bytes)),
	      "tcpi_bytes_acked reaches what was sent");
	check_equal(written(ours), sizeof(bytes), "and written is the same");
}

static void bytes_with_fin(void)
{
	int ours, peer;

	tcp_pair(&ours, &peer);
	(void)must(send(peer, "0123456789", 10, 0), "send");
	(void)must(shutdown(peer, SHUT_WR), "shutdown");
	check_equal(wait_for(ours, POLLRDHUP), POLLRDHUP, "the FIN arrives");
	check_equal(tcp_info(ours).tcpi_state, TCP_STATE_CLOSE_WAIT,
		    "state is CLOSE_WAIT with bytes still unread");
	check_equal(ask(ours, SIOCINQ), 10, "SIOCINQ does not count the FIN");
	check_equal((long long)tcp_info(ours).tcpi_bytes_received, 11,
		    "tcpi_bytes_received does");
	receive_all(ours, 10);
	check_equal(ask(ours, SIOCINQ), 0, "SIOCINQ is 0 before the end is read");
	check_equal(consumed(ours), 11, "consumed is one too many after a FIN");
	receive_all(ours, 0);
	check_equal(outcome(recv(ours, (char[1]){0}, 1, 0)), 0, "the end is read");
	check_equal(consumed(ours), 11, "reading the end changes nothing");
	check_equal(ask(ours, SIOCINQ), 0, "nor SIOCINQ");

	check(eventually(tcp_info(peer).tcpi_state == TCP_STATE_FIN_WAIT2),
	      "the sender of the FIN is in FIN_WAIT2");
	check_equal(written(peer), 12, "its FIN counts as written, beside its SYN");
}

/* A FIN behind a full receive window is not acknowledged but counts as written. */
static void fin_behind_a_full_window(void)
{
	static const char bytes[65536];
	long long n_sent = 0;
	int ours, peer;
	long n;

	tcp_pair(&ours, &peer);
	while ((n = outcome(send(ours, bytes, sizeof(bytes), 0))) > 0)
		n_sent += n;
	check_equal(n, -EAGAIN, "a socket whose peer does not read fills");
	check_equal(written(ours), n_sent, "written is exact with a full window");
	check(ask(ours, SIOCOUTQ) > 0, "SIOCOUTQ counts what is not acknowledged");
	(void)must(shutdown(ours, SHUT_WR), "shutdown");
	check_equal(tcp_info(ours).tcpi_state, TCP_STATE_FIN_WAIT1, "state is FIN_WAIT1");
	check_equal(written(ours), n_sent + 1, "the waiting FIN is written");
	receive_all(peer, (size_t)n_sent);
	check(eventually(tcp_info(ours).tcpi_state == TCP_STATE_FIN_WAIT2),
	      "state is FIN_WAIT2 once it was acknowledged");
	check_equal(written(ours), n_sent + 1, "and written is the same");
	check_equal(ask(ours, SIOCOUTQ), 0, "with SIOCOUTQ 0");
}

int main(void)
{
	check_begin();
	bytes_without_fin();
	bytes_with_fin();
	fin_behind_a_full_window();
	return check_end();
}
