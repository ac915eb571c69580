/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "fake-manager.h"
#include "vault/store.h"
#include "vault/vault.h"

/* ---- names ---- */

static void every_parcel_name_gives_its_index(void **state)
{
	char name[STORE_NAME_SIZE];

	(void)state;
	for (unsigned i = 0; i < VAULT_PARCELS_MAX; i++) {
		store_parcel_name(i, name);
		assert_int_equal(store_parcel_index(name, VAULT_PARCELS_MAX), i);
	}
}

static void largest_index_fits_a_name(void **state)
{
	char name[STORE_NAME_SIZE];

	(void)state;
	store_parcel_name(UINT32_MAX, name);
	assert_string_equal(name, "p4294967295");
}

/* execve(2) gives one string 128 KiB, and the names of all fds share one. */
static void names_of_a_full_store_fit_one_string(void **state)
{
	size_t size = strlen("LISTEN_FDNAMES=" STORE_NAME_LEDGER ":" STORE_NAME_PROBE);
	char name[STORE_NAME_SIZE];

	(void)state;
	for (unsigned i = 0; i < VAULT_PARCELS_MAX; i++) {
		store_parcel_name(i, name);
		size += 1 + strlen(name);
	}
	assert_true(size < 131072 / 2);
}

static void other_names_are_no_parcels(void **state)
{
	static const char *const bad[] = {
		"",
		"p",
		"q0",
		"P0",
		"p-1",
		"p+1",
		"p 1",
		"p1 ",
		"p01",
		"p00",
		"p0x1",
		"p1.0",
		"p1p",
		" p1",
		"ledger",
		"probe",
		"stored",
		"p4294967296",
		"p99999999999999999999",
		"p18446744073709551616",
		"p18446744069414584321",
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMENTS(bad); i++)
		if (store_parcel_index(bad[i], VAULT_PARCELS_MAX) != -EINVAL)
			fail_msg("'%s' passes for a parcel", bad[i]);
}

static void index_beyond_the_limit_is_refused(void **state)
{
	(void)state;
	assert_int_equal(store_parcel_index("p9", 10), 9);
	assert_int_equal(store_parcel_index("p10", 10), -EINVAL);
	assert_int_equal(store_parcel_index("p0", 0), -EINVAL);
}

/* ---- with a manager ---- */

static int setup(void **state)
{
	*state = fake_manager_new(3);
	return 0;
}

static int teardown(void **state)
{
	*state = fake_manager_free(*state);
	return 0;
}

static void what_is_put_is_kept_unwatched_until_removed(void **state)
{
	struct fake_manager *manager = *state;
	int token = token_new(5), kept;

	assert_true(store_is_there());
	assert_int_equal(store_put(token, "p5"), 0);
	fake_manager_sync(manager);
	assert_int_equal(fake_manager_count(manager, "p5"), 1);
	assert_int_equal(fake_manager_watched(manager), 0);
	kept = fake_manager_get(manager, "p5");
	assert_int_equal(token_id(kept), 5);
	assert_int_equal(store_remove("p5"), 0);
	fake_manager_sync(manager);
	assert_int_equal(fake_manager_count(manager, NULL), 0);
	(void)close(kept);
	(void)close(token);
}

static void without_a_manager_nothing_can_be_stored(void **state)
{
	struct store_probe probe;
	char *before = strdup(getenv("NOTIFY_SOCKET"));
	unsigned n_fds = count_fds();
	int token = token_new(1);

	(void)state;
	(void)unsetenv("NOTIFY_SOCKET");
	assert_false(store_is_there());
	assert_int_equal(store_put(token, "p0"), -ENOTCONN);
	assert_int_equal(store_remove("p0"), -ENOTCONN);
	assert_int_equal(store_probe_start(&probe), -ENOTCONN);
	(void)close(token);
	assert_int_equal(count_fds(), n_fds);
	(void)setenv("NOTIFY_SOCKET", before, 1);
	free(before);
}

static bool probe(void)
{
	struct store_probe under_way;
	bool taken;

	assert_int_equal(store_probe_start(&under_way), 0);
	assert_true(wait_for(under_way.barrier_fd, 0) & POLLHUP);
	taken = store_probe_finish(&under_way);
	assert_int_equal(under_way.barrier_fd, -EBADF);
	assert_int_equal(under_way.probe_fd, -EBADF);
	return taken;
}

static void probe_tells_whether_all_before_it_was_taken(void **state)
{
	struct fake_manager *manager = *state;
	unsigned n_fds = count_fds();

	for (uint64_t i = 0; i < 4; i++) {
		char name[STORE_NAME_SIZE];
		int token = token_new(i);

		store_parcel_name((unsigned)i, name);
		assert_int_equal(store_put(token, name), 0);
		(void)close(token);
		/* Three fit, and the probe is one of them */
		assert_int_equal(probe(), i < 2);
	}
	assert_int_equal(store_remove("p0"), 0);
	assert_int_equal(store_remove("p1"), 0);
	assert_true(probe());
	fake_manager_sync(manager);
	/* Of the probes none is left */
	assert_int_equal(fake_manager_count(manager, STORE_NAME_PROBE), 0);
	assert_int_equal(count_fds(), n_fds + fake_manager_count(manager, NULL));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_parcel_name_gives_its_index),
		cmocka_unit_test(largest_index_fits_a_name),
		cmocka_unit_test(names_of_a_full_store_fit_one_string),
		cmocka_unit_test(other_names_are_no_parcels),
		cmocka_unit_test(index_beyond_the_limit_is_refused),
		TEST(what_is_put_is_kept_unwatched_until_removed),
		TEST(without_a_manager_nothing_can_be_stored),
		TEST(probe_tells_whether_all_before_it_was_taken),
	};

	return UNIT_RUN("store", tests);
}
