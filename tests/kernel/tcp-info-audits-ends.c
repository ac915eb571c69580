/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The audit of tcp-info-audits-bytes.c stays exact where streams do not just flow, over
 * IPv4 and IPv6: written - (1 for connect()) - (1 for a FIN sent) and
 * consumed - (1 for a FIN received) count the bytes of the streams alone. The state tells
 * which FINs there were, but for CLOSE, in which there may have been either, both or
 * none: each count is then known to within one. A reset changes no count, though it
 * throws away what was not acknowledged. Retransmission, urgent bytes and the data of a
 * SYN are counted once. An MPTCP socket answers TCP_INFO as well, but for its first
 * subflow only: SO_PROTOCOL tells it.
 *
 * audit relies on it.
 * Source: as there; tcp_fastopen_add_skb(), tcp_rcv_synsent_state_process(),
 * tcp_send_fin(), tcp_write_queue_purge() in net/ipv4/; mptcp_getsockopt() in net/mptcp/.
 */

#include <linux/filter.h>
#include <net/if.h>
#include <sched.h>

#include "check.h"

#define TCP_STATE_CLOSING 11
#define PROTOCOL_MPTCP 262

static long long consumed(int fd)
{
	return (long long)tcp_info(fd).tcpi_bytes_received - ask(fd, SIOCINQ);
}

static long long written(int fd)
{
	return (long long)tcp_info(fd).tcpi_bytes_acked + ask(fd, SIOCOUTQ);
}

static void check_counts(int fd, long long n_consumed, long long n_written,
			 const char *sentence)
{
	char text[128];

	(void)snprintf(text, sizeof(text), "%s: consumed", sentence);
	check_equal(consumed(fd), n_consumed, text);
	(void)snprintf(text, sizeof(text), "%s: written", sentence);
	check_equal(written(fd), n_written, text);
}

static void await_state(int fd, unsigned state)
{
	require(eventually(tcp_info(fd).tcpi_state == state), "the state is reached");
}

static void send_text(int from, int to, const char *text)
{
	long long before = (long long)tcp_info(to).tcpi_bytes_received;

	(void)must(send(from, text, strlen(text), 0), "send");
	require(eventually((long long)tcp_info(to).tcpi_bytes_received ==
			   before + (long long)strlen(text)),
		"the bytes arrived");
}

/* As tcp_pair(), of either family. False where this machine has no such addresses. */
static bool pair_of(int family, int *ret_ours, int *ret_peer)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6,
				       .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	socklen_t size = sizeof(address);
	int listener;

	if (family == AF_INET) {
		tcp_pair(ret_ours, ret_peer);
		return true;
	}
	listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 ||
	    bind(listener, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return false;
	(void)must(listen(listener, 1), "listen");
	(void)must(getsockname(listener, (struct sockaddr *)&address, &size),
		   "getsockname");
	*ret_peer = must(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
	(void)must(connect(*ret_peer, (const struct sockaddr *)&address, size),
		   "connect");
	*ret_ours = must(accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK),
			 "accept4");
	make_nonblocking(*ret_peer);
	(void)close(listener);
	return true;
}

/* Bytes both ways by splice, then a FIN of each side, ours the first or the second. */
static void orderly_ends(int family, bool ours_first)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	if (!pair_of(family, &ours, &peer)) {
		check_skip("orderly ends", "no IPv6");
		return;
	}
	check_counts(ours, 0, 0, "accepted");
	check_counts(peer, 0, 1, "connected");
	send_text(peer, ours, "0123456789");
	check_equal(move_bytes(ours, pipe_fd, 7), 7, "splice takes seven of ten bytes");
	check_counts(ours, 7, 0, "seven spliced");
	check_equal(move_bytes(pipe_fd, ours, 100), 7, "and gives them back");
	check_counts(ours, 7, 7, "seven echoed");
	if (ours_first)
		(void)must(shutdown(ours, SHUT_WR), "shutdown");
	(void)must(shutdown(peer, SHUT_WR), "shutdown");
	await_state(ours, ours_first ? TCP_STATE_CLOSE : TCP_STATE_CLOSE_WAIT);
	check_counts(ours, 8, ours_first ? 8 : 7, "after the FINs, three bytes wait");
	check_equal(move_bytes(ours, pipe_fd, 100), 3, "which splice takes");
	check_equal(move_bytes(ours, pipe_fd, 100), 0, "and the end");
	check_counts(ours, 11, ours_first ? 8 : 7, "all spliced, the end too");
	if (!ours_first)
		(void)must(shutdown(ours, SHUT_WR), "shutdown");
	await_state(ours, TCP_STATE_CLOSE);
	check_counts(ours, 11, 8, "both FINs, closed");
	await_state(peer, TCP_STATE_CLOSE);
	check_counts(peer, 1, 12, "the connected side, closed");
}

