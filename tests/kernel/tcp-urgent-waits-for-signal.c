/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A thread with a signal to take gets EAGAIN from recv(2) at TCP's urgent mark, though
 * the byte is there and MSG_DONTWAIT asks for no wait that a signal could interrupt. A
 * peek says the same. Before the mark the signal makes no difference. The next call takes
 * the byte.
 *
 * flow relies on it: it takes a byte that it has peeked at the mark by a few attempts.
 * Source: "SIGURG pending" in tcp_recvmsg_locked(), net/ipv4/tcp.c.
 *
 * A tracer stops the call at its beginning and sends the signal then.
 */

#include <sys/ptrace.h>

#include "check.h"

/* What came of a call, for the tracer to print: a child's output would be in its way. */
struct call {
	long result;
	char bytes[8];
};

static void receive(int fd, size_t size, int flags, struct call *ret_call)
{
	ret_call->result = outcome(recv(fd, ret_call->bytes, size, flags | MSG_DONTWAIT));
}

/* The traced one: each call of three is met by a signal, the last is not. */
static void receive_all_of_it(int fd, int report)
{
	struct call calls[4] = {0};

	(void)must(ptrace(PTRACE_TRACEME, 0, NULL, NULL), "ptrace");
	(void)raise(SIGSTOP);
	receive(fd, 6, 0, &calls[0]);
	receive(fd, 1, MSG_PEEK, &calls[1]);
	receive(fd, 1, 0, &calls[2]);
	receive(fd, 1, 0, &calls[3]);
	(void)must(write(report, calls, sizeof(calls)), "write");
	_exit(EXIT_SUCCESS);
}

static int next_stop(pid_t child, int signal_number)
{
	int status;

	(void)must(ptrace(PTRACE_SYSCALL, child, NULL, (long)signal_number), "ptrace");
	(void)must(waitpid(child, &status, 0), "waitpid");
	require(WIFSTOPPED(status), "the child is stopped");
	return WSTOPSIG(status);
}

/* A call from its beginning to its end. The signal that it was met by comes to nothing. */
static void trace_call(pid_t child, bool with_signal)
{
	require(next_stop(child, 0) == SIGTRAP, "a call begins");
	if (with_signal)
		(void)must(kill(child, SIGUSR1), "kill");
	require(next_stop(child, 0) == SIGTRAP, "the call ends");
	if (with_signal)
		require(next_stop(child, 0) == SIGUSR1,
			"the signal was there to be taken");
}

int main(void)
{
	int ours, peer, ends[2], status;
	struct call calls[4];
	pid_t child;

	check_begin();
	tcp_pair(&ours, &peer);
	set_option(ours, SOL_SOCKET, SO_OOBINLINE, 1);
	(void)must(send(peer, "before", 6, 0), "send");
	(void)must(send(peer, "!", 1, MSG_OOB), "send urgent");
	require(eventually(tcp_info(ours).tcpi_bytes_received == 7), "the bytes arrived");
	(void)must(pipe2(ends, O_CLOEXEC), "pipe2");

	child = must(fork(), "fork");
	if (child == 0)
		receive_all_of_it(ours, ends[1]);
	(void)must(waitpid(child, &status, 0), "waitpid");
	require(WIFSTOPPED(status), "the child waits to be traced");
	for (int i = 0; i < 4; i++)
		trace_call(child, i < 3);
	(void)must(ptrace(PTRACE_DETACH, child, NULL, NULL), "ptrace");
	(void)must(waitpid(child, &status, 0), "waitpid");
	require(read(ends[0], calls, sizeof(calls)) == sizeof(calls),
		"the child reports");

	check_equal(calls[0].result, 6, "before the mark a signal makes no difference");
	check_equal(calls[1].result, -EAGAIN, "at the mark a peek says EAGAIN");
	check_equal(calls[2].result, -EAGAIN, "and so does a recv");
	check_equal(calls[3].result, 1, "without a signal the byte is there");
	check(calls[3].bytes[0] == '!', "it is the urgent one");
	return check_end();
}
