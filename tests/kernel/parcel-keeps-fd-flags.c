/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * O_NONBLOCK belongs to the open file: it stays set on an fd that went through a parcel,
 * whoever takes it out. FD_CLOEXEC belongs to the fd: the sender's is not passed on, the
 * receiver gets it by MSG_CMSG_CLOEXEC, for peeks too, and only then. Socket options stay
 * with the socket.
 *
 * vault (adopt) relies on it.
 * Source: scm_detach_fds() in net/core/scm.c; open(2), recvmsg(2).
 */

#include "check.h"

static int in, out;

static void check_flags(int fd, bool nonblocking, bool cloexec, const char *sentence)
{
	bool is_nonblocking = must(fcntl(fd, F_GETFL), "F_GETFL") & O_NONBLOCK;
	bool is_cloexec = must(fcntl(fd, F_GETFD), "F_GETFD") & FD_CLOEXEC;

	check(is_nonblocking == nonblocking && is_cloexec == cloexec, sentence);
}

static void through_parcel(void)
{
	struct message message = {0};
	int ours, peer;

	unix_pair(SOCK_STREAM, &ours, &peer);
	set_option(ours, SOL_SOCKET, SO_OOBINLINE, 1);
	require(message_put(in, 1, &ours, 1) == 24, "put");
	(void)close(ours);

	check_equal(message_get(out, MSG_PEEK, &message), 24, "a peek");
	check_flags(message.fds[0], true, false, "is O_NONBLOCK, not FD_CLOEXEC");
	message_close_fds(&message);
	check_equal(message_get(out, MSG_PEEK | MSG_CMSG_CLOEXEC, &message), 24,
		    "a peek with MSG_CMSG_CLOEXEC");
	check_flags(message.fds[0], true, true, "is O_NONBLOCK and FD_CLOEXEC");
	check_equal(get_option(message.fds[0], SOL_SOCKET, SO_OOBINLINE), 1,
		    "and has its socket options");

	(void)must(fcntl(message.fds[0], F_SETFL, 0), "F_SETFL");
	message_close_fds(&message);
	check_equal(message_get(out, MSG_CMSG_CLOEXEC, &message), 24, "a receive");
	check_flags(message.fds[0], false, true,
		    "finds O_NONBLOCK cleared by another holder");
	message_close_fds(&message);
}

/* exec keeps O_NONBLOCK, and keeps open what is not FD_CLOEXEC: the service manager's. */
static void through_exec(void)
{
	int pipe_fd = pipe_of_one_fd();
	char command[128];
	pid_t child;

	(void)must(fcntl(pipe_fd, F_SETFD, 0), "F_SETFD");
	/* the octal flags of /proc: 04000 is O_NONBLOCK */
	(void)snprintf(command, sizeof(command),
		       "grep -q '^flags:.*4[0-7][0-7][0-7]$' /proc/self/fdinfo/%d",
		       pipe_fd);
	child = must(fork(), "fork");
	if (child == 0) {
		(void)execl("/bin/sh", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	check_equal(child_status(child), 0, "O_NONBLOCK outlives exec");
}

int main(void)
{
	check_begin();
	unix_pair(SOCK_SEQPACKET, &in, &out);
	through_parcel();
	through_exec();
	return check_end();
}
