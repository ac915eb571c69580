/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A pipe has a slot for each page of its size and fills by slots as well as by bytes:
 * segments spliced into it one byte each take a slot each, so a default pipe is full with
 * 16 bytes. The splice then is EAGAIN, the same as for "no data". write(2), on the other
 * hand, packs bytes: any 65,536 bytes fit an empty default pipe, at once.
 *
 * flow relies on it: EAGAIN with bytes in the pipe means "move those first", and a pipe
 * full of crumbs has room again when its bytes are written to another pipe.
 * Source: splice_to_pipe(), pipe_write() in the kernel's fs/; pipe(7).
 */

#include "check.h"

#define SLOTS_DEFAULT 16

static void check_fills(int ours, int peer, const char *kind)
{
	int pipe_fd = pipe_of_one_fd();
	char sentence[128];
	long n_moved = 0, n;

	do {
		(void)must(send(peer, "x", 1, 0), "send");
		(void)wait_for(ours, POLLIN);
		n = move_bytes(ours, pipe_fd, 100);
		n_moved += n > 0 ? n : 0;
	} while (n == 1 && n_moved < 100000);
	(void)snprintf(sentence, sizeof(sentence), "%s: a full pipe is EAGAIN", kind);
	check_equal(n, -EAGAIN, sentence);
	(void)snprintf(sentence, sizeof(sentence), "%s: 16 bytes fill it", kind);
	check_equal(n_moved, SLOTS_DEFAULT, sentence);
	(void)snprintf(sentence, sizeof(sentence), "%s: FIONREAD agrees", kind);
	check_equal(ask(pipe_fd, FIONREAD), SLOTS_DEFAULT, sentence);
	(void)snprintf(sentence, sizeof(sentence), "%s: the last byte waits outside",
		       kind);
	check_equal(ask(ours, SIOCINQ), 1, sentence);
	(void)snprintf(sentence, sizeof(sentence), "%s: with a slot free it enters",
		       kind);
	(void)must(read(pipe_fd, (char[1]){0}, 1), "read");
	check_equal(move_bytes(ours, pipe_fd, 100), 1, sentence);
}

static void segments_take_slots(void)
{
	int ours, peer;

	tcp_pair(&ours, &peer);
	set_option(peer, IPPROTO_TCP, TCP_NODELAY, 1);
	check_fills(ours, peer, "TCP");
	unix_pair(SOCK_STREAM, &ours, &peer);
	check_fills(ours, peer, "AF_UNIX");
}

/* Bytes already waiting together still enter by segments, not by pages. */
static void waiting_crumbs(void)
{
	int ours, peer, pipe_fd = pipe_of_one_fd();

	unix_pair(SOCK_STREAM, &ours, &peer);
	for (int i = 0; i < 100; i++)
		(void)must(send(peer, "x", 1, 0), "send");
	check_equal(move_bytes(ours, pipe_fd, 100), SLOTS_DEFAULT,
		    "100 waiting crumbs: one splice takes as many as there are slots");
}

static void write_packs(size_t n_bytes, const char *sentence)
{
	static char bytes[SLOTS_DEFAULT * 4096];
	int pipe_fd = pipe_of_one_fd();

	check_equal(outcome(write(pipe_fd, bytes, n_bytes)), (long)n_bytes, sentence);
}

/* A copy of a pipe's crumbs, written to another pipe, takes the slots of its bytes. */
static void repack(void)
{
	int from = pipe_of_one_fd(), crumbs = pipe_of_one_fd();
	int copy = pipe_of_one_fd(), packed = pipe_of_one_fd();
	char bytes[64] = {0};
	long n = 0;

	for (int i = 0; i < SLOTS_DEFAULT; i++) {
		(void)must(write(from, "x", 1), "write");
		n += move_bytes(from, crumbs, 1);
	}
	check_equal(n, SLOTS_DEFAULT, "repack: crumbs fill the slots");
	(void)must(write(from, "y", 1), "write");
	check_equal(move_bytes(from, crumbs, 1), -EAGAIN, "repack: the pipe is full");
	check_equal(outcome(tee(crumbs, copy, 65536, SPLICE_F_NONBLOCK)), SLOTS_DEFAULT,
		    "repack: tee copies all crumbs");
	check_equal(outcome(read(copy, bytes, sizeof(bytes))), SLOTS_DEFAULT,
		    "repack: the copy is read");
	check_equal(outcome(write(packed, bytes, SLOTS_DEFAULT)), SLOTS_DEFAULT,
		    "repack: and written to another pipe");
	n = 0;
	while (move_bytes(from, packed, 1) == 1) {
		n++;
		(void)must(write(from, "y", 1), "write");
	}
	check_equal(n, SLOTS_DEFAULT - 1, "repack: it took one slot there");
	check_equal(ask(crumbs, FIONREAD), SLOTS_DEFAULT, "repack: the crumbs are whole");
}

static void size_is_known(void)
{
	int fd = pipe_of_one_fd();

	check_equal(sysconf(_SC_PAGESIZE), 4096, "a page is 4096 bytes");
	check_equal(fcntl(fd, F_GETPIPE_SZ), 65536, "a pipe is 65536 bytes by default");
}

int main(void)
{
	check_begin();
	size_is_known();
	segments_take_slots();
	waiting_crumbs();
	write_packs(1, "write packs 1 byte");
	write_packs(4097, "write packs 4097 bytes");
	write_packs(65535, "write packs 65535 bytes");
	write_packs(65536, "write packs 65536 bytes");
	repack();
	return check_end();
}
