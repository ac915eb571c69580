/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A parcel of default size takes at least 256 messages of 24 bytes with one, two or eight
 * fds each, more than any one connection has; then EAGAIN. The queue outlives the sending
 * fd and the sending process.
 *
 * vault (parcel) relies on it: it fills a parcel to 256 and no further.
 * Source: sock_alloc_send_pskb(), sk_wmem_alloc against SO_SNDBUF; unix(7). How much a
 * message is charged depends on the kernel's skb sizes, hence the margin.
 */

#include "check.h"

#define PARCEL_MESSAGES 256

static long fill(int in, size_t n_fds)
{
	int fds[MESSAGE_FDS_MAX];
	long n = 0, r;

	for (size_t i = 0; i < n_fds; i++)
		fds[i] = STDIN_FILENO;
	while ((r = message_put(in, (uint64_t)n, fds, n_fds)) == 24)
		n++;
	if (r != -EAGAIN)
		printf("# the last put gave %ld\n", r);
	return r == -EAGAIN ? n : r;
}

static long count_peeked(int out)
{
	struct message message = {0};
	long n = 0;

	set_option(out, SOL_SOCKET, SO_PEEK_OFF, 0);
	while (message_peek(out, &message) == 24 && message.label[0] == (uint64_t)n) {
		message_close_fds(&message);
		n++;
	}
	return n;
}

static void check_capacity(size_t n_fds, const char *sentence)
{
	int in, out;
	long n;

	unix_pair(SOCK_SEQPACKET, &in, &out);
	n = fill(in, n_fds);
	printf("# %ld messages of %zu fds at SO_SNDBUF %d\n", n, n_fds,
	       get_option(in, SOL_SOCKET, SO_SNDBUF));
	check(n >= PARCEL_MESSAGES, sentence);
	(void)close(in);
	check_equal(count_peeked(out), n,
		    "and all are there after the sending end closed");
}

static void sender_killed(void)
{
	int in, out, status;
	pid_t child;

	unix_pair(SOCK_SEQPACKET, &in, &out);
	child = must(fork(), "fork");
	if (child == 0) {
		if (fill(in, 2) >= PARCEL_MESSAGES)
			(void)raise(SIGKILL);
		_exit(1);
	}
	(void)close(in);
	status = child_status(child);
	check_equal(status, 128 + SIGKILL, "a child fills a parcel and is killed");
	check(count_peeked(out) >= PARCEL_MESSAGES, "its messages are there");
}

int main(void)
{
	check_begin();
	check_capacity(1, "256 messages of one fd fit");
	check_capacity(2, "256 messages of two fds fit");
	check_capacity(8, "256 messages of eight fds fit");
	sender_killed();
	return check_end();
}
