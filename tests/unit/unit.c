/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

/* What a killed child says first when it has done its work. */
#define WORK_DONE 'd'

void unit_begin(void)
{
	/* splice(2) knows no MSG_NOSIGNAL; the service ignores the signal, too */
	(void)signal(SIGPIPE, SIG_IGN);
}

int must(long result)
{
	if (result < 0)
		fail_msg("the setup failed: %s", strerror(errno));
	return (int)result;
}

static short poll_one(int fd, short events, int timeout_msec)
{
	struct pollfd pollfd = {.fd = fd, .events = events};
	int r;

	do
		r = poll(&pollfd, 1, timeout_msec);
	while (r < 0 && errno == EINTR);
	(void)must(r);
	return pollfd.revents;
}

short wait_for(int fd, short events)
{
	short revents = poll_one(fd, events, UNIT_PATIENCE_MSEC);

	if (revents == 0)
		fail_msg("nothing came in %i ms", UNIT_PATIENCE_MSEC);
	return revents;
}

short events_now(int fd, short events)
{
	return poll_one(fd, events, 0);
}

void wait_for_bytes(int fd, size_t n)
{
	int wanted = (int)n, one = 1;

	(void)must(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof(wanted)));
	(void)wait_for(fd, POLLIN);
	(void)must(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &one, sizeof(one)));
}

void write_exactly(int fd, const void *data, size_t size)
{
	const char *bytes = data;

	while (size > 0) {
		ssize_t n = write(fd, bytes, size);

		if (n < 0 && errno == EAGAIN) {
			(void)wait_for(fd, POLLOUT);
			continue;
		}
		(void)must(n);
		bytes += n;
		size -= (size_t)n;
	}
}

void read_exactly(int fd, void *ret_data, size_t size)
{
	char *bytes = ret_data;

	while (size > 0) {
		ssize_t n;

		(void)wait_for(fd, POLLIN);
		n = must(read(fd, bytes, size));
		if (n == 0)
			fail_msg("the stream ended %zu bytes too early", size);
		bytes += n;
		size -= (size_t)n;
	}
}

void expect_text(int fd, const char *text)
{
	char found[256] = {0};
	int rest;

	assert_true(strlen(text) < sizeof(found));
	read_exactly(fd, found, strlen(text));
	assert_string_equal(found, text);
	(void)must(ioctl(fd, FIONREAD, &rest));
	assert_int_equal(rest, 0);
}

void expect_end(int fd)
{
	char byte;

	(void)wait_for(fd, POLLIN);
	assert_int_equal(read(fd, &byte, 1), 0);
}

void expect_reset(int fd)
{
	int error = 0;
	socklen_t size = sizeof(error);

	assert_true(wait_for(fd, 0) & POLLERR);
	(void)must(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size));
	assert_int_equal(error, ECONNRESET);
}

void tcp_pair(int *ret_ours, int *ret_peer)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	_cleanup_close_ int listener = -EBADF;
	socklen_t size = sizeof(address);
	int one = 1;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	listener = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	(void)must(setsockopt(listener, SOL_SOCKET, SO_OOBINLINE, &one, sizeof(one)));
	(void)must(bind(listener, (const struct sockaddr *)&address, sizeof(address)));
	(void)must(listen(listener, 1));
	(void)must(getsockname(listener, (struct sockaddr *)&address, &size));
	*ret_peer = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	(void)must(
		connect(*ret_peer, (const struct sockaddr *)&address, sizeof(address)));
	*ret_ours = must(accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
	(void)must(fcntl(*ret_peer, F_SETFL, O_NONBLOCK));
}

void unix_pair(int *ret_ours, int *ret_peer)
{
	int fds[2];

	(void)must(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
	*ret_ours = fds[0];
	*ret_peer = fds[1];
}

int token_new(uint64_t id)
{
	int fd = must(memfd_create("token", MFD_CLOEXEC));

	assert_int_equal(pwrite(fd, &id, sizeof(id), 0), sizeof(id));
	return fd;
}

uint64_t token_id(int fd)
{
	uint64_t id = 0;

	assert_int_equal(pread(fd, &id, sizeof(id), 0), sizeof(id));
	return id;
}

bool is_same_file(int a, int b)
{
	struct stat x, y;

	(void)must(fstat(a, &x));
	(void)must(fstat(b, &y));
	return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

unsigned count_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(directory);
	while (readdir(directory))
		n++;
	(void)closedir(directory);
	return n;
}

rlim_t leave_room_for(unsigned n)
{
	struct rlimit files;
	int fds[128], last = 2;
	rlim_t before;

	assert_true(n < N_ELEMENTS(fds));
	for (unsigned i = 0; i < n; i++) {
		fds[i] = must(open("/dev/null", O_RDONLY | O_CLOEXEC));
		last = fds[i] > last ? fds[i] : last;
	}
	for (unsigned i = 0; i < n; i++)
		(void)close(fds[i]);
	(void)must(getrlimit(RLIMIT_NOFILE, &files));
	before = files.rlim_cur;
	files.rlim_cur = (rlim_t)last + 1;
	(void)must(setrlimit(RLIMIT_NOFILE, &files));
	return before;
}

void restore_room(rlim_t before)
{
	struct rlimit files;

	(void)must(getrlimit(RLIMIT_NOFILE, &files));
	files.rlim_cur = before;
	(void)must(setrlimit(RLIMIT_NOFILE, &files));
}

void run_killed(void (*work)(void *userdata), void *userdata)
{
	int ends[2];
	char said = 0;
	pid_t child;

	(void)must(pipe2(ends, O_CLOEXEC));
	child = must(fork());
	if (child == 0) {
		/* A failed assertion would go on with the next test: not in this process */
		(void)setenv("CMOCKA_TEST_ABORT", "1", 1);
		(void)close(ends[0]);
		work(userdata);
		(void)!write(ends[1], (char[]){WORK_DONE}, 1);
		(void)kill(getpid(), SIGKILL);
		_exit(1);
	}
	(void)close(ends[1]);
	(void)!read(ends[0], &said, 1);
	(void)close(ends[0]);
	(void)must(waitpid(child, NULL, 0));
	assert_int_equal(said, WORK_DONE);
}
