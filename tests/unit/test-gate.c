/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The workers of these tests count plain numbers up between their visits to the gate, so
 * that under the thread sanitizer each look of the main thread that the gate does not
 * order is an error.
 */
#include "unit.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "base/time.h"
#include "holdfastd/gate.h"

#define WORKERS 3
#define PATIENCE_USEC (UNIT_PATIENCE_MSEC * USEC_PER_MSEC)

struct crowd;

struct member {
	struct crowd *crowd;
	pthread_t thread;
	uint64_t n_steps; /* its own, but for the time at the closed gate */
	uint64_t said;    /* by the main thread, to all */
	uint64_t heard;
};

struct crowd {
	struct gate gate;
	_Atomic bool is_over;
	_Atomic bool is_lazy; /* the first worker does not come to the gate */
	struct member members[WORKERS];
};

static void *work(void *userdata)
{
	struct member *member = userdata;
	struct crowd *crowd = member->crowd;

	while (!crowd->is_over) {
		bool is_lazy = crowd->is_lazy && member == &crowd->members[0];

		if (gate_is_closed(&crowd->gate) && !is_lazy)
			gate_pass(&crowd->gate);
		member->heard = member->said;
		member->n_steps++;
		(void)sched_yield();
	}
	return NULL;
}

static struct crowd *crowd_new(bool is_closed)
{
	struct crowd *crowd = calloc(1, sizeof(*crowd));

	assert_non_null(crowd);
	gate_init(&crowd->gate);
	if (is_closed)
		gate_close(&crowd->gate);
	for (size_t i = 0; i < WORKERS; i++) {
		crowd->members[i].crowd = crowd;
		assert_int_equal(pthread_create(&crowd->members[i].thread, NULL, work,
						&crowd->members[i]),
				 0);
	}
	return crowd;
}

static void crowd_free(struct crowd *crowd)
{
	crowd->is_over = true;
	gate_open(&crowd->gate);
	for (size_t i = 0; i < WORKERS; i++)
		assert_int_equal(pthread_join(crowd->members[i].thread, NULL), 0);
	free(crowd);
}

static bool all_come(struct crowd *crowd)
{
	return gate_wait_for_all(&crowd->gate, WORKERS, time_now_usec() + PATIENCE_USEC);
}

static void stop_all(struct crowd *crowd)
{
	gate_close(&crowd->gate);
	assert_true(gate_is_closed(&crowd->gate));
	assert_true(all_come(crowd));
}

/* They have all the time to go on, and do not. */
static void expect_stopped(const struct crowd *crowd, unsigned n_yields)
{
	uint64_t before[WORKERS];

	for (size_t i = 0; i < WORKERS; i++)
		before[i] = crowd->members[i].n_steps;
	while (n_yields-- > 0)
		(void)sched_yield();
	for (size_t i = 0; i < WORKERS; i++)
		assert_int_equal(crowd->members[i].n_steps, before[i]);
}

static void open_gate_lets_pass(void **state)
{
	struct gate gate;

	(void)state;
	gate_init(&gate);
	assert_false(gate_is_closed(&gate));
	gate_pass(&gate);
	gate_close(&gate);
	gate_open(&gate);
	gate_pass(&gate);
	assert_int_equal(gate.n_waiting, 0);
	/* With nobody to wait for, there is nothing to wait for */
	gate_close(&gate);
	assert_true(gate_wait_for_all(&gate, 0, 0));
}

static void workers_stop_and_go_on(void **state)
{
	struct crowd *crowd = crowd_new(false);

	(void)state;
	stop_all(crowd);
	expect_stopped(crowd, 100);
	gate_open(&crowd->gate);
	crowd_free(crowd);
}

static void closed_gate_holds_those_that_begin(void **state)
{
	struct crowd *crowd = crowd_new(true);

	(void)state;
	assert_true(all_come(crowd));
	for (size_t i = 0; i < WORKERS; i++)
		assert_int_equal(crowd->members[i].n_steps, 0);
	crowd_free(crowd);
}

static void each_sees_what_the_other_has_done(void **state)
{
	enum { ROUNDS = 2000 };
	struct crowd *crowd = crowd_new(false);
	uint64_t before[WORKERS] = {0};

	(void)state;
	for (uint64_t round = 1; round <= ROUNDS; round++) {
		stop_all(crowd);
		expect_stopped(crowd, 2);
		for (size_t i = 0; i < WORKERS; i++) {
			struct member *member = &crowd->members[i];

			/* A worker may not have left the gate since: it is at it */
			assert_true(member->n_steps >= before[i]);
			assert_true(member->heard <= member->said);
			if (member->n_steps > before[i])
				assert_int_equal(member->heard, member->said);
			before[i] = member->n_steps;
			member->said = round;
		}
		gate_open(&crowd->gate);
	}
	crowd_free(crowd);
}

static void one_that_does_not_come_is_not_waited_for_too_long(void **state)
{
	enum { WAIT_USEC = 20000 };
	struct crowd *crowd = crowd_new(false);
	uint64_t began;

	(void)state;
	crowd->is_lazy = true;
	gate_close(&crowd->gate);
	began = time_now_usec();
	/* Some time has to pass here for it to be seen that it is the time that ends it */
	assert_false(gate_wait_for_all(&crowd->gate, WORKERS, began + WAIT_USEC));
	assert_true(time_now_usec() - began >= WAIT_USEC);
	/* A time that has passed is no time */
	assert_false(gate_wait_for_all(&crowd->gate, WORKERS, 0));
	/* The others are there, and go on as well when it is given up */
	assert_true(gate_wait_for_all(&crowd->gate, WORKERS - 1,
				      time_now_usec() + PATIENCE_USEC));
	gate_open(&crowd->gate);
	crowd->is_lazy = false;
	stop_all(crowd);
	crowd_free(crowd);
}

static void late_one_is_still_waited_for(void **state)
{
	struct crowd *crowd = crowd_new(false);

	(void)state;
	crowd->is_lazy = true;
	gate_close(&crowd->gate);
	assert_false(gate_wait_for_all(&crowd->gate, WORKERS, 0));
	crowd->is_lazy = false;
	assert_true(all_come(crowd));
	crowd_free(crowd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(open_gate_lets_pass),
		cmocka_unit_test(workers_stop_and_go_on),
		cmocka_unit_test(closed_gate_holds_those_that_begin),
		cmocka_unit_test(each_sees_what_the_other_has_done),
		cmocka_unit_test(one_that_does_not_come_is_not_waited_for_too_long),
		cmocka_unit_test(late_one_is_still_waited_for),
	};

	return UNIT_RUN("gate", tests);
}
