/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * splice(2) from a TCP socket stops before an urgent byte and says EAGAIN from then on,
 * even with SO_OOBINLINE and with bytes waiting behind it. SIOCATMARK is 1 there. With
 * SO_OOBINLINE a recv() of one byte takes the urgent byte as part of the stream, and
 * splice goes on. A peek sees the byte before it is consumed.
 *
 * flow relies on it: EAGAIN with bytes unread (SIOCINQ) is not "no data", and neither
 * is 0 the end of the stream.
 * Source: tcp_read_sock(), tcp_recv_skb() in net/ipv4/tcp.c; tcp(7), SO_OOBINLINE in
 * socket(7).
 */

#include "check.h"
#include "urgent-pointer.h"

static void urgent_pair(bool inline_urgent, int *ret_ours, int *ret_peer)
{
	tcp_pair(ret_ours, ret_peer);
	set_option(*ret_ours, SOL_SOCKET, SO_OOBINLINE, inline_urgent);
	(void)must(send(*ret_peer, "before", 6, 0), "send");
	(void)must(send(*ret_peer, "!", 1, MSG_OOB), "send urgent");
	(void)must(send(*ret_peer, "behind", 6, 0), "send");
	require(eventually(tcp_info(*ret_ours).tcpi_bytes_received == 13),
		"the bytes arrived");
}

static long long consumed(int fd)
{
	return (long long)tcp_info(fd).tcpi_bytes_received - ask(fd, SIOCINQ);
}

static long long peek(int fd)
{
	char byte;

	return outcome(recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT));
}

static void inline_urgent_byte(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();
	char bytes[16] = {0};

	urgent_pair(true, &ours, &peer);
	check_equal(ask(ours, SIOCINQ), 13, "inline: SIOCINQ counts past the mark");
	check_equal(move_bytes(ours, pipe_fd, 100), 6,
		    "inline: splice stops at the mark");
	check_equal(move_bytes(ours, pipe_fd, 100), -EAGAIN, "inline: then EAGAIN");
	check_equal(move_bytes(ours, pipe_fd, 100), -EAGAIN, "inline: and EAGAIN again");
	check(events_now(ours, POLLIN) & POLLIN, "inline: though POLLIN is reported");
	check_equal(ask(ours, SIOCATMARK), 1, "inline: SIOCATMARK is 1");
	check_equal(ask(ours, SIOCINQ), 7, "inline: SIOCINQ says what waits");
	check_equal(consumed(ours), 6, "inline: the audit is exact at the mark");

	check_equal(outcome(recv(ours, bytes, 1, MSG_PEEK)), 1, "inline: peek gives 1");
	check_equal(bytes[0], '!', "inline: it is the urgent byte");
	check_equal(ask(ours, SIOCATMARK), 1, "inline: a peek leaves the mark");
	check_equal(outcome(recv(ours, bytes, 1, 0)), 1, "inline: recv takes one byte");
	check_equal(bytes[0], '!', "inline: it is the urgent byte");
	check_equal(ask(ours, SIOCATMARK), 0, "inline: the mark is passed");
	check_equal(consumed(ours), 7, "inline: the audit counts the urgent byte");
	check_equal(move_bytes(ours, pipe_fd, 100), 6, "inline: splice goes on");
	check_equal(outcome(read(pipe_fd, bytes, sizeof(bytes))), 12, "twelve spliced");
	check(memcmp(bytes, "beforebehind", 12) == 0, "inline: nothing lost or repeated");
}

/* What a read larger than one byte does at the mark and before it. */
static void inline_recv_around_the_mark(void)
{
	int ours, peer;
	char bytes[16] = {0};

	urgent_pair(true, &ours, &peer);
	check_equal(outcome(recv(ours, bytes, sizeof(bytes), 0)), 6,
		    "inline: recv before the mark stops at it");
	check_equal(outcome(recv(ours, bytes, sizeof(bytes), 0)), 7,
		    "inline: recv at the mark goes through it");
	check(memcmp(bytes, "!behind", 7) == 0, "inline: urgent byte in its place");
}

static void urgent_byte_first(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	tcp_pair(&ours, &peer);
	set_option(ours, SOL_SOCKET, SO_OOBINLINE, 1);
	(void)must(send(peer, "!", 1, MSG_OOB), "send urgent");
	check_equal(wait_for(ours, POLLIN | POLLPRI) & (POLLIN | POLLPRI),
		    POLLIN | POLLPRI, "alone: a lone urgent byte is POLLIN and POLLPRI");
	check_equal(move_bytes(ours, pipe_fd, 100), -EAGAIN, "alone: splice is EAGAIN");
	check_equal(ask(ours, SIOCATMARK), 1, "alone: SIOCATMARK is 1");
	check_equal(ask(ours, SIOCINQ), 1, "alone: SIOCINQ is 1");
	check_equal(outcome(recv(ours, (char[1]){0}, 1, 0)), 1, "alone: recv takes it");
	check_equal(move_bytes(ours, pipe_fd, 100), -EAGAIN, "alone: then nothing waits");
	check_equal(ask(ours, SIOCATMARK), 0, "alone: and SIOCATMARK is 0");
}

/*
 * The trap: once the FIN is there, splice at the mark says 0 and not EAGAIN, although
 * the urgent byte and those behind it wait. Only SIOCINQ 0 makes a 0 the end. A recv that
 * peeks tells the one from the other.
 */
