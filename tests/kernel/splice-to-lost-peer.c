/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Splicing from a pipe to a socket whose peer is gone: the first call gives the socket's
 * error (ECONNRESET after an RST, EPIPE after a FIN and an RST), those after it EPIPE.
 * EPIPE raises SIGPIPE, since splice(2) has no MSG_NOSIGNAL; ECONNRESET does not. For
 * AF_UNIX it is EPIPE from the first. The bytes stay in the pipe.
 *
 * main relies on it (SIGPIPE must be ignored), and flow (a failed splice takes nothing).
 * Source: splice_to_socket() in fs/splice.c, sk_stream_error() in net/core/stream.c,
 * unix_stream_sendmsg() in net/unix/af_unix.c.
 */

#include "check.h"

static volatile sig_atomic_t n_sigpipe;

static void count_sigpipe(int number)
{
	(void)number;
	n_sigpipe++;
}

static int pipe_with_six(void)
{
	int fd = pipe_of_one_fd();

	(void)must(write(fd, "abcdef", 6), "write");
	return fd;
}

/* One splice: its result, whether it raised SIGPIPE, and that the pipe kept its bytes. */
static void check_splice(int fd, long expected, bool signals, const char *when)
{
	int pipe_fd = pipe_with_six();
	char sentence[128];

	n_sigpipe = 0;
	(void)snprintf(sentence, sizeof(sentence), "%s: splice gives %s", when,
		       strerrorname_np((int)-expected));
	check_equal(move_bytes(pipe_fd, fd, 100), expected, sentence);
	(void)snprintf(sentence, sizeof(sentence), "%s: SIGPIPE is %sraised", when,
		       signals ? "" : "not ");
	check_equal(n_sigpipe, signals, sentence);
	(void)snprintf(sentence, sizeof(sentence), "%s: the bytes stay in the pipe",
		       when);
	check_equal(ask(pipe_fd, FIONREAD), 6, sentence);
	(void)close(pipe_fd);
}

static void after_reset(void)
{
	int ours, peer;

	tcp_pair(&ours, &peer);
	(void)must(send_reset(peer), "reset");
	(void)wait_for(ours, POLLIN);
	check_splice(ours, -ECONNRESET, false, "after an RST");
	check_splice(ours, -EPIPE, true, "after an RST, the second time");
}

static void after_fin_and_reset(void)
{
	int ours, peer;

	tcp_pair(&ours, &peer);
	(void)must(shutdown(peer, SHUT_WR), "shutdown");
	(void)wait_for(ours, POLLIN);
	(void)must(send_reset(peer), "reset");
	check(wait_for(ours, 0) & POLLERR, "after a FIN comes an RST");
	check_splice(ours, -EPIPE, true, "after FIN and RST");
	check_equal(get_option(ours, SOL_SOCKET, SO_ERROR), 0, "the error is taken");
}

/* A peer that closed has sent a FIN only; the RST answers what is sent to it. */
static void after_close(void)
{
	int ours, peer, pipe_fd = pipe_with_six();

	tcp_pair(&ours, &peer);
	(void)close(peer);
	(void)wait_for(ours, POLLIN);
	check_equal(move_bytes(pipe_fd, ours, 100), 6, "a closed peer: taken once");
	check(wait_for(ours, 0) & POLLERR, "a closed peer: then an RST comes");
	check_splice(ours, -EPIPE, true, "a closed peer");
}

static void after_own_end(void)
{
	int ours, peer;

	tcp_pair(&ours, &peer);
	(void)must(shutdown(ours, SHUT_WR), "shutdown");
	check_splice(ours, -EPIPE, true, "after our own FIN");
	tcp_pair(&ours, &peer);
	(void)must(send_reset(ours), "reset");
	check_splice(ours, -ECONNRESET, false, "after our own RST");
	check_splice(ours, -EPIPE, true, "after our own RST, the second time");
}

static void unix_peer_closed(void)
{
	int ours, peer;

	unix_pair(SOCK_STREAM, &ours, &peer);
	(void)close(peer);
	check_splice(ours, -EPIPE, true, "a closed AF_UNIX peer");
	unix_pair(SOCK_STREAM, &ours, &peer);
	(void)must(send(ours, "unread", 6, 0), "send");
	(void)close(peer);
	check_splice(ours, -EPIPE, true, "an AF_UNIX peer that left bytes unread");
	check_equal(outcome(recv(ours, (char[1]){0}, 1, 0)), -ECONNRESET,
		    "an AF_UNIX peer that left bytes unread: the error is left to a read");
}

/* A splice that fills the socket takes what fits and leaves the rest in the pipe. */
static void partial_splice(void)
{
	static const char bytes[65536];
	int ours, peer, pipe_fd = pipe_of_one_fd();
	long n, n_written = 0, n_moved = 0;

	tcp_pair(&ours, &peer);
	do {
		n = outcome(write(pipe_fd, bytes, sizeof(bytes)));
		n_written += n > 0 ? n : 0;
		n = move_bytes(pipe_fd, ours, sizeof(bytes));
		n_moved += n > 0 ? n : 0;
	} while (n > 0);
	check_equal(n, -EAGAIN, "a full socket is EAGAIN");
	check_equal(n_written - n_moved, ask(pipe_fd, FIONREAD),
		    "what the full socket did not take is in the pipe");
	(void)must(send_reset(peer), "reset");
	check(wait_for(ours, 0) & POLLERR, "an RST with the pipe full");
	check_equal(move_bytes(pipe_fd, ours, 100), -ECONNRESET, "then splice fails");
	check_equal(n_written - n_moved, ask(pipe_fd, FIONREAD), "and takes nothing");
}

int main(void)
{
	const struct sigaction count = {.sa_handler = count_sigpipe};

	check_begin();
	(void)must(sigaction(SIGPIPE, &count, NULL), "sigaction");
	after_reset();
	after_fin_and_reset();
	after_close();
	after_own_end();
	unix_peer_closed();
	partial_splice();
	return check_end();
}
