/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <errno.h>
#include <string.h>

#include "holdfastd/address.h"

#define ERROR_SIZE 512

static void accept(const char *text, bool is_path, const char *host, const char *port)
{
	struct address address;
	char error[ERROR_SIZE];

	memset(&address, 0x5a, sizeof(address));
	assert_int_equal(address_parse(text, &address, error, sizeof(error)), 0);
	assert_int_equal(address.is_path, is_path);
	assert_string_equal(address.host, host);
	assert_string_equal(address.port, port);
}

static void refuse(const char *text)
{
	struct address address, before;
	char error[ERROR_SIZE] = "";

	memset(&address, 0x5a, sizeof(address));
	memcpy(&before, &address, sizeof(address));
	assert_int_equal(address_parse(text, &address, error, sizeof(error)), -EINVAL);
	assert_memory_equal(&address, &before, sizeof(address));
	assert_non_null(strstr(error, "give HOST:PORT, [IPv6]:PORT or /path"));
}

static void names_and_numbers_are_taken(void **state)
{
	(void)state;
	accept("localhost:80", false, "localhost", "80");
	accept("db_1.internal-net:5432", false, "db_1.internal-net", "5432");
	accept("127.0.0.1:1", false, "127.0.0.1", "1");
	accept("[127.0.0.1]:65535", false, "127.0.0.1", "65535");
	accept("[::1]:443", false, "::1", "443");
	accept("[fe80::1%eth0]:443", false, "fe80::1%eth0", "443");
	accept("a:00080", false, "a", "00080");
}

static void paths_are_taken(void **state)
{
	char longest[108] = "/";

	(void)state;
	accept("/run/db.sock", true, "/run/db.sock", "");
	accept("/a:b", true, "/a:b", "");
	memset(longest + 1, 'x', sizeof(longest) - 2);
	accept(longest, true, longest, "");
}

static void paths_longer_than_a_socket_address_are_refused(void **state)
{
	char text[109] = "/";

	(void)state;
	memset(text + 1, 'x', sizeof(text) - 2);
	refuse(text);
}

static void ports_that_are_none_are_refused(void **state)
{
	static const char *const bad[] = {"",        "a",      "a:",       "a:0",
					  "a:65536", "a:-1",   "a:+1",     "a: 1",
					  "a:1 ",    "a:http", "a:000080", "1234",
					  "a:1:2x",  "[::1]",  "[::1]443", "a:99999"};

	(void)state;
	for (size_t i = 0; i < N_ELEMENTS(bad); i++)
		refuse(bad[i]);
}

static void hosts_that_are_none_are_refused(void **state)
{
	static const char *const bad[] = {":80",         "[]:80",     "[:80",
					  "[::1:80",     "::1:80",    "a b:80",
					  "a/b:80",      "user@a:80", "a%b:80",
					  "]:80",        "[[a]]:80",  "a\n:80",
					  "\xc3\xa4:80", "./a:80"};

	(void)state;
	for (size_t i = 0; i < N_ELEMENTS(bad); i++)
		refuse(bad[i]);
}

static void longest_host_is_bounded(void **state)
{
	char text[ADDRESS_HOST_SIZE + 4];

	(void)state;
	memset(text, 'a', sizeof(text));
	strcpy(text + ADDRESS_HOST_SIZE, ":80");
	refuse(text);
	strcpy(text + ADDRESS_HOST_SIZE - 1, ":80");
	text[ADDRESS_HOST_SIZE + 2] = '\0';
	{
		struct address address;
		char error[ERROR_SIZE];

		assert_int_equal(address_parse(text, &address, error, sizeof(error)), 0);
		assert_int_equal(strlen(address.host), ADDRESS_HOST_SIZE - 1);
	}
}

static void errors_fit_the_buffer(void **state)
{
	struct address address;
	char error[12];

	(void)state;
	memset(error, '#', sizeof(error));
	assert_int_equal(address_parse("nowhere", &address, error, 8), -EINVAL);
	assert_string_equal(error, "upstrea");
	assert_int_equal(error[8], '#');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_numbers_are_taken),
		cmocka_unit_test(paths_are_taken),
		cmocka_unit_test(paths_longer_than_a_socket_address_are_refused),
		cmocka_unit_test(ports_that_are_none_are_refused),
		cmocka_unit_test(hosts_that_are_none_are_refused),
		cmocka_unit_test(longest_host_is_bounded),
		cmocka_unit_test(errors_fit_the_buffer),
	};

	return UNIT_RUN("address", tests);
}