static size_t fill(int fd)
{
	static const char bytes[65536];
	size_t n_sent = 0;
	long n;

	while ((n = outcome(send(fd, bytes, sizeof(bytes), 0))) > 0)
		n_sent += (size_t)n;
	return n_sent;
}

/* Both have sent a FIN behind a full window, and only one of the two has arrived. */
static void both_end_at_once(int family)
{
	size_t n_ours, n_peer;
	int ours, peer;

	if (!pair_of(family, &ours, &peer)) {
		check_skip("both end at once", "no IPv6");
		return;
	}
	n_ours = fill(ours);
	n_peer = fill(peer);
	(void)must(shutdown(ours, SHUT_WR), "shutdown");
	(void)must(shutdown(peer, SHUT_WR), "shutdown");
	check_counts(ours, 0, (long long)n_ours + 1, "FIN_WAIT1 with a full window");
	receive_all(ours, n_peer);
	await_state(ours, TCP_STATE_CLOSING);
	check_counts(ours, (long long)n_peer + 1, (long long)n_ours + 1, "CLOSING");
}

/* fin: one of the peer's has come before. */
static void reset_with_bytes_on_their_way(int family, bool fin)
{
	size_t n_sent;
	int ours, peer;

	if (!pair_of(family, &ours, &peer)) {
		check_skip("reset", "no IPv6");
		return;
	}
	send_text(peer, ours, "0123456789");
	receive_all(ours, 4);
	n_sent = fill(ours);
	if (fin) {
		(void)must(shutdown(peer, SHUT_WR), "shutdown");
		await_state(ours, TCP_STATE_CLOSE_WAIT);
	}
	require(ask(ours, SIOCOUTQ) > 0, "something is not acknowledged");
	(void)must(send_reset(peer), "reset");
	await_state(ours, TCP_STATE_CLOSE);
	check_counts(ours, fin ? 5 : 4, (long long)n_sent,
		     fin ? "FIN, then RST" : "RST with unsent and unread bytes");
	check_equal(get_option(ours, SOL_SOCKET, SO_ERROR), fin ? EPIPE : ECONNRESET,
		    "the error is taken");
	check_counts(ours, fin ? 5 : 4, (long long)n_sent, "and then");
	receive_all(ours, 6);
	check_counts(ours, fin ? 11 : 10, (long long)n_sent, "what came before is read");
	check(outcome(send(ours, "x", 1, MSG_NOSIGNAL)) == -EPIPE, "no more is written");
	check_counts(ours, fin ? 11 : 10, (long long)n_sent, "which counts nothing");
}

/* The receiver's filter drops every segment until it goes. */
static void retransmission(void)
{
	struct sock_filter drop = {.code = BPF_RET | BPF_K, .k = 0};
	struct sock_fprog program = {.len = 1, .filter = &drop};
	int ours, peer;

	tcp_pair(&ours, &peer);
	(void)must(setsockopt(peer, SOL_SOCKET, SO_ATTACH_FILTER, &program,
			      sizeof(program)),
		   "SO_ATTACH_FILTER");
	(void)must(send(ours, "0123456789", 10, 0), "send");
	check(eventually(tcp_info(ours).tcpi_total_retrans > 0), "segments are resent");
	check_counts(ours, 0, 10, "resent");
	set_option(peer, SOL_SOCKET, SO_DETACH_FILTER, 0);
	check(eventually(tcp_info(ours).tcpi_bytes_acked == 10), "and arrive");
	check_counts(ours, 0, 10, "resent and acknowledged");
	receive_all(peer, 10);
	check_counts(peer, 10, 1, "resent and read");
}

