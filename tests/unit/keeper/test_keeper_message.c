/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cmocka.h needs these four before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "keeper/message.h"

/* A buffer of exactly the size promised, so that the address sanitizer sees a step
 * beyond. */
static char *buffer;

static int parse_bytes(const char *bytes, size_t size, struct message *ret_message)
{
	free(buffer);
	buffer = malloc(size + 1);
	assert_non_null(buffer);
	memcpy(buffer, bytes, size);
	return message_parse(buffer, size, ret_message);
}

static struct message parse(const char *text)
{
	struct message message;

	assert_int_equal(parse_bytes(text, strlen(text), &message), 0);
	return message;
}

static int drop_buffer(void **state)
{
	(void)state;
	free(buffer);
	buffer = NULL;
	return 0;
}

static void storing_has_name_and_polling(void **state)
{
	struct message message = parse("FDSTORE=1\nFDNAME=p7\nFDPOLL=0");

	(void)state;
	assert_true(message.is_store);
	assert_true(message.is_poll_off);
	assert_false(message.is_store_remove);
	assert_string_equal(message.fd_name, "p7");
	assert_int_equal(message.n_assignments, 3);
	assert_null(message.malformed);

	message = parse("FDSTORE=1");
	assert_null(message.fd_name);
	assert_false(message.is_poll_off);
}

static void only_exact_values_switch_things_on(void **state)
{
	struct message message = parse("FDSTORE=0\nFDSTORE=11\nFDSTOREREMOVE=\nFDPOLL=1\n"
				       "BARRIER=0\nSTOPPING=2\nWATCHDOG=2\nFDSTORE");

	(void)state;
	assert_false(message.is_store);
	assert_false(message.is_store_remove);
	assert_false(message.is_poll_off);
	assert_false(message.is_barrier);
	assert_false(message.is_stopping);
	assert_int_equal(message.watchdog, MESSAGE_WATCHDOG_NONE);
}

static void bad_names_are_malformed(void **state)
{
	char text[512] = "FDSTOREREMOVE=1\nFDNAME=";
	struct message message = parse("FDSTORE=1\nFDNAME=a:b");

	(void)state;
	assert_true(message.is_store);
	assert_null(message.fd_name);
	assert_string_equal(message.malformed, "FDNAME=a:b");

	memset(text + strlen(text), 'n', 256);
	message = parse(text);
	assert_true(message.is_store_remove);
	assert_null(message.fd_name);
	assert_non_null(message.malformed);
}

static void first_of_two_values_counts(void **state)
{
	struct message message =
		parse("FDNAME=a\nFDNAME=b\nMAINPID=2\nMAINPID=3\nWATCHDOG_USEC=0\n"
		      "WATCHDOG_USEC=7");

	(void)state;
	assert_string_equal(message.fd_name, "a");
	assert_int_equal(message.main_pid, 2);
	assert_true(message.has_watchdog_usec);
	assert_int_equal(message.watchdog_usec, 0);
}

static void main_pid_is_a_positive_pid(void **state)
{
	const char *bad[] = {"MAINPID=",           "MAINPID=0",
			     "MAINPID=-1",         "MAINPID=+1",
			     "MAINPID= 1",         "MAINPID=1 ",
			     "MAINPID=2147483648", "MAINPID=x",
			     "MAINPID=0x1",        "MAINPID=99999999999999999999999"};
	struct message message;
	size_t i;

	(void)state;
	assert_int_equal(parse("MAINPID=2147483647").main_pid, 2147483647);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		message = parse(bad[i]);
		assert_int_equal(message.main_pid, 0);
		assert_string_equal(message.malformed, bad[i]);
	}
}

static void watchdog_values_are_told_apart(void **state)
{
	(void)state;
	assert_int_equal(parse("WATCHDOG=1").watchdog, MESSAGE_WATCHDOG_ALIVE);
	assert_int_equal(parse("WATCHDOG=trigger").watchdog, MESSAGE_WATCHDOG_TRIGGER);
	assert_true(parse("WATCHDOG_USEC=18446744073709551615").watchdog_usec ==
		    UINT64_MAX);
	assert_false(parse("WATCHDOG_USEC=18446744073709551616").has_watchdog_usec);
	assert_false(parse("WATCHDOG_USEC=-1").has_watchdog_usec);
}

static void unknown_assignments_are_ignored(void **state)
{
	struct message message = parse(
		"READY=1\nSTATUS=FDSTORE=1\nX_OWN=2\nnonsense\nERRNO=5\nRELOADING=1\n"
		"MONOTONIC_USEC=1\nSTOPPING=1");

	(void)state;
	assert_true(message.is_stopping);
	assert_false(message.is_store);
	assert_null(message.malformed);
	assert_int_equal(message.n_assignments, 8);
}

static void ready_and_status_are_known(void **state)
{
	struct message message =
		parse("READY=1\nSTATUS=7 connections: a=b\nSTATUS=later");

	(void)state;
	assert_true(message.is_ready);
	assert_string_equal(message.status, "7 connections: a=b");
	message = parse("READY=0\nSTATUS=");
	assert_false(message.is_ready);
	assert_string_equal(message.status, "");
	assert_null(parse("STATUS").status);
}

static void barrier_is_known_to_be_alone(void **state)
{
	struct message message = parse("BARRIER=1");

	(void)state;
	assert_true(message.is_barrier);
	assert_int_equal(message.n_assignments, 1);
	message = parse("\nBARRIER=1\n\n");
	assert_true(message.is_barrier);
	assert_int_equal(message.n_assignments, 1);
	assert_int_equal(parse("BARRIER=1\nREADY=1").n_assignments, 2);
}

static void nul_is_allowed_at_the_end_only(void **state)
{
	struct message message;

	(void)state;
	assert_int_equal(parse_bytes("FDSTORE=1", 10, &message), 0);
	assert_true(message.is_store);
	assert_int_equal(parse_bytes("FDSTORE=1\0", 11, &message), -EBADMSG);
	assert_int_equal(parse_bytes("FD\0STORE=1", 10, &message), -EBADMSG);
	assert_int_equal(parse_bytes("", 0, &message), -EBADMSG);
	assert_int_equal(parse_bytes("", 1, &message), -EBADMSG);
}

static void longest_message_is_parsed(void **state)
{
	static char text[MESSAGE_TEXT_MAX];
	struct message message;

	(void)state;
	memset(text, '\n', sizeof(text));
	memcpy(text + sizeof(text) - 9, "FDSTORE=1", 9);
	assert_int_equal(parse_bytes(text, sizeof(text), &message), 0);
	assert_true(message.is_store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(storing_has_name_and_polling),
		cmocka_unit_test(only_exact_values_switch_things_on),
		cmocka_unit_test(bad_names_are_malformed),
		cmocka_unit_test(first_of_two_values_counts),
		cmocka_unit_test(main_pid_is_a_positive_pid),
		cmocka_unit_test(watchdog_values_are_told_apart),
		cmocka_unit_test(unknown_assignments_are_ignored),
		cmocka_unit_test(ready_and_status_are_known),
		cmocka_unit_test(barrier_is_known_to_be_alone),
		cmocka_unit_test(nul_is_allowed_at_the_end_only),
		cmocka_unit_test(longest_message_is_parsed),
	};

	return cmocka_run_group_tests(tests, NULL, drop_buffer);
}
