/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/socket.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

/* enum in include/net/tcp_states.h, which user space does not get with linux/tcp.h */
enum {
	STATE_SYN_SENT = 2,
	STATE_SYN_RECV = 3,
	STATE_FIN_WAIT1 = 4,
	STATE_FIN_WAIT2 = 5,
	STATE_CLOSE = 7,
	STATE_CLOSE_WAIT = 8,
	STATE_LAST_ACK = 9,
	STATE_CLOSING = 11,
};

static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) == SOCKET_PATH_MAX + 1,
	      "unix(7) says 108");

int socket_set_path(const char *path, struct sockaddr_un *ret_address)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	size_t length = strlen(path);

	/* An empty one would be an abstract name */
	if (length == 0)
		return -EINVAL;
	if (length > SOCKET_PATH_MAX)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, path, length);
	*ret_address = address;
	return 0;
}

void socket_abort(int fd)
{
	struct sockaddr unspecified = {.sa_family = AF_UNSPEC};

	/* Whatever these return, there is nothing more to be done to a socket */
	if (connect(fd, &unspecified, sizeof(unspecified)) < 0)
		(void)shutdown(fd, SHUT_RDWR);
}

static int get_info(int fd, struct tcp_info *ret_info)
{
	struct tcp_info info = {0};
	socklen_t size = sizeof(info);

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
		return -errno;
	static_assert(offsetof(struct tcp_info, tcpi_bytes_acked) <
			      offsetof(struct tcp_info, tcpi_bytes_received),
		      "who gives the later one gives both");
	if (size < offsetof(struct tcp_info, tcpi_bytes_received) +
			   sizeof(info.tcpi_bytes_received))
		return -EOPNOTSUPP;
	*ret_info = info;
	return 0;
}

static bool is_same_moment(const struct tcp_info *a, const struct tcp_info *b)
{
	return a->tcpi_bytes_received == b->tcpi_bytes_received &&
	       a->tcpi_bytes_acked == b->tcpi_bytes_acked &&
	       a->tcpi_state == b->tcpi_state;
}

/*
 * The counts come by several calls, and a live peer may send or acknowledge in between:
 * so all are asked until the first has not changed over the others.
 */
static int get_info_and_queues(int fd, struct tcp_info *ret_info, int *ret_unread,
			       int *ret_unsent)
{
	struct tcp_info before, after = {0};
	int r, unread, unsent;

	r = get_info(fd, &after);
	if (r < 0)
		return r;
	do {
		before = after;
		if (ioctl(fd, SIOCINQ, &unread) < 0 || ioctl(fd, SIOCOUTQ, &unsent) < 0)
			return -errno;
		r = get_info(fd, &after);
		if (r < 0)
			return r;
	} while (!is_same_moment(&before, &after));
	*ret_info = after;
	*ret_unread = unread;
	*ret_unsent = unsent;
	return 0;
}

static bool is_connecting(const struct tcp_info *info)
{
	return info->tcpi_state == STATE_SYN_SENT || info->tcpi_state == STATE_SYN_RECV;
}

int socket_get_counts(int fd, struct socket_counts *ret_counts)
{
	struct tcp_info info = {0};
	int unread = 0, unsent = 0, r;

	r = get_info_and_queues(fd, &info, &unread, &unsent);
	if (r < 0)
		return r;
	*ret_counts = (struct socket_counts){
		.is_closed = info.tcpi_state == STATE_CLOSE,
		.is_connecting = is_connecting(&info),
		.has_fin = info.tcpi_state == STATE_CLOSE_WAIT ||
			   info.tcpi_state == STATE_LAST_ACK ||
			   info.tcpi_state == STATE_CLOSING,
		.has_sent_fin = info.tcpi_state == STATE_FIN_WAIT1 ||
				info.tcpi_state == STATE_FIN_WAIT2 ||
				info.tcpi_state == STATE_LAST_ACK ||
				info.tcpi_state == STATE_CLOSING,
		.n_taken = (uint64_t)info.tcpi_bytes_received - (uint64_t)unread,
		.n_written = (uint64_t)info.tcpi_bytes_acked + (uint64_t)unsent,
	};
	return 0;
}

int socket_get_progress(int fd)
{
	struct tcp_info info = {0};
	int r = get_info(fd, &info);

	if (r < 0)
		return r;
	if (info.tcpi_state == STATE_CLOSE)
		return SOCKET_CLOSED;
	return is_connecting(&info) ? SOCKET_CONNECTING : SOCKET_CONNECTED;
}

bool socket_is_tcp(int fd)
{
	int protocol = 0;
	socklen_t size = sizeof(protocol);

	return getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
	       protocol == IPPROTO_TCP;
}

int socket_get_unsent(int fd, size_t *ret_unsent)
{
	int unsent;

	if (ioctl(fd, SIOCOUTQ, &unsent) < 0)
		return -errno;
	*ret_unsent = (size_t)unsent;
	return 0;
}

bool socket_is_at_urgent(int fd)
{
	int at_mark;

	return ioctl(fd, SIOCATMARK, &at_mark) == 0 && at_mark;
}

/* A peer names itself as it likes, and must not forge a line of the log with that. */
static void format_unix(const struct sockaddr_un *address, socklen_t length,
			char *ret_text, size_t size)
{
	int path_length = (int)(length - offsetof(struct sockaddr_un, sun_path));

	if (path_length <= 0)
		(void)snprintf(ret_text, size, "unnamed");
	else if (address->sun_path[0] == '\0')
		(void)snprintf(ret_text, size, "@%.*s", path_length - 1,
			       address->sun_path + 1);
	else
		(void)snprintf(ret_text, size, "%.*s", path_length, address->sun_path);
	for (char *c = ret_text; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
}

/* The address in the form that people type it in; an IPv4 peer of an IPv6 socket as IPv4.
 */
static void format_inet6(const struct sockaddr_in6 *address, char *ret_text, size_t size)
{
	char text[INET6_ADDRSTRLEN];
	bool mapped = IN6_IS_ADDR_V4MAPPED(&address->sin6_addr);

	if (mapped)
		(void)inet_ntop(AF_INET, &address->sin6_addr.s6_addr[12], text,
				sizeof(text));
	else
		(void)inet_ntop(AF_INET6, &address->sin6_addr, text, sizeof(text));
	(void)snprintf(ret_text, size, mapped ? "%s:%u" : "[%s]:%u", text,
		       ntohs(address->sin6_port));
}

static void format_address(const struct sockaddr_storage *address, socklen_t length,
			   char *ret_text, size_t size)
{
	const void *any = address;
	const struct sockaddr_in *inet = any;
	char text[INET_ADDRSTRLEN];

	switch (address->ss_family) {
	case AF_INET:
		(void)inet_ntop(AF_INET, &inet->sin_addr, text, sizeof(text));
		(void)snprintf(ret_text, size, "%s:%u", text, ntohs(inet->sin_port));
		break;
	case AF_INET6:
		format_inet6(any, ret_text, size);
		break;
	case AF_UNIX:
		format_unix(any, length, ret_text, size);
		break;
	default:
		(void)snprintf(ret_text, size, "unknown");
	}
}

void socket_format_peer(int fd, char *ret_text, size_t size)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof(address);

	if (getpeername(fd, (struct sockaddr *)&address, &length) < 0)
		(void)snprintf(ret_text, size, "gone");
	else
		format_address(&address, length, ret_text, size);
}

void socket_format_local(int fd, char *ret_text, size_t size)
{
	struct sockaddr_storage address = {0};
	socklen_t length = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		(void)snprintf(ret_text, size, "unknown");
	else
		format_address(&address, length, ret_text, size);
}
