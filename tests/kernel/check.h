/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the programs in this folder share: TAP output and the objects that holdfast is
 * made of (TCP pairs on the loopback, parcels, pipes of one fd, an unprivileged child).
 *
 * Each program is one assumption about the kernel. It prints a line `ok` or `not ok` for
 * each sentence of it and ends with status 1 if one does not hold. What the setup needs
 * and cannot have ends the program with `Bail out!`. Programs are short: they leave fds
 * open, the kernel closes them at exit.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Longest wait for something that the loopback delivers within microseconds. */
#define CHECK_PATIENCE_MSEC 5000
/* A fact that does not hold may show as a hang: end the program then. */
#define CHECK_LIFETIME_SEC 60

/* Not in <linux/tcp.h>, and <netinet/tcp.h> cannot be included beside it. */
enum tcp_state {
	TCP_STATE_ESTABLISHED = 1,
	TCP_STATE_SYN_SENT = 2,
	TCP_STATE_FIN_WAIT1 = 4,
	TCP_STATE_FIN_WAIT2 = 5,
	TCP_STATE_CLOSE = 7,
	TCP_STATE_CLOSE_WAIT = 8,
	TCP_STATE_LAST_ACK = 9,
};

static unsigned check_n_done, check_n_failed;

static inline void check_begin(void)
{
	/* children inherit the buffer: whole lines, so that none is printed twice */
	(void)setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	(void)alarm(CHECK_LIFETIME_SEC);
}

static inline int check_end(void)
{
	printf("1..%u\n", check_n_done);
	return check_n_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static inline bool check(bool holds, const char *sentence)
{
	check_n_done++;
	check_n_failed += !holds;
	printf("%s %u - %s\n", holds ? "ok" : "not ok", check_n_done, sentence);
	return holds;
}

static inline void check_skip(const char *sentence, const char *reason)
{
	check_n_done++;
	printf("ok %u - %s # SKIP %s\n", check_n_done, sentence, reason);
}

/* For numbers and for outcome(): on failure says what was found. */
static inline void check_equal(long long found, long long expected, const char *sentence)
{
	if (check(found == expected, sentence))
		return;
	printf("# found %lld (%s), expected %lld (%s)\n", found,
	       found < 0 ? strerror((int)-found) : "", expected,
	       expected < 0 ? strerror((int)-expected) : "");
}

/* A system call's result as count or negative errno. */
static inline long outcome(long result)
{
	return result < 0 ? -errno : result;
}

/* For what has to succeed before there is anything to check. */
static inline int must(long result, const char *what)
{
	if (result >= 0)
		return (int)result;
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(EXIT_FAILURE);
}

static inline void require(bool holds, const char *what)
{
	if (holds)
		return;
	printf("Bail out! not so: %s\n", what);
	exit(EXIT_FAILURE);
}

/* Waits for events on an fd; gives those that came, 0 when patience ran out. */
static inline short wait_for(int fd, short events)
{
	struct pollfd pollfd = {.fd = fd, .events = events};

	(void)must(poll(&pollfd, 1, CHECK_PATIENCE_MSEC), "poll");
	return pollfd.revents;
}

/* Receives n_bytes, and no more. */
static inline void receive_all(int fd, size_t n_bytes)
{
	char buffer[4096];

	while (n_bytes > 0) {
		size_t part = n_bytes < sizeof(buffer) ? n_bytes : sizeof(buffer);

		(void)wait_for(fd, POLLIN);
		n_bytes -= (size_t)must(recv(fd, buffer, part, 0), "recv");
	}
}

static inline short events_now(int fd, short events)
{
	struct pollfd pollfd = {.fd = fd, .events = events};

	(void)must(poll(&pollfd, 1, 0), "poll");
	return pollfd.revents;
}

/*
 * Repeats a condition until it is true: for what the kernel announces by no event, such
 * as an acknowledgement.
 */
#define eventually(condition)                            \
	__extension__({                                  \
		int left_msec_ = CHECK_PATIENCE_MSEC;    \
		while (!(condition) && left_msec_-- > 0) \
			nap_one_msec();                  \
		left_msec_ > 0;                          \
	})

static inline void nap_one_msec(void)
{
	const struct timespec nap = {.tv_nsec = 1000 * 1000};

	(void)nanosleep(&nap, NULL); /* cut short is fine: the caller looks again */
}

static inline void make_nonblocking(int fd)
{
	int flags = must(fcntl(fd, F_GETFL), "F_GETFL");

	(void)must(fcntl(fd, F_SETFL, flags | O_NONBLOCK), "F_SETFL");
}

static inline void set_option(int fd, int level, int option, int value)
{
	(void)must(setsockopt(fd, level, option, &value, sizeof(value)), "setsockopt");
}

static inline int get_option(int fd, int level, int option)
{
	int value = -1;
	socklen_t size = sizeof(value);

	(void)must(getsockopt(fd, level, option, &value, &size), "getsockopt");
	return value;
}

/* An ioctl that gives a number: SIOCINQ, SIOCOUTQ, SIOCATMARK, FIONREAD. */
static inline int ask(int fd, unsigned long request)
{
	int value = -1;

	(void)must(ioctl(fd, request, &value), "ioctl");
	return value;
}

static inline struct tcp_info tcp_info(int fd)
{
	struct tcp_info info = {0};
	socklen_t size = sizeof(info);

	(void)must(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size), "TCP_INFO");
	return info;
}

