/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Urgent bytes of AF_UNIX stream sockets: with SO_OOBINLINE the byte stays in its place;
 * a splice stops before it once, with SIOCATMARK 1, and the next one goes through it, so
 * unlike TCP there is nothing to do. Without the option splice drops the byte. Accepted
 * sockets do not inherit the option from their listener, but it works when it is set
 * after the byte has arrived.
 *
 * flow relies on it: SO_OOBINLINE is set on each accepted AF_UNIX socket.
 * Source: manage_oob(), unix_stream_read_generic() in net/unix/af_unix.c.
 */

#include "check.h"

static bool has_urgent_bytes(void)
{
	int ours, peer;

	unix_pair(SOCK_STREAM, &ours, &peer);
	return outcome(send(peer, "!", 1, MSG_OOB)) == 1;
}

static void urgent_pair(bool inline_urgent, int *ret_ours, int *ret_peer)
{
	unix_pair(SOCK_STREAM, ret_ours, ret_peer);
	(void)must(send(*ret_peer, "before", 6, 0), "send");
	(void)must(send(*ret_peer, "!", 1, MSG_OOB), "send urgent");
	(void)must(send(*ret_peer, "behind", 6, 0), "send");
	set_option(*ret_ours, SOL_SOCKET, SO_OOBINLINE, inline_urgent);
}

static void check_content(int pipe_fd, const char *expected, const char *sentence)
{
	char bytes[32] = {0};
	long n = outcome(read(pipe_fd, bytes, sizeof(bytes) - 1));

	check(n == (long)strlen(expected) && strcmp(bytes, expected) == 0, sentence);
}

static void inline_urgent_byte(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	urgent_pair(true, &ours, &peer);
	check_equal(ask(ours, SIOCINQ), 13, "inline: SIOCINQ counts past the mark");
	check_equal(move_bytes(ours, pipe_fd, 100), 6,
		    "inline: splice stops at the mark");
	check_equal(ask(ours, SIOCATMARK), 1, "inline: SIOCATMARK is 1");
	check_equal(ask(ours, SIOCINQ), 7, "inline: SIOCINQ says what waits");
	check_equal(move_bytes(ours, pipe_fd, 100), 7,
		    "inline: the next goes through it");
	check_equal(ask(ours, SIOCINQ), 0, "inline: SIOCINQ is 0");
	check_content(pipe_fd, "before!behind", "inline: nothing lost or repeated");
}

static void inline_urgent_byte_and_end(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	unix_pair(SOCK_STREAM, &ours, &peer);
	set_option(ours, SOL_SOCKET, SO_OOBINLINE, 1);
	(void)must(send(peer, "before", 6, 0), "send");
	(void)must(send(peer, "!", 1, MSG_OOB), "send urgent");
	(void)close(peer);
	check_equal(move_bytes(ours, pipe_fd, 100), 6, "end: splice stops at the mark");
	check_equal(move_bytes(ours, pipe_fd, 100), 1, "end: the next takes the byte");
	check_equal(move_bytes(ours, pipe_fd, 100), 0, "end: and gives 0 at the end");
}

static void inline_urgent_byte_alone(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	unix_pair(SOCK_STREAM, &ours, &peer);
	set_option(ours, SOL_SOCKET, SO_OOBINLINE, 1);
	(void)must(send(peer, "1", 1, MSG_OOB), "send urgent");
	(void)must(send(peer, "2", 1, MSG_OOB), "send urgent");
	check_equal(ask(ours, SIOCINQ), 2, "two alone: SIOCINQ counts both");
	check_equal(move_bytes(ours, pipe_fd, 1), 1, "two alone: splice takes the first");
	check_equal(move_bytes(ours, pipe_fd, 1), 1, "two alone: and the second");
	check_equal(move_bytes(ours, pipe_fd, 1), -EAGAIN, "two alone: then EAGAIN");
	check_content(pipe_fd, "12", "two alone: nothing lost or repeated");
}

/* Why the option is set. */
static void urgent_byte_not_inline(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	urgent_pair(false, &ours, &peer);
	check_equal(move_bytes(ours, pipe_fd, 100), 6, "not inline: splice stops there");
	check_equal(move_bytes(ours, pipe_fd, 100), 6, "not inline: the next goes on");
	check_content(pipe_fd, "beforebehind", "not inline: the urgent byte is lost");
}

static void option_is_not_inherited(void)
{
	/* an abstract address: the kernel picks the name and nothing stays behind */
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t size = sizeof(sa_family_t);
	int listener = must(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
	int client = must(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
	int accepted;

	set_option(listener, SOL_SOCKET, SO_OOBINLINE, 1);
	(void)must(bind(listener, (const struct sockaddr *)&address, size), "bind");
	(void)must(listen(listener, 1), "listen");
	size = sizeof(address);
	(void)must(getsockname(listener, (struct sockaddr *)&address, &size),
		   "getsockname");
	(void)must(connect(client, (const struct sockaddr *)&address, size), "connect");
	accepted = must(accept4(listener, NULL, NULL, SOCK_CLOEXEC), "accept4");
	check_equal(get_option(accepted, SOL_SOCKET, SO_OOBINLINE), 0,
		    "an accepted socket does not inherit SO_OOBINLINE");
}

int main(void)
{
	check_begin();
	if (has_urgent_bytes()) {
		inline_urgent_byte();
		inline_urgent_byte_and_end();
		inline_urgent_byte_alone();
		urgent_byte_not_inline();
	} else {
		check_skip("urgent bytes", "this kernel has none on AF_UNIX");
	}
	option_is_not_inherited();
	return check_end();
}
