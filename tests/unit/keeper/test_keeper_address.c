/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cmocka.h needs these four before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "keeper/address.h"

static struct address parse(const char *text)
{
	struct address address;

	assert_int_equal(address_parse(text, &address), 0);
	return address;
}

static void port_alone_is_all_addresses(void **state)
{
	struct address address = parse("8888");

	(void)state;
	assert_true(address.is_port_only);
	assert_int_equal(address.socket.any.sa_family, AF_INET6);
	assert_int_equal(ntohs(address.socket.ipv6.sin6_port), 8888);
	assert_memory_equal(&address.socket.ipv6.sin6_addr, &in6addr_any,
			    sizeof(in6addr_any));
}

static void ipv4_and_ipv6_have_a_port(void **state)
{
	struct address address = parse("127.0.0.1:65535");

	(void)state;
	assert_false(address.is_port_only);
	assert_int_equal(address.socket.any.sa_family, AF_INET);
	assert_int_equal(ntohl(address.socket.ipv4.sin_addr.s_addr), INADDR_LOOPBACK);
	assert_int_equal(ntohs(address.socket.ipv4.sin_port), 65535);

	address = parse("[::1]:1");
	assert_false(address.is_port_only);
	assert_int_equal(address.socket.any.sa_family, AF_INET6);
	assert_memory_equal(&address.socket.ipv6.sin6_addr, &in6addr_loopback,
			    sizeof(in6addr_loopback));
	assert_int_equal(ntohs(address.socket.ipv6.sin6_port), 1);
}

static void paths_and_abstract_names_are_local(void **state)
{
	const size_t start = offsetof(struct sockaddr_un, sun_path);
	struct address address = parse("/run/x");

	(void)state;
	assert_int_equal(address.socket.any.sa_family, AF_UNIX);
	assert_string_equal(address.socket.local.sun_path, "/run/x");
	assert_int_equal(address.size, start + 7);

	address = parse("@x");
	assert_memory_equal(address.socket.local.sun_path, "\0x", 2);
	assert_int_equal(address.size, start + 2);
}

static void local_names_have_a_bound(void **state)
{
	struct address address;
	char text[110] = {0};

	(void)state;
	memset(text, 'n', 109);
	text[0] = '/';
	assert_int_equal(address_parse(text, &address), -EINVAL);
	text[108] = '\0';
	assert_int_equal(address_parse(text, &address), -EINVAL);
	text[0] = '@';
	assert_int_equal(address_parse(text, &address), 0);
	text[0] = '/';
	text[107] = '\0';
	assert_int_equal(address_parse(text, &address), 0);
	assert_true(address.size <= sizeof(struct sockaddr_un));
}

static void anything_else_is_refused(void **state)
{
	const char *bad[] = {
		"",
		"0",
		"65536",
		"99999999999",
		"-1",
		"+1",
		" 1",
		"1 ",
		"0x50",
		"http",
		"localhost:1",
		":1",
		"1:",
		"1.2.3:4",
		"127.0.0.1",
		"127.0.0.1:",
		"127.0.0.1:0",
		"127.0.0.1:1:2",
		"[::1]",
		"[::1]:",
		"[::1",
		"[::1]1",
		"[]:1",
		"[127.0.0.1]:1",
		"[::1%lo]:1",
		"::1:1",
		"/",
		"@",
		"relative/x",
		"[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]:1",
		"255.255.255.255.255.255.255:1",
	};
	struct address address = {.size = 7};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(address_parse(bad[i], &address), -EINVAL);
		assert_int_equal(address.size, 7); /* untouched */
	}
}

static int is_listening(int fd)
{
	socklen_t size = sizeof(int);
	int value = 0;

	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size), 0);
	return value;
}

static void listeners_do_not_block_nor_leak(void **state)
{
	struct address address = parse("127.0.0.1:1");
	_cleanup_close_ int fd = -EBADF;

	(void)state;
	address.socket.ipv4.sin_port = 0; /* any free one */
	fd = address_listen(&address);
	assert_true(fd >= 0);
	assert_true(is_listening(fd));
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

static void port_alone_takes_ipv4_too(void **state)
{
	struct address address = parse("1");
	struct sockaddr_in to = {.sin_family = AF_INET};
	_cleanup_close_ int fd = -EBADF, client = -EBADF;
	struct sockaddr_in6 bound;
	socklen_t size = sizeof(bound);

	(void)state;
	address.socket.ipv6.sin6_port = 0;
	fd = address_listen(&address);
	assert_true(fd >= 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&bound, &size), 0);
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	to.sin_port = bound.sin6_port; /* at the same place in both */
	client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(client, (struct sockaddr *)&to, sizeof(to)), 0);
}

static void stale_sockets_are_replaced_and_nothing_else(void **state)
{
	char directory[] = "/tmp/holdfast-test.XXXXXX", path[64];
	_cleanup_close_ int fd = -EBADF, second = -EBADF;
	struct address address;
	struct stat status;

	(void)state;
	assert_non_null(mkdtemp(directory));
	(void)snprintf(path, sizeof(path), "%s/socket", directory);
	address = parse(path);

	fd = address_listen(&address);
	assert_true(fd >= 0);
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0666);
	assert_int_equal(address_listen(&address), -EADDRINUSE); /* somebody listens */

	fd = fd_close(fd);
	second = address_listen(&address);
	assert_true(second >= 0);
	assert_true(is_listening(second));
	second = fd_close(second);

	assert_int_equal(unlink(path), 0);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(address_listen(&address), -EADDRINUSE); /* a file */
	assert_int_equal(lstat(path, &status), 0);
	assert_true(S_ISREG(status.st_mode));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(port_alone_is_all_addresses),
		cmocka_unit_test(ipv4_and_ipv6_have_a_port),
		cmocka_unit_test(paths_and_abstract_names_are_local),
		cmocka_unit_test(local_names_have_a_bound),
		cmocka_unit_test(anything_else_is_refused),
		cmocka_unit_test(listeners_do_not_block_nor_leak),
		cmocka_unit_test(port_alone_takes_ipv4_too),
		cmocka_unit_test(stale_sockets_are_replaced_and_nothing_else),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
