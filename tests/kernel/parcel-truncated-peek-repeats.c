/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A peek that has no room for all fds of a message, in the process's fd table or in the
 * control buffer, says MSG_CTRUNC and gives those that fit. The message stays whole: a
 * later peek, after SO_PEEK_OFF is set back, gives all of them.
 *
 * vault (adopt) relies on it: running out of fds costs a second look, not a connection.
 * Source: scm_detach_fds() in net/core/scm.c; MSG_CTRUNC in recvmsg(2).
 */

#include <sys/resource.h>

#include "check.h"

static int in, out;

static struct rlimit set_fd_limit(int n)
{
	struct rlimit before, limit;

	(void)must(getrlimit(RLIMIT_NOFILE, &before), "getrlimit");
	limit = before;
	limit.rlim_cur = (rlim_t)n;
	(void)must(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
	return before;
}

static void fd_table_full(void)
{
	struct message message = {0};
	struct rlimit before;
	int lowest_free = must(dup(STDIN_FILENO), "dup");

	/* fds are given out lowest first: room for two from here */
	(void)close(lowest_free);
	before = set_fd_limit(lowest_free + 2);
	check_equal(message_peek(out, &message), 24, "few slots: the peek succeeds");
	check(message.flags & MSG_CTRUNC, "few slots: with MSG_CTRUNC");
	check_equal((long long)message.n_fds, 2, "few slots: and the two that fit");
	check_equal((long long)message.label[0], 1, "few slots: and the label");
	message_close_fds(&message);

	(void)set_fd_limit(lowest_free);
	set_option(out, SOL_SOCKET, SO_PEEK_OFF, 0);
	check_equal(message_peek(out, &message), 24, "no slot: the peek succeeds");
	check(message.flags & MSG_CTRUNC, "no slot: with MSG_CTRUNC");
	check_equal((long long)message.n_fds, 0, "no slot: and no fd");
	(void)must(setrlimit(RLIMIT_NOFILE, &before), "setrlimit");
}

static void check_whole(void)
{
	struct message message = {0};

	check_equal(message_peek(out, &message), -EAGAIN, "the peek has moved on");
	set_option(out, SOL_SOCKET, SO_PEEK_OFF, 0);
	check_equal(message_peek(out, &message), 24, "set back: the peek succeeds");
	check_equal(message.flags & MSG_CTRUNC, 0, "set back: without MSG_CTRUNC");
	check_equal((long long)message.n_fds, 4, "set back: with all four fds");
	message_close_fds(&message);
	set_option(out, SOL_SOCKET, SO_PEEK_OFF, 0);
}

static void control_buffer_small(void)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(2 * sizeof(int))];
	} control = {0};
	char label[24];
	struct iovec iovec = {.iov_base = label, .iov_len = sizeof(label)};
	struct msghdr message = {
		.msg_iov = &iovec,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};

	check_equal(outcome(recvmsg(out, &message, MSG_PEEK | MSG_CMSG_CLOEXEC)), 24,
		    "small buffer: the peek succeeds");
	check(message.msg_flags & MSG_CTRUNC, "small buffer: with MSG_CTRUNC");
}

int main(void)
{
	const int fds[] = {STDIN_FILENO, STDIN_FILENO, STDIN_FILENO, STDIN_FILENO};

	check_begin();
	unix_pair(SOCK_SEQPACKET, &in, &out);
	set_option(out, SOL_SOCKET, SO_PEEK_OFF, 0);
	require(message_put(in, 1, fds, 4) == 24, "put");
	fd_table_full();
	check_whole();
	control_buffer_small();
	check_whole();
	return check_end();
}
