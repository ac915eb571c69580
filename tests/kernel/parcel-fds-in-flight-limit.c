/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The fds that an unprivileged user has in flight, all parcels together, are limited by
 * the soft RLIMIT_NOFILE of the process that sends: beyond it sendmsg() is ETOOMANYREFS.
 * Fds in flight need no slot in any fd table, so they can exceed what a process has open.
 * What is received is in flight no longer; what is only peeked at stays so.
 *
 * vault (parcel) relies on it: a put can be refused and the connection then is too.
 * Source: too_many_unix_fds() in net/unix/af_unix.c (net/core/scm.c); unix(7).
 */

#include <sys/resource.h>

#include "check.h"

#define LIMIT 64

enum found {
	FOUND_ALL = 0,
	FOUND_NO_USER = EXIT_FAILURE + 1, /* EXIT_FAILURE is must()'s */
	FOUND_NO_LIMIT,
	FOUND_OTHER_ERROR,
	FOUND_TOO_MANY,
	FOUND_PEEK_FREES,
	FOUND_GET_DOES_NOT_FREE,
};

/* In a child that gave up its privileges: the limit does not hold for root. */
static enum found try_limit(void)
{
	const struct rlimit limit = {.rlim_cur = LIMIT, .rlim_max = LIMIT};
	struct message message = {0};
	int in, out, fd = STDIN_FILENO;
	long r, n = 0;

	if (!become_unprivileged())
		return FOUND_NO_USER;
	(void)must(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
	unix_pair(SOCK_SEQPACKET, &in, &out);
	while ((r = message_put(in, 0, &fd, 1)) == 24)
		n++;
	printf("# %ld fds in flight with a limit of %d, then %s\n", n, LIMIT,
	       strerrorname_np((int)-r));
	if (r == -EAGAIN)
		return FOUND_NO_LIMIT;
	if (r != -ETOOMANYREFS)
		return FOUND_OTHER_ERROR;
	if (n > LIMIT + 1)
		return FOUND_TOO_MANY;
	if (message_peek(out, &message) != 24 || message_put(in, 0, &fd, 1) >= 0)
		return FOUND_PEEK_FREES;
	message_close_fds(&message);
	if (message_get(out, 0, &message) != 24 || message_put(in, 0, &fd, 1) != 24)
		return FOUND_GET_DOES_NOT_FREE;
	return FOUND_ALL;
}

int main(void)
{
	pid_t child;
	int found;

	check_begin();
	child = must(fork(), "fork");
	if (child == 0)
		_exit((int)try_limit());
	found = child_status(child);
	if (found == FOUND_NO_USER) {
		check_skip("ETOOMANYREFS", "cannot become an unprivileged user here");
		return check_end();
	}
	check(found != FOUND_NO_LIMIT && found != FOUND_OTHER_ERROR,
	      "beyond the limit a put is ETOOMANYREFS");
	check(found != FOUND_TOO_MANY, "the limit is the soft RLIMIT_NOFILE, within one");
	check(found != FOUND_PEEK_FREES, "a peek takes nothing out of flight");
	check(found != FOUND_GET_DOES_NOT_FREE, "receiving makes room again");
	check_equal(found, FOUND_ALL, "the child found all of it");
	return check_end();
}
