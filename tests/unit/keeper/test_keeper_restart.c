/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cmocka.h needs these four before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/time.h"
#include "keeper/restart.h"

#define MSEC USEC_PER_MSEC

static uint64_t now_usec;
static struct restart restart;

static int begin(void **state)
{
	(void)state;
	now_usec = 1000 * USEC_PER_SEC;
	restart_init(&restart);
	restart.is_prevented[2] = true;
	restart.is_prevented[RESTART_STATUS_IDLE] = true;
	return 0;
}

/* The service runs for up_usec and ends with status. */
static enum restart_action run(uint64_t up_usec, int status)
{
	restart_begin(&restart, now_usec);
	now_usec += up_usec;
	restart.last_status = status;
	return restart_decide(&restart, now_usec);
}

static void delay_doubles_to_its_bound(void **state)
{
	const uint64_t expected[] = {10,  20,   40,   80,   160,  320,
				     640, 1280, 2560, 5000, 5000, 5000};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		assert_int_equal(run(MSEC, RESTART_STATUS_NONE), RESTART_LATER);
		assert_int_equal(restart_wait_usec(&restart, now_usec),
				 expected[i] * MSEC);
		now_usec = restart.not_before_usec;
		assert_int_equal(restart_wait_usec(&restart, now_usec), 0);
		assert_int_equal(restart_wait_usec(&restart, now_usec + 1), 0);
	}
}

static void delay_starts_anew_after_a_steady_run(void **state)
{
	int i;

	(void)state;
	for (i = 0; i < 5; i++)
		(void)run(MSEC, 1);
	assert_int_equal(run(RESTART_STEADY_SEC * USEC_PER_SEC - 1, 1), RESTART_LATER);
	assert_int_equal(restart_wait_usec(&restart, now_usec), 320 * MSEC);
	assert_int_equal(run(RESTART_STEADY_SEC * USEC_PER_SEC, 1), RESTART_LATER);
	assert_int_equal(restart_wait_usec(&restart, now_usec), 10 * MSEC);
}

static void bound_may_be_zero(void **state)
{
	(void)state;
	restart.delay_max_usec = 0;
	assert_int_equal(run(0, 1), RESTART_LATER);
	assert_int_equal(restart_wait_usec(&restart, now_usec), 0);
	assert_int_equal(run(0, 1), RESTART_LATER);
	assert_int_equal(restart_wait_usec(&restart, now_usec), 0);
}

static void every_ordinary_end_means_a_restart(void **state)
{
	(void)state;
	assert_int_equal(run(0, 0), RESTART_LATER);
	assert_int_equal(run(0, 1), RESTART_LATER);
	assert_int_equal(run(0, 255), RESTART_LATER);
	assert_int_equal(run(0, RESTART_STATUS_NONE), RESTART_LATER);
}

static void prevented_status_does_not_give_up_the_store(void **state)
{
	(void)state;
	restart.is_holding = true;
	assert_int_equal(run(0, 2), RESTART_LATER);
}

static void prevented_status_is_passed_on(void **state)
{
	(void)state;
	assert_int_equal(run(0, 2), RESTART_NEVER);
	assert_int_equal(restart.exit_status, 2);
}

static void idle_waits_for_a_connection(void **state)
{
	(void)state;
	assert_int_equal(run(0, RESTART_STATUS_IDLE), RESTART_ON_CONNECTION);
	/* so that one that always leaves at once is no busy loop */
	assert_int_equal(restart_wait_usec(&restart, now_usec), 10 * MSEC);
	assert_int_equal(run(0, RESTART_STATUS_IDLE), RESTART_ON_CONNECTION);
	assert_int_equal(restart_wait_usec(&restart, now_usec), 20 * MSEC);
	restart.is_prevented[RESTART_STATUS_IDLE] = false;
	assert_int_equal(run(0, RESTART_STATUS_IDLE), RESTART_LATER);
}

static void what_was_asked_for_goes_first(void **state)
{
	(void)state;
	restart_begin(&restart, now_usec);
	restart.is_asked = true;
	restart.last_status = 2;
	assert_int_equal(restart_decide(&restart, now_usec), RESTART_NOW);
	restart.is_leaving = true;
	assert_int_equal(restart_decide(&restart, now_usec), RESTART_NEVER);
	assert_int_equal(restart.exit_status, 0);

	restart.is_leaving = false;
	assert_int_equal(run(0, 0), RESTART_LATER); /* asked for once */
}

int main(void)
{
#define restart_test(name) cmocka_unit_test_setup(name, begin)
	const struct CMUnitTest tests[] = {
		restart_test(delay_doubles_to_its_bound),
		restart_test(delay_starts_anew_after_a_steady_run),
		restart_test(bound_may_be_zero),
		restart_test(every_ordinary_end_means_a_restart),
		restart_test(prevented_status_does_not_give_up_the_store),
		restart_test(prevented_status_is_passed_on),
		restart_test(idle_waits_for_a_connection),
		restart_test(what_was_asked_for_goes_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
