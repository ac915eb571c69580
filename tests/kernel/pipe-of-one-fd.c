/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One fd is enough for a pipe: either end, opened again O_RDWR through /proc/self/fd,
 * reads and writes, and keeps the content when the original ends are closed. It never
 * sees an end of file or EPIPE, since it is both ends itself. FIONREAD gives the bytes
 * held. tee(2) copies them to another pipe without consuming them.
 *
 * vault (pipes) relies on it, and log (tee, log, then consume).
 * Source: fifo_open() and pipe_ioctl() in fs/pipe.c; pipe(7), fifo(7), tee(2).
 */

#include "check.h"

static int reopen(int fd)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

static void one_fd_holds_the_pipe(void)
{
	char bytes[16] = {0};
	int ends[2], fd;

	(void)must(pipe2(ends, O_CLOEXEC), "pipe2");
	(void)must(write(ends[1], "before", 6), "write");
	fd = reopen(ends[1]);
	check(fd >= 0, "the write end opens O_RDWR");
	(void)close(ends[0]);
	(void)close(ends[1]);
	check_equal(ask(fd, FIONREAD), 6, "the content stays when the ends are closed");
	check_equal(outcome(write(fd, "behind", 6)), 6, "it can be written to");
	check_equal(ask(fd, FIONREAD), 12, "FIONREAD counts both writes");
	check_equal(outcome(read(fd, bytes, sizeof(bytes))), 12, "and read from");
	check(memcmp(bytes, "beforebehind", 12) == 0, "with the bytes in order");
	check_equal(outcome(read(fd, bytes, 1)), -EAGAIN, "empty it is EAGAIN, never 0");
	check_equal(ask(fd, FIONREAD), 0, "FIONREAD is 0 then");
	check(fcntl(fd, F_GETFL) & O_NONBLOCK, "O_NONBLOCK is its own");
}

static void read_end_opens_too(void)
{
	int ends[2], fd;

	(void)must(pipe2(ends, O_CLOEXEC), "pipe2");
	fd = reopen(ends[0]);
	check(fd >= 0, "the read end opens O_RDWR");
	check_equal(fcntl(ends[0], F_GETFL) & O_NONBLOCK, 0,
		    "the end itself stays without O_NONBLOCK");
	check_equal(outcome(reopen(fd) >= 0), 1, "and so does the O_RDWR fd");
}

/* A process that changed its uid has to be dumpable to reach its own /proc/self/fd. */
static void unprivileged_process(void)
{
	pid_t child = must(fork(), "fork");
	int ends[2], status;

	if (child == 0) {
		if (!become_unprivileged())
			_exit(77);
		(void)must(pipe2(ends, O_CLOEXEC), "pipe2");
		_exit(reopen(ends[0]) >= 0 ? 0 : 2);
	}
	status = child_status(child);
	if (status == 77)
		check_skip("an unprivileged process can do so", "no user to become");
	else
		check_equal(status, 0, "an unprivileged process can do so");
}

static void tee_does_not_consume(void)
{
	int from = pipe_of_one_fd(), to = pipe_of_one_fd();
	char bytes[16] = {0};

	(void)must(write(from, "abcdef", 6), "write");
	check_equal(outcome(tee(from, to, 100, SPLICE_F_NONBLOCK)), 6, "tee copies");
	check_equal(ask(from, FIONREAD), 6, "the source keeps its bytes");
	check_equal(outcome(read(to, bytes, sizeof(bytes))), 6, "the copy is read");
	check(memcmp(bytes, "abcdef", 6) == 0, "and equal");
	check_equal(outcome(tee(from, to, 4, SPLICE_F_NONBLOCK)), 4, "tee of a part");
	check_equal(outcome(read(from, bytes, sizeof(bytes))), 6, "the source is read");
	check_equal(outcome(tee(from, to, 4, SPLICE_F_NONBLOCK)), -EAGAIN,
		    "tee from an empty pipe is EAGAIN");
}

int main(void)
{
	check_begin();
	one_fd_holds_the_pipe();
	read_end_opens_too();
	unprivileged_process();
	tee_does_not_consume();
	return check_end();
}
