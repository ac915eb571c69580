/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <pthread.h>

#include "holdfastd/registry.h"

#define SLOTS 64
#define ROUNDS 20000

static char things[SLOTS];

/* Only to be told apart: the registry does not look into them. */
static struct connection *thing(unsigned i)
{
	return (struct connection *)(void *)&things[i];
}

static int setup(void **state)
{
	static struct registry registry;

	*state = &registry;
	return registry_init(&registry, SLOTS);
}

static int teardown(void **state)
{
	registry_done(*state);
	return 0;
}

static void what_is_added_is_found_by_its_worker_only(void **state)
{
	struct registry *registry = *state;
	unsigned worker;
	uint64_t id;

	assert_int_equal(registry_end(registry), 0);
	registry_add(registry, 5, 17, 2, thing(5));
	assert_int_equal(registry_end(registry), 6);
	assert_true(registry_look(registry, 5, &id, &worker));
	assert_int_equal(id, 17);
	assert_int_equal(worker, 2);
	assert_ptr_equal(registry_get(registry, 5, 17, 2), thing(5));
	assert_null(registry_get(registry, 5, 17, 1));
	assert_null(registry_get(registry, 5, 18, 2));
	assert_null(registry_get(registry, 4, 17, 2));
	assert_false(registry_look(registry, 4, &id, &worker));
}

static void what_is_removed_is_gone_and_the_slot_may_have_another(void **state)
{
	struct registry *registry = *state;
	unsigned worker;
	uint64_t id;

	registry_add(registry, 5, 17, 0, thing(5));
	registry_remove(registry, 5);
	assert_false(registry_look(registry, 5, &id, &worker));
	assert_null(registry_get(registry, 5, 17, 0));
	registry_add(registry, 5, 18, 1, thing(6));
	assert_null(registry_get(registry, 5, 17, 0));
	assert_ptr_equal(registry_get(registry, 5, 18, 1), thing(6));
	assert_int_equal(registry_end(registry), 6);
}

static void registry_that_was_never_made_finds_nothing(void **state)
{
	struct registry registry = {0};

	(void)state;
	registry_add(&registry, 5, 17, 0, thing(5));
	assert_int_equal(registry_end(&registry), 0);
	registry_remove(&registry, 5);
}

/* A worker with every other slot; what it gets is always its own. */
struct work {
	struct registry *registry;
	unsigned worker;
	unsigned n_wrong;
};

static void *work(void *userdata)
{
	struct work *work = userdata;

	for (uint64_t i = 0; i < ROUNDS; i++) {
		uint32_t slot = (uint32_t)(i * 2 + work->worker) % SLOTS;
		uint64_t id = i * 2 + work->worker + 1;

		registry_add(work->registry, slot, id, work->worker, thing(slot));
		if (registry_get(work->registry, slot, id, work->worker) != thing(slot))
			work->n_wrong++;
		registry_remove(work->registry, slot);
	}
	return NULL;
}

static void others_may_look_at_any_time(void **state)
{
	struct work works[2] = {{*state, 0, 0}, {*state, 1, 0}};
	pthread_t threads[2];
	unsigned worker;
	uint64_t id;

	for (size_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, work, &works[i]), 0);
	for (unsigned i = 0; i < ROUNDS; i++)
		if (registry_look(*state, i % SLOTS, &id, &worker))
			assert_int_equal(worker, i % 2);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(works[i].n_wrong, 0);
	}
	assert_int_equal(registry_end(*state), SLOTS);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_is_added_is_found_by_its_worker_only),
		TEST(what_is_removed_is_gone_and_the_slot_may_have_another),
		cmocka_unit_test(registry_that_was_never_made_finds_nothing),
		TEST(others_may_look_at_any_time),
	};

	return UNIT_RUN("registry", tests);
}