static void urgent_bytes(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	tcp_pair(&ours, &peer);
	set_option(ours, SOL_SOCKET, SO_OOBINLINE, 1);
	send_text(peer, ours, "abc");
	(void)must(send(peer, "!", 1, MSG_OOB), "send urgent");
	send_text(peer, ours, "def");
	check_counts(peer, 0, 8, "an urgent byte is written like any");
	check_equal(move_bytes(ours, pipe_fd, 100), 3, "splice takes those before");
	check_counts(ours, 3, 0, "at the mark");
	check_equal(outcome(recv(ours, (char[1]){0}, 1, MSG_PEEK)), 1, "peeked");
	check_counts(ours, 3, 0, "the peeked byte is not consumed");
	check_equal(outcome(recv(ours, (char[1]){0}, 1, 0)), 1, "read");
	check_counts(ours, 4, 0, "past the mark");
	(void)must(send(peer, "?", 1, MSG_OOB), "send urgent");
	require(eventually(ask(ours, SIOCINQ) == 4), "it arrived");
	check_counts(ours, 4, 0, "with the next one");
	receive_all(ours, 3);
	check_counts(ours, 7, 0, "at the second mark");
	receive_all(ours, 1);
	check_counts(ours, 8, 0, "past it");
}

/* connect() to one's own address: both SYNs cross. */
static void simultaneous_open(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t size = sizeof(address);
	int fd = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	(void)must(bind(fd, (const struct sockaddr *)&address, size), "bind");
	(void)must(getsockname(fd, (struct sockaddr *)&address, &size), "getsockname");
	(void)must(connect(fd, (const struct sockaddr *)&address, size), "connect");
	check_counts(fd, 0, 1, "connected to itself");
	send_text(fd, fd, "0123456789");
	receive_all(fd, 6);
	check_counts(fd, 6, 11, "with bytes");
}

static void not_yet_connected(void)
{
	int fd = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");

	check_counts(fd, 0, 0, "not connected");
}

/* TCP Fast Open, in a network of its own where every listener takes it. */
static void syn_with_data(void)
{
	struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	struct sockaddr_in address;
	int listener, ours, peer, setting;

	if (unshare(CLONE_NEWNET) < 0 ||
	    (setting = open("/proc/sys/net/ipv4/tcp_fastopen", O_WRONLY)) < 0 ||
	    write(setting, "1543", 4) != 4) {
		check_skip("data in a SYN", "no network of its own to be had");
		return;
	}
	listener = must(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket");
	(void)must(ioctl(listener, SIOCSIFFLAGS, &loopback), "SIOCSIFFLAGS");
	listener = tcp_listen(&address, 16);
	peer = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
	check_equal(outcome(sendto(peer, "0123456789", 10, MSG_FASTOPEN,
				   (const struct sockaddr *)&address, sizeof(address))),
		    10, "SYN data is sent");
	ours = must(accept4(listener, NULL, NULL, SOCK_CLOEXEC), "accept4");
	require(eventually(tcp_info(ours).tcpi_state == TCP_STATE_ESTABLISHED), "open");
	check(tcp_info(ours).tcpi_options & TCPI_OPT_SYN_DATA, "it came with the SYN");
	check_counts(ours, 0, 0, "SYN data unread");
	check_counts(peer, 0, 11, "SYN data written");
	receive_all(ours, 10);
	check_counts(ours, 10, 0, "SYN data read");
	send_text(ours, peer, "01234");
	check_counts(ours, 10, 5, "and answered");
}

static void mptcp_is_told_by_its_protocol(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, PROTOCOL_MPTCP);
	int tcp = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");

	check_equal(get_option(tcp, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP,
		    "SO_PROTOCOL of TCP");
	if (fd < 0)
		check_skip("SO_PROTOCOL of MPTCP", "the kernel has none");
	else
		check_equal(get_option(fd, SOL_SOCKET, SO_PROTOCOL), PROTOCOL_MPTCP,
			    "SO_PROTOCOL of MPTCP");
}

int main(void)
{
	static const int families[] = {AF_INET, AF_INET6};

	check_begin();
	for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
		printf("# family %d\n", families[i]);
		orderly_ends(families[i], false);
		orderly_ends(families[i], true);
		both_end_at_once(families[i]);
		reset_with_bytes_on_their_way(families[i], false);
		reset_with_bytes_on_their_way(families[i], true);
	}
	retransmission();
	urgent_bytes();
	simultaneous_open();
	not_yet_connected();
	mptcp_is_told_by_its_protocol();
	syn_with_data(); /* the last: there is no way back */
	return check_end();
}
