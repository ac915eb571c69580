/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cmocka.h needs these four before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "keeper/fdname.h"

static void printable_ascii_without_colon_is_valid(void **state)
{
	(void)state;
	assert_true(fd_name_is_valid("p0"));
	assert_true(fd_name_is_valid(" ~"));
	assert_true(fd_name_is_valid("")); /* as with systemd */
	assert_false(fd_name_is_valid("a:b"));
	assert_false(fd_name_is_valid("a\x1f"));
	assert_false(fd_name_is_valid("a\x7f"));
	assert_false(fd_name_is_valid("\xc3\xa4"));
}

static void names_have_at_most_255_bytes(void **state)
{
	char name[FD_NAME_MAX + 2] = {0};

	(void)state;
	memset(name, 'n', FD_NAME_MAX);
	assert_true(fd_name_is_valid(name));
	name[FD_NAME_MAX] = 'n';
	assert_false(fd_name_is_valid(name));
}

static void addresses_become_legal_names(void **state)
{
	char name[FD_NAME_MAX + 1], text[2 * FD_NAME_MAX + 1] = {0};

	(void)state;
	fd_name_from_text("[::1]:8888", name);
	assert_string_equal(name, "[__1]_8888");
	fd_name_from_text("/run/\xc3\xa4", name);
	assert_string_equal(name, "/run/__");
	fd_name_from_text("", name);
	assert_string_equal(name, "listener");
	memset(text, ':', sizeof(text) - 1);
	fd_name_from_text(text, name);
	assert_true(fd_name_is_valid(name));
	assert_int_equal(strlen(name), FD_NAME_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(printable_ascii_without_colon_is_valid),
		cmocka_unit_test(names_have_at_most_255_bytes),
		cmocka_unit_test(addresses_become_legal_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
