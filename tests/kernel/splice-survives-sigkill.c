/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A process that moves a stream TCP -> pipe -> TCP with splice(2) can be killed at any
 * moment: with the pipe held by someone else, its successor goes on and no byte of the
 * stream is lost, repeated or out of order.
 *
 * Everything relies on it (invariant 3: bytes live in the kernel).
 * Source: observed; no manual promises it. SIGKILL acts on the way out of a system call,
 * and within one tcp_splice_read() and splice_to_socket() count a byte as taken only
 * once the other side has it.
 */

#include "check.h"

#define N_KILLS 300
#define LIFE_MAX_USEC 8000
/* a prime, so that a loss of whole pages or segments shows as other bytes */
#define PATTERN_SIZE 65521

static unsigned char pattern[2 * PATTERN_SIZE];
static int source, relay_in, relay_out, sink, pipe_fd;
static unsigned long long n_sent, n_received;
static bool is_intact = true;

static void make_pattern(void)
{
	uint32_t x = 2463534242;

	for (size_t i = 0; i < PATTERN_SIZE; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		pattern[i] = pattern[i + PATTERN_SIZE] = (unsigned char)x;
	}
}

/* The child: relays until it is killed. */
static void relay_forever(void)
{
	for (;;) {
		long n_in = move_bytes(relay_in, pipe_fd, 65536);
		long n_out = move_bytes(pipe_fd, relay_out, 65536);
		struct pollfd pollfds[] = {
			{.fd = relay_in, .events = POLLIN},
			{.fd = relay_out, .events = POLLOUT},
		};

		if (n_in > 0 || n_out > 0)
			continue;
		/* the one that can help: a held byte needs the sink, else the source */
		(void)poll(&pollfds[ask(pipe_fd, FIONREAD) > 0], 1, -1);
	}
}

static void feed(void)
{
	const unsigned char *start = pattern + n_sent % PATTERN_SIZE;
	ssize_t n = send(source, start, PATTERN_SIZE, 0);

	if (n > 0)
		n_sent += (unsigned long long)n;
}

static void verify(void)
{
	static unsigned char bytes[PATTERN_SIZE];
	ssize_t n = recv(sink, bytes, sizeof(bytes), 0);

	if (n <= 0)
		return;
	is_intact = is_intact &&
		    memcmp(bytes, pattern + n_received % PATTERN_SIZE, (size_t)n) == 0;
	n_received += (unsigned long long)n;
}

static long long now_usec(void)
{
	struct timespec now;

	(void)must(clock_gettime(CLOCK_MONOTONIC, &now), "clock_gettime");
	return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

/* Plays both peers until the time is up or, without feeding, all has arrived. */
static void play_peers(long long for_usec, bool feeding)
{
	const long long end_usec = now_usec() + for_usec;

	while (now_usec() < end_usec && (feeding || n_received < n_sent)) {
		struct pollfd pollfds[] = {
			{.fd = sink, .events = POLLIN},
			{.fd = feeding ? source : -1, .events = POLLOUT},
		};

		(void)must(poll(pollfds, 2, 1), "poll");
		verify();
		if (feeding)
			feed();
	}
}

static void live_and_die(long long for_usec, bool feeding)
{
	pid_t child = must(fork(), "fork");

	if (child == 0)
		relay_forever();
	play_peers(for_usec, feeding);
	(void)must(kill(child, SIGKILL), "kill");
	(void)child_status(child);
}

int main(void)
{
	int n_held = 0;

	check_begin();
	make_pattern();
	tcp_pair(&relay_in, &source);
	tcp_pair(&relay_out, &sink);
	pipe_fd = pipe_of_one_fd();
	for (int i = 0; i < N_KILLS; i++) {
		live_and_die(1000 + i * 7919 % LIFE_MAX_USEC, true);
		n_held += ask(pipe_fd, FIONREAD) > 0;
	}
	live_and_die(CHECK_PATIENCE_MSEC * 1000, false);
	printf("# %llu MB, %d kills, %d of them with bytes in the pipe\n", n_sent >> 20,
	       N_KILLS, n_held);
	check(n_sent > 1000000, "a stream was relayed by processes killed 300 times");
	check_equal((long long)n_received, (long long)n_sent,
		    "as many bytes as were sent");
	check(is_intact, "all in their place");
	return check_end();
}
