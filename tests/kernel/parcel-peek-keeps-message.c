/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A parcel can be read without being emptied: MSG_PEEK on an AF_UNIX SOCK_SEQPACKET
 * socket duplicates the SCM_RIGHTS fds and leaves the message. With SO_PEEK_OFF 0 each
 * peek goes on where the last one ended, so successive peeks walk the queue in order. The
 * offset is the socket's, not the fd's or the process's, and is set back to 0 at will.
 * At the end of the queue a peek is EAGAIN while the sending end is open anywhere, and 0
 * once it is closed everywhere. A message appended later is found by the next peek alone.
 *
 * vault (parcel, adopt, takeover) relies on it.
 * Source: unix_dgram_recvmsg(), unix_peek_fds() in net/unix/af_unix.c; SO_PEEK_OFF in
 * socket(7).
 */

#include "check.h"

static void put_numbered(int parcel, uint64_t first, uint64_t last)
{
	for (uint64_t id = first; id <= last; id++) {
		int fd = must(dup(STDIN_FILENO), "dup");

		require(message_put(parcel, id, &fd, 1) == 24, "put");
		(void)close(fd);
	}
}

/* Peeks at what is expected to be messages first to last; true if it is. */
static bool peeks_are(int parcel, uint64_t first, uint64_t last)
{
	for (uint64_t id = first; id <= last; id++) {
		struct message message;

		if (message_peek(parcel, &message) != 24 || message.label[0] != id ||
		    message.n_fds != 1)
			return false;
		message_close_fds(&message);
	}
	return true;
}

static void peek_duplicates(void)
{
	int in, out, pipe_fd = pipe_of_one_fd(), other = pipe_of_one_fd();
	int fds[] = {pipe_fd, other};
	struct message first, second;

	unix_pair(SOCK_SEQPACKET, &in, &out);
	check_equal(message_put(in, 7, fds, 2), 24, "a message with two fds goes in");
	check_equal(message_peek(out, &first), 24, "a peek gives its 24 bytes");
	check_equal((long long)first.label[0], 7, "and its label");
	check_equal((long long)first.n_fds, 2, "and its two fds");
	check_equal(first.flags & (MSG_CTRUNC | MSG_TRUNC), 0, "none is cut off");
	check_equal(message_peek(out, &second), 24, "without SO_PEEK_OFF it peeks again");
	check(first.fds[0] != pipe_fd && first.fds[0] != second.fds[0],
	      "each peek makes new fds");
	check(is_same_open_file(first.fds[0], pipe_fd), "of the same open file");
	check(is_same_open_file(first.fds[1], other),
	      "in the order in which they were put");
	check(!is_same_open_file(first.fds[0], other), "two files are told apart");
	message_close_fds(&first);
	message_close_fds(&second);
	(void)close(pipe_fd);
	check_equal(message_get(out, MSG_CMSG_CLOEXEC, &first), 24, "it can be received");
	check_equal((long long)first.n_fds, 2,
		    "with its fds after the owner closed them");
	check_equal(message_peek(out, &second), -EAGAIN, "and is gone then");
}

static void peeks_walk_in_order(void)
{
	struct message message;
	int in, out;

	unix_pair(SOCK_SEQPACKET, &in, &out);
	set_option(out, SOL_SOCKET, SO_PEEK_OFF, 0);
	put_numbered(in, 1, 100);
	check(peeks_are(out, 1, 100), "with SO_PEEK_OFF the peeks walk 100 messages");
	check_equal(message_peek(out, &message), -EAGAIN, "at the end EAGAIN");
	check_equal(message_peek(out, &message), -EAGAIN, "and EAGAIN again");
	check_equal(get_option(out, SOL_SOCKET, SO_PEEK_OFF), 2400,
		    "the offset counts the bytes peeked at");

	put_numbered(in, 101, 103);
	check(peeks_are(out, 101, 103), "messages put later are found alone");
	check_equal(message_peek(out, &message), -EAGAIN, "then EAGAIN");

	set_option(out, SOL_SOCKET, SO_PEEK_OFF, 0);
	check(peeks_are(out, 1, 103), "set back to 0, they are all found again");
	set_option(out, SOL_SOCKET, SO_PEEK_OFF, 10 * 24);
	check(peeks_are(out, 11, 103), "an offset leads to the message that it falls on");
}

static void offset_belongs_to_the_socket(void)
{
	struct message message;
	int in, out, copy;
	pid_t child;

	unix_pair(SOCK_SEQPACKET, &in, &out);
	set_option(out, SOL_SOCKET, SO_PEEK_OFF, 0);
	put_numbered(in, 1, 10);
	copy = must(dup(out), "dup");
	check(peeks_are(out, 1, 3), "three peeks");
	check(peeks_are(copy, 4, 6), "a dup of the fd goes on after them");

	child = must(fork(), "fork");
	if (child == 0)
		_exit(peeks_are(out, 7, 9) ? 0 : 1);
	check_equal(child_status(child), 0, "another process goes on after those");
	check(peeks_are(out, 10, 10), "and we after it");
	check_equal(message_peek(out, &message), -EAGAIN, "to the end");
	set_option(copy, SOL_SOCKET, SO_PEEK_OFF, 0);
	check(peeks_are(out, 1, 10), "a copy that sets it back does so for all");
}

/* Both ends are stored, yet the end of a half-stored parcel has to be known too. */
static void end_of_queue_with_the_sender_gone(void)
{
	struct message message;
	int in, out, copy;

	unix_pair(SOCK_SEQPACKET, &in, &out);
	set_option(out, SOL_SOCKET, SO_PEEK_OFF, 0);
	put_numbered(in, 1, 3);
	copy = must(dup(in), "dup");
	(void)close(in);
	check(peeks_are(out, 1, 3), "peeks with a copy of the sending end open");
	check_equal(message_peek(out, &message), -EAGAIN,
		    "sender open: EAGAIN at the end");
	(void)close(copy);
	check_equal(message_peek(out, &message), 0, "sender closed: 0 at the end");
	check_equal(message_peek(out, &message), 0, "sender closed: and 0 again");
	set_option(out, SOL_SOCKET, SO_PEEK_OFF, 0);
	check(peeks_are(out, 1, 3), "sender closed: the queue is still there");
	check_equal(message_peek(out, &message), 0, "sender closed: and ends with 0");
}

static void end_of_queue_with_the_sender_shut_down(void)
{
	struct message message;
	int in, out;

	unix_pair(SOCK_SEQPACKET, &in, &out);
	set_option(out, SOL_SOCKET, SO_PEEK_OFF, 0);
	put_numbered(in, 1, 3);
	(void)must(shutdown(in, SHUT_WR), "shutdown");
	check(peeks_are(out, 1, 3), "peeks after shutdown");
	check_equal(message_peek(out, &message), 0, "sender shut down: 0 at the end");
}

int main(void)
{
	check_begin();
	peek_duplicates();
	peeks_walk_in_order();
	offset_belongs_to_the_socket();
	end_of_queue_with_the_sender_gone();
	end_of_queue_with_the_sender_shut_down();
	return check_end();
}