/* Makes the kernel send RST, whoever else holds the socket. */
static inline int send_reset(int fd)
{
	const struct sockaddr unspecified = {.sa_family = AF_UNSPEC};

	return connect(fd, &unspecified, sizeof(unspecified));
}

static inline int tcp_listen(struct sockaddr_in *ret_address, int backlog)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t size = sizeof(address);
	int fd;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	fd = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
	(void)must(bind(fd, (const struct sockaddr *)&address, sizeof(address)), "bind");
	(void)must(listen(fd, backlog), "listen");
	(void)must(getsockname(fd, (struct sockaddr *)&address, &size), "getsockname");
	*ret_address = address;
	return fd;
}

static inline int tcp_connect(const struct sockaddr_in *address)
{
	int fd = must(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");

	(void)must(connect(fd, (const struct sockaddr *)address, sizeof(*address)),
		   "connect");
	return fd;
}

/*
 * Two connected sockets, without blocking: ours was accepted, as holdfast's client
 * sockets are, and the peer's called connect().
 */
static inline void tcp_pair(int *ret_ours, int *ret_peer)
{
	struct sockaddr_in address;
	int listener = tcp_listen(&address, 1);

	*ret_peer = tcp_connect(&address);
	*ret_ours = must(accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK),
			 "accept4");
	make_nonblocking(*ret_peer);
	(void)close(listener);
}

static inline void unix_pair(int type, int *ret_ours, int *ret_peer)
{
	int fds[2];

	(void)must(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
		   "socketpair");
	*ret_ours = fds[0];
	*ret_peer = fds[1];
}

/* A pipe as holdfast keeps it: one fd for both ends. */
static inline int pipe_of_one_fd(void)
{
	char path[64];
	int ends[2], fd;

	(void)must(pipe2(ends, O_CLOEXEC | O_NONBLOCK), "pipe2");
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[0]);
	fd = must(open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC), "reopen the pipe O_RDWR");
	(void)close(ends[0]);
	(void)close(ends[1]);
	return fd;
}

/* Splices without waiting; gives the count or a negative errno. */
static inline long move_bytes(int from, int to, size_t n_bytes)
{
	return outcome(
		splice(from, NULL, to, NULL, n_bytes, SPLICE_F_MOVE | SPLICE_F_NONBLOCK));
}

#define MESSAGE_FDS_MAX 8

struct message {
	uint64_t label[3]; /* 24 bytes, as a parcel's label */
	int fds[MESSAGE_FDS_MAX];
	size_t n_fds;
	int flags;
};

/* Gives the bytes sent or a negative errno. */
static inline long message_put(int parcel, uint64_t id, const int *fds, size_t n_fds)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
	} control = {0};
	uint64_t label[3] = {id};
	struct iovec iovec = {.iov_base = label, .iov_len = sizeof(label)};
	struct msghdr message = {
		.msg_iov = &iovec,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(n_fds * sizeof(int)),
	};

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
	memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
	return outcome(sendmsg(parcel, &message, MSG_NOSIGNAL | MSG_DONTWAIT));
}

/* Gives the bytes received (0 at the end) or a negative errno. */
static inline long message_get(int parcel, int flags, struct message *ret_message)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(MESSAGE_FDS_MAX * sizeof(int))];
	} control = {0};
	struct message got = {0};
	struct iovec iovec = {.iov_base = got.label, .iov_len = sizeof(got.label)};
	struct msghdr message = {
		.msg_iov = &iovec,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	long r = outcome(recvmsg(parcel, &message, flags | MSG_DONTWAIT));

	if (r < 0)
		return r;
	if (message.msg_controllen >= sizeof(struct cmsghdr)) {
		got.n_fds = (control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(got.fds, CMSG_DATA(&control.header), got.n_fds * sizeof(int));
	}
	got.flags = message.msg_flags;
	*ret_message = got;
	return r;
}

static inline long message_peek(int parcel, struct message *ret_message)
{
	return message_get(parcel, MSG_PEEK | MSG_CMSG_CLOEXEC, ret_message);
}

static inline void message_close_fds(struct message *message)
{
	for (size_t i = 0; i < message->n_fds; i++)
		(void)close(message->fds[i]);
	message->n_fds = 0;
}

/* Whether two fds name one open file: O_NONBLOCK set on one shows on the other. */
static inline bool is_same_open_file(int a, int b)
{
	int before = must(fcntl(a, F_GETFL), "F_GETFL");
	bool same;

	(void)must(fcntl(a, F_SETFL, before ^ O_NONBLOCK), "F_SETFL");
	same = must(fcntl(b, F_GETFL), "F_GETFL") == (before ^ O_NONBLOCK);
	(void)must(fcntl(a, F_SETFL, before), "F_SETFL");
	return same && must(fcntl(b, F_GETFL), "F_GETFL") == before;
}

/* The status of a child: what it passed to _exit(), or 128 + the signal. */
static inline int child_status(pid_t child)
{
	int status;

	(void)must(waitpid(child, &status, 0), "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/*
 * Makes this process (a child: there is no way back) a user without privileges. False
 * where the user cannot be changed, as in a user namespace of one uid.
 */
static inline bool become_unprivileged(void)
{
	const unsigned nobody = 65534;

	if (geteuid() != 0)
		return true;
	if (setgroups(0, NULL) < 0 || setresgid(nobody, nobody, nobody) < 0 ||
	    setresuid(nobody, nobody, nobody) < 0)
		return false;
	/* a change of uid hides /proc/self/fd from ourselves */
	return prctl(PR_SET_DUMPABLE, 1) == 0;
}
