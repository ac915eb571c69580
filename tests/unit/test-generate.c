/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "generator/generate.h"

#define TARGET "/usr/share/holdfast/relay.conf"

/* Directories of a test's own, and what the callback was told last. */
struct place {
	char configuration[64];
	char units[64];
};

static char failed_name[256];
static int failed_error;
static unsigned n_failed;

static void note_failure(const char *name, int r)
{
	(void)snprintf(failed_name, sizeof(failed_name), "%s", name);
	failed_error = r;
	n_failed++;
}

static void make_place(struct place *place)
{
	strcpy(place->configuration, "/tmp/test-generate-XXXXXX");
	strcpy(place->units, "/tmp/test-generate-XXXXXX");
	assert_non_null(mkdtemp(place->configuration));
	assert_non_null(mkdtemp(place->units));
	n_failed = 0;
}

static void remove_tree(const char *path)
{
	struct dirent *entry;
	DIR *directory = opendir(path);

	if (!directory) {
		must(unlink(path));
		return;
	}
	while ((entry = readdir(directory))) {
		char below[512];

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		(void)snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
		remove_tree(below);
	}
	(void)closedir(directory);
	must(rmdir(path));
}

static void remove_place(const struct place *place)
{
	remove_tree(place->configuration);
	remove_tree(place->units);
}

