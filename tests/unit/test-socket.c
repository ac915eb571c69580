/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/socket.h"

#define TEXT_SIZE 128

/* The local name of a socket that is bound to address. */
static void format(const void *address, socklen_t size, char *ret_text)
{
	const struct sockaddr *any = address;
	_cleanup_close_ int fd = socket(any->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int off = 0;

	assert_true(fd >= 0);
	if (any->sa_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	assert_int_equal(bind(fd, any, size), 0);
	socket_format_local(fd, ret_text, TEXT_SIZE);
}

static bool has_ipv6(void)
{
	struct sockaddr_in6 address = {
		.sin6_family = AF_INET6,
		.sin6_addr = IN6ADDR_LOOPBACK_INIT,
	};
	_cleanup_close_ int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
}

static void format_inet6(const char *host, char *ret_text)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6};

	assert_int_equal(inet_pton(AF_INET6, host, &address.sin6_addr), 1);
	format(&address, sizeof(address), ret_text);
}

static void ipv6_is_named_in_brackets_and_mapped_ipv4_as_ipv4(void **state)
{
	char text[TEXT_SIZE];

	(void)state;
	if (!has_ipv6())
		skip();
	format_inet6("::1", text);
	assert_memory_equal(text, "[::1]:", strlen("[::1]:"));
	assert_true(atoi(text + strlen("[::1]:")) > 0);
	format_inet6("::ffff:127.0.0.1", text);
	assert_memory_equal(text, "127.0.0.1:", strlen("127.0.0.1:"));
	assert_true(atoi(text + strlen("127.0.0.1:")) > 0);
}

static void abstract_names_begin_with_an_at_sign(void **state)
{
	static const char name[] = "holdfast-test-socket";
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char text[TEXT_SIZE];

	(void)state;
	memcpy(address.sun_path + 1, name, strlen(name));
	format(&address,
	       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)),
	       text);
	assert_string_equal(text, "@holdfast-test-socket");
}

static void paths_are_named_as_they_are(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char text[TEXT_SIZE];

	(void)state;
	(void)snprintf(address.sun_path, sizeof(address.sun_path),
		       "/tmp/holdfast-test-socket.%d", getpid());
	format(&address, sizeof(address), text);
	assert_int_equal(unlink(address.sun_path), 0);
	assert_string_equal(text, address.sun_path);
}

static void names_can_not_forge_a_line(void **state)
{
	static const char name[] = "holdfast-test\npid: 1\x1b[2J\x9b";
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char text[TEXT_SIZE];

	(void)state;
	memcpy(address.sun_path + 1, name, strlen(name));
	format(&address,
	       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name)),
	       text);
	assert_string_equal(text, "@holdfast-test?pid: 1?[2J?");
}

static void what_has_no_name_is_unnamed(void **state)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char text[TEXT_SIZE];

	(void)state;
	socket_format_local(fd, text, sizeof(text));
	assert_string_equal(text, "unnamed");
	socket_format_peer(fd, text, sizeof(text));
	assert_string_equal(text, "gone");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ipv6_is_named_in_brackets_and_mapped_ipv4_as_ipv4),
		cmocka_unit_test(abstract_names_begin_with_an_at_sign),
		cmocka_unit_test(paths_are_named_as_they_are),
		cmocka_unit_test(names_can_not_forge_a_line),
		cmocka_unit_test(what_has_no_name_is_unnamed),
	};

	return UNIT_RUN("socket", tests);
}
