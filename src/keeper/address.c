/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

/* Sockets may be used by everybody who may reach them, as with systemd's SocketMode=. */
#define SOCKET_UMASK 0111

static int port_parse(const char *text, in_port_t *ret_port)
{
	unsigned long port;
	size_t n_digits = strspn(text, "0123456789");

	if (n_digits < 1 || n_digits > 5 || text[n_digits])
		return -EINVAL;
	port = strtoul(text, NULL, 10);
	if (port < 1 || port > UINT16_MAX)
		return -EINVAL;
	*ret_port = htons((in_port_t)port);
	return 0;
}

/* A path, or a name with '@' in front. */
static int local_parse(const char *text, struct address *ret_address)
{
	struct sockaddr_un *local = &ret_address->socket.local;
	size_t size = strlen(text);

	/* the '@' becomes the NUL in front of an abstract name, a path ends with one */
	if (size < 2 || size > sizeof(local->sun_path) - (*text == '/'))
		return -EINVAL;
	local->sun_family = AF_UNIX;
	memcpy(local->sun_path, text, size);
	ret_address->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size);
	if (*text == '@')
		local->sun_path[0] = '\0';
	else
		ret_address->size++;
	return 0;
}

static int ipv6_parse(const char *text, struct address *ret_address)
{
	struct sockaddr_in6 *ipv6 = &ret_address->socket.ipv6;
	char host[INET6_ADDRSTRLEN];
	const char *end = strchr(text, ']');
	size_t size = end ? (size_t)(end - text) - 1 : 0;

	if (!end || size >= sizeof(host) || end[1] != ':')
		return -EINVAL;
	memcpy(host, text + 1, size);
	host[size] = '\0';
	if (inet_pton(AF_INET6, host, &ipv6->sin6_addr) != 1)
		return -EINVAL;
	ipv6->sin6_family = AF_INET6;
	ret_address->size = sizeof(*ipv6);
	return port_parse(end + 2, &ipv6->sin6_port);
}

static int ipv4_parse(const char *text, struct address *ret_address)
{
	struct sockaddr_in *ipv4 = &ret_address->socket.ipv4;
	char host[INET_ADDRSTRLEN];
	const char *end = strchr(text, ':');
	size_t size = end ? (size_t)(end - text) : 0;

	if (!end || size >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, size);
	host[size] = '\0';
	if (inet_pton(AF_INET, host, &ipv4->sin_addr) != 1)
		return -EINVAL;
	ipv4->sin_family = AF_INET;
	ret_address->size = sizeof(*ipv4);
	return port_parse(end + 1, &ipv4->sin_port);
}

int address_parse(const char *text, struct address *ret_address)
{
	struct address address = {.size = 0};
	int r;

	if (*text == '/' || *text == '@') {
		r = local_parse(text, &address);
	} else if (*text == '[') {
		r = ipv6_parse(text, &address);
	} else if (strchr(text, ':')) {
		r = ipv4_parse(text, &address);
	} else {
		address.is_port_only = true;
		address.size = sizeof(address.socket.ipv6);
		address.socket.ipv6.sin6_family = AF_INET6;
		r = port_parse(text, &address.socket.ipv6.sin6_port);
	}
	if (r < 0)
		return r;
	*ret_address = address;
	return 0;
}

/* Whether address is a socket file left behind by a listener that has gone. */
static bool is_stale(const struct address *address)
{
	_cleanup_close_ int fd = -EBADF;
	struct stat status;

	if (address->socket.any.sa_family != AF_UNIX ||
	    !address->socket.local.sun_path[0] ||
	    lstat(address->socket.local.sun_path, &status) < 0 ||
	    !S_ISSOCK(status.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd >= 0 && connect(fd, &address->socket.any, address->size) < 0 &&
	       errno == ECONNREFUSED;
}

static int socket_bind(int fd, const struct address *address)
{
	mode_t saved_umask = umask(SOCKET_UMASK);
	int r = bind(fd, &address->socket.any, address->size) < 0 ? -errno : 0;

	(void)umask(saved_umask);
	return r;
}

static int listen_exactly(const struct address *address)
{
	_cleanup_close_ int fd = -EBADF;
	int r, on = 1, off = 0;

	fd = socket(address->socket.any.sa_family,
		    SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return -errno;
	if (address->is_port_only && address->socket.any.sa_family == AF_INET6 &&
	    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0)
		return -errno;
	r = socket_bind(fd, address);
	if (r == -EADDRINUSE && is_stale(address)) {
		(void)unlink(address->socket.local.sun_path); /* bind says if it failed */
		r = socket_bind(fd, address);
	}
	if (r < 0)
		return r;
	if (listen(fd, SOMAXCONN) < 0)
		return -errno;
	return take_fd(&fd);
}

int address_listen(const struct address *address)
{
	struct address ipv4 = {.is_port_only = true, .size = sizeof(ipv4.socket.ipv4)};
	int fd = listen_exactly(address);

	/* IPv6 left out of the kernel, or switched off by sysctl: all of IPv4 instead */
	if (!address->is_port_only || (fd != -EAFNOSUPPORT && fd != -EADDRNOTAVAIL))
		return fd;
	ipv4.socket.ipv4.sin_family = AF_INET;
	ipv4.socket.ipv4.sin_port = address->socket.ipv6.sin6_port;
	return listen_exactly(&ipv4);
}