static void write_file(const struct place *place, const char *name, const char *text)
{
	char path[512]; /* a name may be long */
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", place->configuration, name);
	fd = must(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
	write_exactly(fd, text, strlen(text));
	(void)close(fd);
}

static void generate(const struct place *place)
{
	generate_drop_ins(place->configuration, place->units, TARGET, note_failure);
}

static bool has_drop_in(const struct place *place, const char *unit)
{
	char path[256], target[256] = "";

	(void)snprintf(path, sizeof(path), "%s/%s.d/" GENERATE_DROP_IN, place->units,
		       unit);
	if (readlink(path, target, sizeof(target) - 1) < 0)
		return false;
	assert_string_equal(target, TARGET);
	return true;
}

/* The entries of the units directory. */
static unsigned n_units(const struct place *place)
{
	DIR *directory = opendir(place->units);
	unsigned n = 0;

	assert_non_null(directory);
	while (readdir(directory))
		n++;
	(void)closedir(directory);
	return n - 2; /* . and .. */
}

static void only_relays_to_hosts_are_networked(void **state)
{
	(void)state;
	assert_true(generate_is_networked("relay db.internal:5432"));
	assert_true(generate_is_networked(" \trelay\t[::1]:5432 "));
	assert_false(generate_is_networked("relay /run/db.sock"));
	assert_false(generate_is_networked("relay"));
	assert_false(generate_is_networked("relay "));
	assert_false(generate_is_networked("relays db:5432"));
	assert_false(generate_is_networked("log relay db:5432"));
	assert_false(generate_is_networked("echo"));
	assert_false(generate_is_networked(""));
}

static void instances_are_parts_of_unit_names(void **state)
{
	char longest[256];

	(void)state;
	assert_true(generate_is_instance("127.0.0.1:5432"));
	assert_true(generate_is_instance("a-b_c@d\\x2d"));
	assert_false(generate_is_instance(""));
	assert_false(generate_is_instance("a b"));
	assert_false(generate_is_instance("a/b"));
	assert_false(generate_is_instance("a\xc3\xa4"));
	memset(longest, 'a', sizeof(longest));
	longest[255 - strlen("holdfast@.service")] = '\0';
	assert_true(generate_is_instance(longest));
	longest[strlen(longest)] = 'a';
	longest[256 - strlen("holdfast@.service")] = '\0';
	assert_false(generate_is_instance(longest));
}

static void relays_and_no_others_get_the_drop_in(void **state)
{
	struct place place;

	(void)state;
	make_place(&place);
	write_file(&place, "127.0.0.1:5432.conf", "SERVICE=relay db:5432\n");
	write_file(&place, "1.conf", "OPTIONS=--threads=2\n");
	write_file(&place, "2.conf", "SERVICE=relay /run/db.sock\n");
	write_file(&place, "3.conf.old", "SERVICE=relay db:5432\n");
	write_file(&place, "a b.conf", "SERVICE=relay db:5432\n");
	/* Its drop-in would be that of all instances */
	write_file(&place, ".conf", "SERVICE=relay db:5432\n");
	generate(&place);
	assert_true(has_drop_in(&place, "holdfast@127.0.0.1:5432.service"));
	assert_int_equal(n_units(&place), 1);
	assert_int_equal(n_failed, 0);
	remove_place(&place);
}

static void no_configuration_is_no_failure(void **state)
{
	struct place place;

	(void)state;
	make_place(&place);
	must(rmdir(place.configuration));
	generate(&place);
	assert_int_equal(n_failed, 0);
	must(mkdir(place.configuration, 0755));
	remove_place(&place);
}

static void what_can_not_be_read_stops_no_other(void **state)
{
	struct place place;
	char path[256];

	(void)state;
	make_place(&place);
	write_file(&place, "5432.conf", "SERVICE=relay db:5432\n");
	(void)snprintf(path, sizeof(path), "%s/fifo.conf", place.configuration);
	must(mkfifo(path, 0644));
	generate(&place);
	assert_true(has_drop_in(&place, "holdfast@5432.service"));
	assert_int_equal(n_failed, 1);
	assert_string_equal(failed_name, "fifo.conf");
	assert_int_equal(failed_error, -EINVAL);
	remove_place(&place);
}

static void huge_files_are_not_read(void **state)
{
	struct place place;
	char path[256];

	(void)state;
	make_place(&place);
	write_file(&place, "5432.conf", "SERVICE=relay db:5432\n");
	(void)snprintf(path, sizeof(path), "%s/5432.conf", place.configuration);
	must(truncate(path, 1LL << 40));
	generate(&place);
	assert_int_equal(n_failed, 1);
	assert_int_equal(failed_error, -EFBIG);
	assert_int_equal(n_units(&place), 0);
	remove_place(&place);
}

/* As the longest name of a unit is with the directory's .d behind it. */
static void name_that_is_too_long_for_a_drop_in_is_said(void **state)
{
	struct place place;
	char name[255 - sizeof("holdfast@.service") + sizeof(".conf") + 1];

	(void)state;
	make_place(&place);
	write_file(&place, "5432.conf", "SERVICE=relay db:5432\n");
	memset(name, 'a', sizeof(name) - 1);
	memcpy(name + sizeof(name) - sizeof(".conf"), ".conf", sizeof(".conf"));
	write_file(&place, name, "SERVICE=relay db:5432\n");
	generate(&place);
	assert_true(has_drop_in(&place, "holdfast@5432.service"));
	assert_int_equal(n_failed, 1);
	assert_string_equal(failed_name, name);
	assert_int_equal(failed_error, -ENAMETOOLONG);
	remove_place(&place);
}

static void missing_units_directory_is_said(void **state)
{
	struct place place;

	(void)state;
	make_place(&place);
	write_file(&place, "5432.conf", "SERVICE=relay db:5432\n");
	must(rmdir(place.units));
	generate(&place);
	assert_int_equal(n_failed, 1);
	assert_string_equal(failed_name, place.units);
	assert_int_equal(failed_error, -ENOENT);
	must(mkdir(place.units, 0755));
	remove_place(&place);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_relays_to_hosts_are_networked),
		cmocka_unit_test(instances_are_parts_of_unit_names),
		cmocka_unit_test(relays_and_no_others_get_the_drop_in),
		cmocka_unit_test(no_configuration_is_no_failure),
		cmocka_unit_test(what_can_not_be_read_stops_no_other),
		cmocka_unit_test(huge_files_are_not_read),
		cmocka_unit_test(name_that_is_too_long_for_a_drop_in_is_said),
		cmocka_unit_test(missing_units_directory_is_said),
	};

	return UNIT_RUN("generate", tests);
}
