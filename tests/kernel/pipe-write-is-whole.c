/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A write() or read() that a pipe can satisfy at once is done wholly or not at all even
 * if the process is killed: with 64 KiB written to an empty default pipe, and read from
 * it, by a process that dies at any moment, the pipe holds either 0 or 64 KiB.
 *
 * flow relies on it when it repacks a pipe (beyond PIPE_BUF no manual promises it).
 * Source: pipe_write(), pipe_read() in fs/pipe.c: they hold the pipe's mutex throughout
 * and look at signals only where they would wait.
 */

#include "check.h"

#define N_KILLS 300
#define N_BYTES 65536

static char bytes[N_BYTES];

static void write_and_read_forever(int pipe_fd)
{
	for (;;) {
		if (ask(pipe_fd, FIONREAD) == 0)
			(void)must(write(pipe_fd, bytes, N_BYTES), "write");
		(void)must(read(pipe_fd, bytes, N_BYTES), "read");
	}
}

int main(void)
{
	int pipe_fd = pipe_of_one_fd(), n_full = 0, n_empty = 0;

	check_begin();
	for (int i = 0; i < N_KILLS; i++) {
		const struct timespec life = {.tv_nsec = 1000 * 1000 + i * 7919};
		pid_t child = must(fork(), "fork");
		int held;

		if (child == 0)
			write_and_read_forever(pipe_fd);
		(void)nanosleep(&life, NULL);
		(void)must(kill(child, SIGKILL), "kill");
		(void)child_status(child);
		held = ask(pipe_fd, FIONREAD);
		n_full += held == N_BYTES;
		n_empty += held == 0;
	}
	printf("# %d times full, %d times empty\n", n_full, n_empty);
	check_equal(n_full + n_empty, N_KILLS, "after each kill it holds all or nothing");
	return check_end();
}
