/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * After a connection ended, TCP_INFO of the fd that is still open says how: an RST and an
 * orderly end both leave tcpi_state at TCP_CLOSE, but only a FIN adds one to
 * tcpi_bytes_received. The counters and SIOCINQ stay readable, bytes that came before an
 * RST stay readable too, and all of it lasts until our own connect(AF_UNSPEC), which
 * zeroes it.
 *
 * flow relies on it to tell the end of a stream from its loss (adopt, splice's 0).
 * Source: tcp_reset(), tcp_fin(), tcp_done(), tcp_disconnect() in net/ipv4/.
 */

#include "check.h"

static void note(const char *when, int fd)
{
	struct tcp_info info = tcp_info(fd);

	printf("# %s: state %d, received %llu, acked %llu, SIOCINQ %d, SIOCOUTQ %d\n",
	       when, info.tcpi_state, (unsigned long long)info.tcpi_bytes_received,
	       (unsigned long long)info.tcpi_bytes_acked, ask(fd, SIOCINQ),
	       ask(fd, SIOCOUTQ));
}

static void send_ten(int from, int to)
{
	(void)must(send(from, "0123456789", 10, 0), "send");
	require(eventually(ask(to, SIOCINQ) == 10), "ten bytes arrived");
}

static void receive_ten(int fd)
{
	char bytes[10];

	require(recv(fd, bytes, sizeof(bytes), 0) == sizeof(bytes), "recv");
}

static void await_state(int fd, enum tcp_state state, const char *sentence)
{
	check(eventually(tcp_info(fd).tcpi_state == state), sentence);
}

static void reset_in_established(void)
{
	int ours, peer;

	tcp_pair(&ours, &peer);
	send_ten(peer, ours);
	receive_ten(ours);
	(void)must(send_reset(peer), "reset");
	await_state(ours, TCP_STATE_CLOSE, "RST in ESTABLISHED: state is CLOSE");
	note("RST in ESTABLISHED, all read", ours);
	check_equal((long long)tcp_info(ours).tcpi_bytes_received, 10,
		    "RST in ESTABLISHED: received has no one more");
	check_equal(ask(ours, SIOCINQ), 0, "RST in ESTABLISHED: SIOCINQ works, 0");
	check_equal(get_option(ours, SOL_SOCKET, SO_ERROR), ECONNRESET,
		    "RST in ESTABLISHED: the error is ECONNRESET");
	check_equal(outcome(recv(ours, (char[1]){0}, 1, 0)), 0,
		    "RST in ESTABLISHED: read is 0 once the error was taken");
	check_equal((long long)tcp_info(ours).tcpi_bytes_received, 10,
		    "RST in ESTABLISHED: received is the same after that");
}

static void reset_with_bytes_unread(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	tcp_pair(&ours, &peer);
	send_ten(peer, ours);
	(void)must(send_reset(peer), "reset");
	await_state(ours, TCP_STATE_CLOSE, "RST with bytes unread: state is CLOSE");
	note("RST, ten bytes unread", ours);
	check_equal((long long)tcp_info(ours).tcpi_bytes_received, 10,
		    "RST with bytes unread: received has no one more");
	check_equal(ask(ours, SIOCINQ), 10, "RST with bytes unread: SIOCINQ counts them");
	check_equal(move_bytes(ours, pipe_fd, 4), 4, "RST: splice still gives bytes");
	check_equal(ask(ours, SIOCINQ), 6, "RST: and SIOCINQ follows");
	check_equal(move_bytes(ours, pipe_fd, 100), 6, "RST: splice gives the rest");
	check_equal(move_bytes(ours, pipe_fd, 100), -ECONNRESET, "RST: then the error");
	check_equal(move_bytes(ours, pipe_fd, 100), 0, "RST: then 0, as at an end");
	check_equal(ask(ours, SIOCINQ), 0, "RST: SIOCINQ is 0 then");
}

static void reset_in_fin_wait2(void)
{
	int ours, peer;

	tcp_pair(&ours, &peer);
	send_ten(peer, ours);
	receive_ten(ours);
	send_ten(ours, peer);
	(void)must(shutdown(ours, SHUT_WR), "shutdown");
	await_state(ours, TCP_STATE_FIN_WAIT2, "our FIN is acknowledged: FIN_WAIT2");
	note("FIN_WAIT2", ours);
	(void)must(send_reset(peer), "reset");
	await_state(ours, TCP_STATE_CLOSE, "RST in FIN_WAIT2: state is CLOSE");
	note("RST in FIN_WAIT2", ours);
	check_equal((long long)tcp_info(ours).tcpi_bytes_received, 10,
		    "RST in FIN_WAIT2: received has no one more");
	check_equal((long long)tcp_info(ours).tcpi_bytes_acked, 11,
		    "RST in FIN_WAIT2: acked keeps our FIN");
	check_equal(get_option(ours, SOL_SOCKET, SO_ERROR), ECONNRESET,
		    "RST in FIN_WAIT2: the error is ECONNRESET");
}

static void reset_in_close_wait(void)
{
	int ours, peer;

	tcp_pair(&ours, &peer);
	send_ten(peer, ours);
	(void)must(shutdown(peer, SHUT_WR), "shutdown");
	await_state(ours, TCP_STATE_CLOSE_WAIT, "the peer's FIN: CLOSE_WAIT");
	(void)must(send_reset(peer), "reset");
	await_state(ours, TCP_STATE_CLOSE, "RST in CLOSE_WAIT: state is CLOSE");
	note("RST in CLOSE_WAIT, ten bytes unread", ours);
	check_equal((long long)tcp_info(ours).tcpi_bytes_received, 11,
		    "RST in CLOSE_WAIT: received keeps the FIN");
	check_equal(ask(ours, SIOCINQ), 10, "RST in CLOSE_WAIT: SIOCINQ is without it");
	check(events_now(ours, POLLIN) & POLLERR, "RST in CLOSE_WAIT: POLLERR");
	check(events_now(ours, POLLIN) & POLLHUP, "RST in CLOSE_WAIT: POLLHUP");
	receive_ten(ours);
	check_equal(outcome(recv(ours, (char[1]){0}, 1, 0)), 0,
		    "RST in CLOSE_WAIT: after the bytes comes the end, not the error");
	check_equal(get_option(ours, SOL_SOCKET, SO_ERROR), EPIPE,
		    "RST in CLOSE_WAIT: the error is EPIPE");
}

/* We end first: the socket goes through TIME_WAIT, which the fd shows as CLOSE. */
static void orderly_end_ours_first(void)
{
	int ours, peer;

	tcp_pair(&ours, &peer);
	send_ten(peer, ours);
	receive_ten(ours);
	(void)must(shutdown(ours, SHUT_WR), "shutdown");
	await_state(ours, TCP_STATE_FIN_WAIT2, "we end first: FIN_WAIT2");
	(void)must(shutdown(peer, SHUT_WR), "shutdown");
	await_state(ours, TCP_STATE_CLOSE, "we end first: state is CLOSE");
	note("orderly, our FIN first", ours);
	check_equal((long long)tcp_info(ours).tcpi_bytes_received, 11,
		    "we end first: received has one more");
	check_equal((long long)tcp_info(ours).tcpi_bytes_acked, 1,
		    "we end first: acked has our FIN");
	check_equal(ask(ours, SIOCINQ), 0, "we end first: SIOCINQ is 0");
	check(!(events_now(ours, POLLIN) & POLLERR), "we end first: no POLLERR");
	check(events_now(ours, POLLIN) & POLLHUP, "we end first: POLLHUP");
	check_equal(get_option(ours, SOL_SOCKET, SO_ERROR), 0, "we end first: no error");
	await_state(peer, TCP_STATE_CLOSE, "they end second: state is CLOSE");
	note("orderly, the other FIN first", peer);
	check_equal((long long)tcp_info(peer).tcpi_bytes_received, 1,
		    "they end second: received has one more");
}

/* Bytes and FIN unread when the connection is over are still there to be read. */
static void orderly_end_with_bytes_unread(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	tcp_pair(&ours, &peer);
	(void)must(shutdown(ours, SHUT_WR), "shutdown");
	send_ten(peer, ours);
	(void)must(shutdown(peer, SHUT_WR), "shutdown");
	await_state(ours, TCP_STATE_CLOSE, "orderly end, bytes unread: state is CLOSE");
	note("orderly, ten bytes unread", ours);
	check_equal((long long)tcp_info(ours).tcpi_bytes_received, 11,
		    "orderly end, bytes unread: received has one more");
	check_equal(ask(ours, SIOCINQ), 10,
		    "orderly end, bytes unread: SIOCINQ is exact");
	check_equal(move_bytes(ours, pipe_fd, 100), 10,
		    "orderly end: splice gives bytes");
	check_equal(move_bytes(ours, pipe_fd, 100), 0, "orderly end: then 0");
}

/* A peer that closes with bytes unread sends RST, not FIN, although it called close(). */
static void close_with_bytes_unread(void)
{
	int ours, peer;

	tcp_pair(&ours, &peer);
	send_ten(ours, peer);
	(void)close(peer);
	await_state(ours, TCP_STATE_CLOSE,
		    "the peer closes unread bytes: state is CLOSE");
	note("close() with bytes unread", ours);
	check_equal((long long)tcp_info(ours).tcpi_bytes_received, 0,
		    "the peer closes unread bytes: received has no one more");
}

static void our_own_reset(void)
{
	int ours, peer;

	tcp_pair(&ours, &peer);
	send_ten(peer, ours);
	(void)must(send_reset(ours), "reset");
	note("our own connect(AF_UNSPEC)", ours);
	check_equal(tcp_info(ours).tcpi_state, TCP_STATE_CLOSE,
		    "own reset: state is CLOSE");
	check_equal((long long)tcp_info(ours).tcpi_bytes_received, 0,
		    "own reset: received is zeroed");
	check_equal(ask(ours, SIOCINQ), 0, "own reset: SIOCINQ is 0");
	check_equal(get_option(ours, SOL_SOCKET, SO_ERROR), ECONNRESET,
		    "own reset: it leaves the error ECONNRESET on our side too");
	check_equal(outcome(recv(ours, (char[1]){0}, 1, 0)), -ENOTCONN,
		    "own reset: read is ENOTCONN");
	check(events_now(ours, POLLIN) & POLLHUP, "own reset: POLLHUP");
}

int main(void)
{
	check_begin();
	reset_in_established();
	reset_with_bytes_unread();
	reset_in_fin_wait2();
	reset_in_close_wait();
	orderly_end_ours_first();
	orderly_end_with_bytes_unread();
	close_with_bytes_unread();
	our_own_reset();
	return check_end();
}
