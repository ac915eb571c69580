/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * AF_UNIX stream sockets have no RST: connect(AF_UNSPEC) is EINVAL. shutdown(SHUT_RDWR)
 * ends both directions at once even while a parcel holds the socket: the peer reads 0 and
 * its writes give EPIPE. ECONNRESET comes only when the last copy of a socket goes (the
 * parcel's too) while bytes wait unread in it.
 *
 * connection (its end) relies on it: to abort an AF_UNIX peer is to shut it down.
 * Source: unix_stream_connect(), unix_shutdown(), unix_release_sock() in
 * net/unix/af_unix.c.
 */

#include "check.h"

static int in, out; /* the parcel's two ends */

static void parked_pair(int *ret_ours, int *ret_peer)
{
	unix_pair(SOCK_STREAM, ret_ours, ret_peer);
	require(message_put(in, 1, ret_ours, 1) == 24, "put");
}

static void drop_parked(void)
{
	struct message message = {0};

	require(message_get(out, 0, &message) == 24, "get");
	message_close_fds(&message);
}

static long read_one(int fd)
{
	return outcome(recv(fd, (char[1]){0}, 1, 0));
}

static void there_is_no_reset(void)
{
	int ours, peer;

	parked_pair(&ours, &peer);
	check_equal(outcome(send_reset(ours)), -EINVAL, "connect(AF_UNSPEC) is EINVAL");
	(void)close(ours);
	check_equal(events_now(peer, POLLIN | POLLRDHUP), 0, "close: no event");
	drop_parked();
	check_equal(events_now(peer, POLLIN | POLLRDHUP), POLLIN | POLLRDHUP | POLLHUP,
		    "the last copy gone: an end, no error");
	check_equal(read_one(peer), 0, "the last copy gone: read gives 0");
}

static void shutdown_ends_both_directions(void)
{
	int ours, peer;

	parked_pair(&ours, &peer);
	(void)must(send(ours, "x", 1, 0), "send");
	(void)must(shutdown(ours, SHUT_RDWR), "shutdown");
	(void)close(ours);
	check_equal(events_now(peer, POLLIN | POLLRDHUP), POLLIN | POLLRDHUP | POLLHUP,
		    "shutdown: the peer sees the end");
	check_equal(read_one(peer), 1, "shutdown: what was sent can be read");
	check_equal(read_one(peer), 0, "shutdown: then 0");
	check_equal(outcome(send(peer, "x", 1, MSG_NOSIGNAL)), -EPIPE,
		    "shutdown: its writes give EPIPE");
	drop_parked();
	check_equal(events_now(peer, 0) & POLLERR, 0,
		    "shutdown: the last copy gone is no error");
}

static void unread_bytes_make_a_reset(void)
{
	int ours, peer;

	parked_pair(&ours, &peer);
	(void)must(send(peer, "unread", 6, 0), "send");
	(void)must(shutdown(ours, SHUT_RDWR), "shutdown");
	(void)close(ours);
	check_equal(events_now(peer, 0) & POLLERR, 0, "unread: no error while parked");
	drop_parked();
	check(events_now(peer, 0) & POLLERR, "unread: the last copy gone is an error");
	check_equal(read_one(peer), -ECONNRESET, "unread: read gives ECONNRESET");
	check_equal(read_one(peer), 0, "unread: then 0");
}

int main(void)
{
	check_begin();
	unix_pair(SOCK_SEQPACKET, &in, &out);
	there_is_no_reset();
	shutdown_ends_both_directions();
	unread_bytes_make_a_reset();
	return check_end();
}
