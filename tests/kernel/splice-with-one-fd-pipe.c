/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * splice(2) takes the O_RDWR fd of a pipe on either side, from and to TCP and AF_UNIX
 * stream sockets. With SPLICE_F_NONBLOCK it never waits: a source without data, a full
 * pipe, an empty pipe and a full sink are all EAGAIN. The end of the source is 0, but
 * EAGAIN too as long as the pipe is full.
 *
 * flow relies on it.
 * Source: do_splice() in fs/splice.c; splice(2).
 */

#include "check.h"

struct kind {
	const char *name;
	void (*make)(int *ret_ours, int *ret_peer);
};

static void make_unix(int *ret_ours, int *ret_peer)
{
	unix_pair(SOCK_STREAM, ret_ours, ret_peer);
}

static const struct kind kinds[] = {{"TCP", tcp_pair}, {"AF_UNIX", make_unix}};

#define ADDED_MAX 64 /* splices to a sink that is full to write() */

#define N_KINDS (sizeof(kinds) / sizeof(*kinds))

static const char *says(const struct kind *kind, const char *what)
{
	static char sentence[128];

	(void)snprintf(sentence, sizeof(sentence), "%s: %s", kind->name, what);
	return sentence;
}

static void check_in(const struct kind *kind)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	kind->make(&ours, &peer);
	check_equal(move_bytes(ours, pipe_fd, 100), -EAGAIN,
		    says(kind, "a source without data is EAGAIN"));
	(void)must(send(peer, "abcdef", 6, 0), "send");
	(void)wait_for(ours, POLLIN);
	check_equal(move_bytes(ours, pipe_fd, 4), 4, says(kind, "splices into the pipe"));
	check_equal(move_bytes(ours, pipe_fd, 100), 2, says(kind, "and the rest"));
	check_equal(ask(pipe_fd, FIONREAD), 6, says(kind, "the pipe holds all"));
	(void)must(shutdown(peer, SHUT_WR), "shutdown");
	(void)wait_for(ours, POLLRDHUP);
	check_equal(move_bytes(ours, pipe_fd, 100), 0, says(kind, "the end is 0"));
	check_equal(move_bytes(ours, pipe_fd, 100), 0, says(kind, "and 0 again"));
}

static void check_in_full(const struct kind *kind)
{
	static const char bytes[65536];
	int ours, peer, pipe_fd = pipe_of_one_fd();

	kind->make(&ours, &peer);
	(void)must(write(pipe_fd, bytes, sizeof(bytes)), "write");
	(void)must(send(peer, "abcdef", 6, 0), "send");
	(void)wait_for(ours, POLLIN);
	check_equal(move_bytes(ours, pipe_fd, 100), -EAGAIN,
		    says(kind, "a full pipe is EAGAIN"));
	check_equal(ask(ours, SIOCINQ), 6, says(kind, "and takes nothing"));
	(void)must(recv(ours, (char[6]){0}, 6, 0), "recv");
	(void)must(shutdown(peer, SHUT_WR), "shutdown");
	(void)wait_for(ours, POLLRDHUP);
	check_equal(move_bytes(ours, pipe_fd, 100), -EAGAIN,
		    says(kind, "even the end of the source is EAGAIN to a full pipe"));
	(void)must(read(pipe_fd, (char[4096]){0}, 4096), "read");
	check_equal(move_bytes(ours, pipe_fd, 100), 0,
		    says(kind, "and 0 once the pipe has room"));
}

static void check_out(const struct kind *kind)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();
	char bytes[16] = {0};

	kind->make(&ours, &peer);
	check_equal(move_bytes(pipe_fd, ours, 100), -EAGAIN,
		    says(kind, "an empty pipe is EAGAIN"));
	(void)must(write(pipe_fd, "abcdef", 6), "write");
	check_equal(move_bytes(pipe_fd, ours, 4), 4,
		    says(kind, "splices out of the pipe"));
	check_equal(ask(pipe_fd, FIONREAD), 2, says(kind, "the pipe keeps the rest"));
	check_equal(move_bytes(pipe_fd, ours, 100), 2, says(kind, "and gives it"));
	check(eventually(ask(peer, SIOCINQ) == 6), says(kind, "the peer has it"));
	check_equal(outcome(recv(peer, bytes, sizeof(bytes), 0)), 6,
		    says(kind, "the peer reads it"));
	check(memcmp(bytes, "abcdef", 6) == 0, says(kind, "in order"));
}

static void check_out_full(const struct kind *kind)
{
	static const char bytes[65536];
	int ours, peer, pipe_fd = pipe_of_one_fd(), n = 0;
	long r;

	kind->make(&ours, &peer);
	while (outcome(send(ours, bytes, sizeof(bytes), 0)) > 0)
		continue;
	/* To write() it is full, but before 6.5 splice adds to the last buffer of an
	 * AF_UNIX socket as long as that has a free fragment (unix_stream_sendpage()) */
	do
		(void)must(write(pipe_fd, "abcdef", 6), "write");
	while ((r = move_bytes(pipe_fd, ours, 100)) > 0 && ++n < ADDED_MAX);
	check_equal(r, -EAGAIN, says(kind, "a full sink is EAGAIN"));
	check_equal(ask(pipe_fd, FIONREAD), 6, says(kind, "and the pipe keeps all"));
}

/* O_NONBLOCK of the fds does the same where a flag is forgotten. */
static void without_the_flag(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	tcp_pair(&ours, &peer);
	check_equal(outcome(splice(ours, NULL, pipe_fd, NULL, 100, 0)), -EAGAIN,
		    "without the flag: O_NONBLOCK does for an empty source");
	check_equal(outcome(splice(pipe_fd, NULL, ours, NULL, 100, 0)), -EAGAIN,
		    "without the flag: and for an empty pipe");
}

int main(void)
{
	check_begin();
	for (size_t i = 0; i < N_KINDS; i++) {
		check_in(&kinds[i]);
		check_in_full(&kinds[i]);
		check_out(&kinds[i]);
		check_out_full(&kinds[i]);
	}
	without_the_flag();
	return check_end();
}
