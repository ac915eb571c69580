/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What systemd itself makes of such files is compared in tests/system/test_generator.py. */
#include "unit.h"

#include <string.h>

#include "generator/environment.h"

#define VALUE_SIZE 64

static void finds(const char *text, const char *expected)
{
	char value[VALUE_SIZE];

	memset(value, 0x5a, sizeof(value));
	assert_true(
		environment_find(text, strlen(text), "SERVICE", value, sizeof(value)));
	assert_string_equal(value, expected);
}

static void finds_nothing(const char *text)
{
	char value[VALUE_SIZE];

	memset(value, 0x5a, sizeof(value));
	assert_false(
		environment_find(text, strlen(text), "SERVICE", value, sizeof(value)));
	assert_string_equal(value, "");
}

static void plain_values_are_found_wherever_they_stand(void **state)
{
	(void)state;
	finds("SERVICE=echo", "echo");
	finds("SERVICE=relay db:5432\n", "relay db:5432");
	finds("OPTIONS=--threads=2\n\n  SERVICE = \t relay /run/db\nX=y",
	      "relay /run/db");
	finds("SERVICE=echo\r\nX=y\r\n", "echo");
	finds("SERVICE=\nX=y", "");
}

static void last_assignment_counts(void **state)
{
	(void)state;
	finds("SERVICE=relay db:5432\nSERVICE=log\n", "log");
	finds("SERVICE=log\nSERVICE=relay db:5432", "relay db:5432");
	finds("SERVICE=relay db:5432\nSERVICE=\n", "");
}

static void other_names_are_not_taken_for_it(void **state)
{
	(void)state;
	finds_nothing("");
	finds_nothing("SERVICE");
	finds_nothing("SERVICE\n=echo");
	finds_nothing("SERVICES=echo\nMY_SERVICE=echo\nSERVIC=echo\nservice=echo\n=echo");
	finds_nothing("export SERVICE=echo\n");
	finds_nothing("OPTIONS=SERVICE=echo\n");
}

static void comments_end_with_their_line(void **state)
{
	(void)state;
	finds_nothing("#SERVICE=echo\n ; SERVICE=echo\n");
	finds("# it's \"one\"\nSERVICE=echo\n", "echo");
	finds("# one \\\nSERVICE=echo\n", "echo");
	finds("SERVICE=echo # none", "echo # none");
}

static void quotes_hold_blanks_and_lines_together(void **state)
{
	(void)state;
	finds("SERVICE=\"relay db:5432\"\n", "relay db:5432");
	finds("SERVICE='relay db:5432'\n", "relay db:5432");
	finds("SERVICE=\"relay\ndb:5432\"\n", "relay\ndb:5432");
	finds("SERVICE=\"relay\" ' db:5432'\n", "relay db:5432");
	finds("SERVICE=\"relay\" db:5432\n", "relaydb:5432");
	finds("SERVICE=re\"lay\n", "re\"lay");
	finds("SERVICE=\"relay db:5432", "relay db:5432");
	finds_nothing("X='\nSERVICE=echo\n'\n");
}

static void backslashes_escape_and_continue(void **state)
{
	(void)state;
	finds("SERVICE=relay \\\ndb:5432\n", "relay db:5432");
	finds("SERVICE=\\relay\\ db:5432\n", "relay db:5432");
	finds("SERVICE=\"a\\\"b\\\\c\\`\\$d\\e\\\nf\"\n", "a\"b\\c`$d\\ef");
	finds("SERVICE='a\\b'\n", "a\\b");
	finds("SERVICE=echo\\", "echo");
}

static void long_values_are_cut(void **state)
{
	char value[8];

	(void)state;
	memset(value, '#', sizeof(value));
	assert_true(environment_find("A=relay", 7, "A", value, 4));
	assert_string_equal(value, "rel");
	assert_int_equal(value[4], '#');
	assert_true(environment_find("A=relay", 6, "A", value, sizeof(value)));
	assert_string_equal(value, "rela");
}

static void zeros_are_bytes(void **state)
{
	static const char text[] = "\0\0SERVICE=a\n\0\nSERVICE=echo\n";
	char value[VALUE_SIZE];

	(void)state;
	assert_true(
		environment_find(text, sizeof(text), "SERVICE", value, sizeof(value)));
	assert_string_equal(value, "echo");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_values_are_found_wherever_they_stand),
		cmocka_unit_test(last_assignment_counts),
		cmocka_unit_test(other_names_are_not_taken_for_it),
		cmocka_unit_test(comments_end_with_their_line),
		cmocka_unit_test(quotes_hold_blanks_and_lines_together),
		cmocka_unit_test(backslashes_escape_and_continue),
		cmocka_unit_test(long_values_are_cut),
		cmocka_unit_test(zeros_are_bytes),
	};

	return UNIT_RUN("environment", tests);
}