static void urgent_byte_and_fin(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	urgent_pair(true, &ours, &peer);
	(void)must(shutdown(peer, SHUT_WR), "shutdown");
	check_equal(wait_for(ours, POLLRDHUP), POLLRDHUP, "fin: the FIN arrives");
	check_equal(move_bytes(ours, pipe_fd, 100), 6, "fin: splice stops at the mark");
	check_equal(move_bytes(ours, pipe_fd, 100), 0,
		    "fin: then it gives 0, not EAGAIN");
	check_equal(ask(ours, SIOCINQ), 7, "fin: SIOCINQ tells that it is not the end");
	check_equal(ask(ours, SIOCATMARK), 1, "fin: SIOCATMARK is 1");
	check_equal(peek(ours), 1, "fin: and so does a recv that peeks");
	check_equal(outcome(recv(ours, (char[1]){0}, 1, 0)), 1,
		    "fin: recv takes the byte");
	check_equal(move_bytes(ours, pipe_fd, 100), 6, "fin: splice goes on");
	check_equal(move_bytes(ours, pipe_fd, 100), 0, "fin: and gives 0 at the end");
	check_equal(ask(ours, SIOCINQ), 0, "fin: with SIOCINQ 0");
	check_equal(ask(ours, SIOCATMARK), 0, "fin: and SIOCATMARK 0");
	check_equal(peek(ours), 0, "fin: and to a recv that peeks");
}

/*
 * The other trap: a peer can make the mark one that no byte is at, such as the place
 * behind its FIN. There splice tells the end, and SIOCATMARK is 1 for ever.
 */
static void mark_behind_the_fin(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	tcp_pair(&ours, &peer);
	set_option(ours, SOL_SOCKET, SO_OOBINLINE, 1);
	if (urgent_point_at(peer, 2) < 0) {
		check_skip("a mark behind the FIN", strerror(errno));
		return;
	}
	(void)must(shutdown(peer, SHUT_WR), "shutdown");
	check_equal(wait_for(ours, POLLRDHUP), POLLRDHUP, "behind: the FIN arrives");
	check_equal(ask(ours, SIOCATMARK), 0, "behind: SIOCATMARK is 0 before it");
	check_equal(move_bytes(ours, pipe_fd, 100), 0, "behind: splice gives 0");
	check_equal(ask(ours, SIOCATMARK), 1, "behind: SIOCATMARK is 1 then");
	check_equal(peek(ours), 0, "behind: a recv that peeks says that it is the end");
	check_equal(move_bytes(ours, pipe_fd, 100), 0, "behind: splice gives 0 again");
	check_equal(ask(ours, SIOCATMARK), 1, "behind: and SIOCATMARK is 1 again");
}

/* After an RST it gives the error, then 0, and the bytes can still be had. */
static void urgent_byte_and_reset(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	urgent_pair(true, &ours, &peer);
	(void)must(send_reset(peer), "reset");
	check(wait_for(ours, 0) & POLLERR, "rst: the RST arrives");
	check_equal(move_bytes(ours, pipe_fd, 100), 6, "rst: splice stops at the mark");
	check_equal(move_bytes(ours, pipe_fd, 100), -ECONNRESET, "rst: then the error");
	check_equal(move_bytes(ours, pipe_fd, 100), 0, "rst: then 0");
	check_equal(ask(ours, SIOCINQ), 7, "rst: SIOCINQ says that bytes wait");
	check_equal(ask(ours, SIOCATMARK), 1, "rst: SIOCATMARK is 1");
	check_equal(outcome(recv(ours, (char[1]){0}, 1, 0)), 1,
		    "rst: recv takes the byte");
	check_equal(move_bytes(ours, pipe_fd, 100), 6, "rst: splice goes on");
}

/* A second urgent byte moves the mark: the first is an ordinary byte then. */
static void two_urgent_bytes(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	tcp_pair(&ours, &peer);
	set_option(ours, SOL_SOCKET, SO_OOBINLINE, 1);
	(void)must(send(peer, "1", 1, MSG_OOB), "send urgent");
	(void)must(send(peer, "between", 7, 0), "send");
	(void)must(send(peer, "2", 1, MSG_OOB), "send urgent");
	check(eventually(ask(ours, SIOCINQ) == 9), "two: all arrive");
	check_equal(move_bytes(ours, pipe_fd, 100), 8,
		    "two: splice stops at the last only");
	check_equal(ask(ours, SIOCATMARK), 1, "two: SIOCATMARK is 1");
	check_equal(outcome(recv(ours, (char[1]){0}, 1, 0)), 1,
		    "two: recv takes the last");
}

/* Why SO_OOBINLINE: without it the byte leaves the stream and the counts. */
static void urgent_byte_not_inline(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();
	char bytes[16] = {0};

	urgent_pair(false, &ours, &peer);
	check_equal(ask(ours, SIOCINQ), 6, "not inline: SIOCINQ stops at the mark");
	check_equal(move_bytes(ours, pipe_fd, 100), 6, "not inline: splice stops there");
	check_equal(move_bytes(ours, pipe_fd, 100), -EAGAIN, "not inline: then EAGAIN");
	check_equal(ask(ours, SIOCATMARK), 1, "not inline: SIOCATMARK is 1");
	check_equal(consumed(ours), 13, "not inline: the audit is wrong at the mark");
	check_equal(outcome(recv(ours, bytes, 1, 0)), 1,
		    "not inline: recv takes one byte");
	check_equal(bytes[0], 'b',
		    "not inline: it is the one behind, the urgent is lost");
	check_equal(move_bytes(ours, pipe_fd, 100), 5, "not inline: splice goes on");
}

int main(void)
{
	check_begin();
	inline_urgent_byte();
	inline_recv_around_the_mark();
	urgent_byte_first();
	urgent_byte_and_fin();
	mark_behind_the_fin();
	urgent_byte_and_reset();
	two_urgent_bytes();
	urgent_byte_not_inline();
	return check_end();
}
