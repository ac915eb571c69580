/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A connect() goes on without the process that began it, and TCP_INFO tells its adopter
 * how far it came: tcpi_state is SYN_SENT, ESTABLISHED, or CLOSE when it failed. The
 * error is in SO_ERROR once. A failed connect has tcpi_bytes_acked 0, a connection that
 * was established at least 1 (its SYN), also when it is over.
 *
 * relay and vault (adopt) rely on it.
 * Source: tcp_rcv_synsent_state_process() in net/ipv4/tcp_input.c; connect(2).
 */

#include "check.h"

static int in, out; /* the parcel's two ends */

static long begin_connect(int fd, const struct sockaddr_in *address)
{
	return outcome(connect(fd, (const struct sockaddr *)address, sizeof(*address)));
}

/* A child begins, parks the socket and dies; gives what an adopter takes out. */
static int adopt_connect(const struct sockaddr_in *address)
{
	struct message message = {0};
	pid_t child = must(fork(), "fork");

	if (child == 0) {
		int fd = must(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
		long r = begin_connect(fd, address);

		require(message_put(in, 1, &fd, 1) == 24, "put");
		if (r == -EINPROGRESS)
			(void)raise(SIGKILL);
		_exit(EXIT_FAILURE);
	}
	check_equal(child_status(child), 128 + SIGKILL, "connect is EINPROGRESS");
	require(message_get(out, MSG_CMSG_CLOEXEC, &message) == 24, "get");
	return message.fds[0];
}

static void established(void)
{
	struct sockaddr_in address;
	int fd;

	(void)tcp_listen(&address, 1);
	fd = adopt_connect(&address);
	check_equal(wait_for(fd, POLLOUT), POLLOUT, "established: POLLOUT");
	check_equal(tcp_info(fd).tcpi_state, TCP_STATE_ESTABLISHED,
		    "established: state is ESTABLISHED");
	check_equal((long long)tcp_info(fd).tcpi_bytes_acked, 1,
		    "established: acked is 1, the SYN");
	check_equal(get_option(fd, SOL_SOCKET, SO_ERROR), 0,
		    "established: SO_ERROR is 0");
}

/* A full accept queue drops SYNs, so a connect beyond it stays under way. */
static void under_way(void)
{
	struct sockaddr_in address;
	int listener = tcp_listen(&address, 0), fd;

	(void)tcp_connect(&address);
	fd = adopt_connect(&address);
	check_equal(tcp_info(fd).tcpi_state, TCP_STATE_SYN_SENT,
		    "under way: state is SYN_SENT");
	check_equal(events_now(fd, POLLIN | POLLOUT), 0, "under way: no event");
	check_equal(get_option(fd, SOL_SOCKET, SO_ERROR), 0, "under way: SO_ERROR is 0");
	check_equal(begin_connect(fd, &address), -EALREADY,
		    "under way: connect again is EALREADY");
	check_equal(outcome(send(fd, "x", 1, MSG_NOSIGNAL)), -EAGAIN,
		    "under way: send is EAGAIN");
	check_equal(move_bytes(fd, pipe_of_one_fd(), 100), -EAGAIN,
		    "under way: splice from it is EAGAIN");
	(void)close(listener);
}

static void failed(void)
{
	struct sockaddr_in address;
	int fd;

	(void)close(tcp_listen(&address, 1));
	fd = adopt_connect(&address);
	check_equal(wait_for(fd, POLLIN | POLLOUT) & (POLLOUT | POLLERR | POLLHUP),
		    POLLOUT | POLLERR | POLLHUP, "failed: POLLOUT, POLLERR and POLLHUP");
	check_equal(tcp_info(fd).tcpi_state, TCP_STATE_CLOSE, "failed: state is CLOSE");
	check_equal(get_option(fd, SOL_SOCKET, SO_ERROR), ECONNREFUSED,
		    "failed: SO_ERROR says why");
	check_equal(get_option(fd, SOL_SOCKET, SO_ERROR), 0, "failed: once");
	check_equal(tcp_info(fd).tcpi_state, TCP_STATE_CLOSE,
		    "failed: state stays CLOSE");
	check(events_now(fd, POLLIN | POLLOUT) & POLLHUP, "failed: and POLLHUP stays");
	check_equal((long long)tcp_info(fd).tcpi_bytes_acked, 0, "failed: acked is 0");
	check_equal(move_bytes(fd, pipe_of_one_fd(), 100), 0,
		    "failed: splice from it gives 0, as at an end");
}

static void established_and_reset(void)
{
	struct sockaddr_in address;
	int listener = tcp_listen(&address, 1), fd = tcp_connect(&address);
	int peer = must(accept4(listener, NULL, NULL, SOCK_CLOEXEC), "accept4");

	(void)must(send_reset(peer), "reset");
	check(wait_for(fd, 0) & POLLERR, "reset: the RST arrives");
	check_equal((long long)tcp_info(fd).tcpi_bytes_acked, 1, "reset: acked is 1");
}

int main(void)
{
	check_begin();
	unix_pair(SOCK_SEQPACKET, &in, &out);
	established();
	under_way();
	failed();
	established_and_reset();
	return check_end();
}
