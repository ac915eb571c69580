/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What holdfastctl makes of what it is told: text, JSON, tables, order. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/time.h"
#include "ctl/connections.h"
#include "ctl/format.h"
#include "ctl/json.h"
#include "ctl/table.h"
#include "ctl/targets.h"
#include "ctl/utf8.h"

/* What was written since output_begin(). */
static char *output;
static size_t output_size;

static FILE *output_begin(void)
{
	FILE *file = open_memstream(&output, &output_size);

	assert_non_null(file);
	return file;
}

static void expect_output(FILE *file, const char *expected)
{
	assert_int_equal(fclose(file), 0);
	assert_string_equal(output, expected);
	free(output);
}

/* ---- times and sizes ---- */

static void times_are_told_as_systemd_tells_them(void **state)
{
	static const struct {
		uint64_t usec;
		const char *text;
	} cases[] = {
		{0, "0"},
		{7, "7us"},
		{999, "999us"},
		{8765, "8ms"},
		{USEC_PER_SEC, "1s"},
		{192 * USEC_PER_SEC + 999999, "3min 12s"},
		{3600 * USEC_PER_SEC, "1h"},
		{90061 * USEC_PER_SEC, "1d 1h 1min 1s"},
		{31557600 * USEC_PER_SEC, "1y"},
	};
	char text[FORMAT_SIZE];

	(void)state;
	for (size_t i = 0; i < N_ELEMENTS(cases); i++)
		assert_string_equal(format_timespan(cases[i].usec, text), cases[i].text);
	/* The longest that there is fits */
	assert_true(strlen(format_timespan(UINT64_MAX, text)) < FORMAT_SIZE - 1);
}

static void pauses_are_told_with_their_fraction(void **state)
{
	char text[FORMAT_SIZE];

	(void)state;
	assert_string_equal(format_pause(0, text), "0");
	assert_string_equal(format_pause(149, text), "149us");
	assert_string_equal(format_pause(1204, text), "1.204ms");
	assert_string_equal(format_pause(120000, text), "120ms");
	assert_string_equal(format_pause(2500000, text), "2.5s");
	assert_string_equal(format_pause(61 * USEC_PER_SEC, text), "1min 1s");
}

static void sizes_are_told_in_powers_of_1024(void **state)
{
	char text[FORMAT_SIZE];

	(void)state;
	assert_string_equal(format_bytes(0, text), "0B");
	assert_string_equal(format_bytes(1023, text), "1023B");
	assert_string_equal(format_bytes(1024, text), "1K");
	assert_string_equal(format_bytes(1024 * 1024 - 1, text), "1023.9K");
	assert_string_equal(format_bytes(1258291, text), "1.1M");
	assert_string_equal(format_bytes(1258496, text), "1.2M");
	assert_string_equal(format_bytes(3ULL << 40, text), "3T");
	assert_string_equal(format_bytes(UINT64_MAX, text), "15.9E");
}

/* ---- JSON ---- */

static void utf8_is_what_rfc_3629_says(void **state)
{
	(void)state;
	assert_int_equal(utf8_length(""), 1);
	assert_int_equal(utf8_length("a"), 1);
	assert_int_equal(utf8_length("\xc3\xa9"), 2);
	assert_int_equal(utf8_length("\xe2\x82\xac"), 3);
	assert_int_equal(utf8_length("\xf0\x9f\x98\x80"), 4);
	assert_int_equal(utf8_length("\xf4\x8f\xbf\xbf"), 4);
	/* Continuations alone or missing, overlong ones, surrogates, what is too high */
	assert_int_equal(utf8_length("\x80"), 0);
	assert_int_equal(utf8_length("\xc3"), 0);
	assert_int_equal(utf8_length("\xe2\x82"), 0);
	assert_int_equal(utf8_length("\xc0\x80"), 0);
	assert_int_equal(utf8_length("\xe0\x80\x80"), 0);
	assert_int_equal(utf8_length("\xed\xa0\x80"), 0);
	assert_int_equal(utf8_length("\xf4\x90\x80\x80"), 0);
	assert_int_equal(utf8_length("\xff"), 0);
}

static void strings_of_json_are_escaped(void **state)
{
	FILE *file = output_begin();
	struct json json = json_begin(file, JSON_SHORT);

	(void)state;
	json_string(&json, "a\"b\\c\nd\te\x01\x7f\xc3\xa9\xff\xc3");
	json_end(&json);
	expect_output(file,
		      "\"a\\\"b\\\\c\\nd\\te\\u0001\\u007f\xc3\xa9\\ufffd\\ufffd\"\n");
}

static void write_all_kinds(struct json *json)
{
	json_open_array(json);
	json_open_object(json);
	json_name(json, "number");
	json_number(json, UINT64_MAX);
	json_name(json, "negative");
	json_integer(json, INT64_MIN);
	json_name(json, "true");
	json_bool(json, true);
	json_name(json, "none");
	json_open_array(json);
	json_close(json);
	json_close(json);
	json_string(json, "last");
	json_close(json);
	json_end(json);
}

static void short_json_is_one_line(void **state)
{
	FILE *file = output_begin();
	struct json json = json_begin(file, JSON_SHORT);

	(void)state;
	write_all_kinds(&json);
	expect_output(file,
		      "[{\"number\":18446744073709551615,\"negative\":-9223372036854775808,"
		      "\"true\":true,\"none\":[]},\"last\"]\n");
}

static void pretty_json_is_indented(void **state)
{
	FILE *file = output_begin();
	struct json json = json_begin(file, JSON_PRETTY);

	(void)state;
	write_all_kinds(&json);
	expect_output(file, "[\n\t{\n\t\t\"number\" : 18446744073709551615,\n"
			    "\t\t\"negative\" : -9223372036854775808,\n"
			    "\t\t\"true\" : true,\n\t\t\"none\" : []\n\t},\n"
			    "\t\"last\"\n]\n");
}

/* ---- tables ---- */

static struct table *make_table(void)
{
	static const char *const cells[] = {"NAME", "SIZE", "\xc3\xa9\x1b[1m", "12",
					    "",     "3",    "a\302\233b\377",  "456"};
	struct table *table = table_new(2);

	assert_non_null(table);
	for (size_t i = 0; i < N_ELEMENTS(cells); i++)
		assert_int_equal(table_add(table, cells[i], i % 2 == 1), 0);
	return table;
}

static void tables_are_aligned_and_safe_for_a_terminal(void **state)
{
	struct table_look look = {.has_header = true};
	struct table *table = make_table();
	FILE *file = output_begin();

	(void)state;
	table_print(table, &look, file);
	expect_output(file, "NAME  SIZE\n\xc3\xa9?[1m   12\n-        3\na?b?   456\n");
	(void)table_free(table);
}

static void tables_may_lack_header_rows_and_columns(void **state)
{
	struct table_look look = {.n_rows_max = 2, .width = 3};
	struct table *table = make_table();
	FILE *file = output_begin();

	(void)state;
	table_print(table, &look, file);
	expect_output(file, "\xc3\xa9?[\n-  \n");
	(void)table_free(table);
}

static void only_the_header_has_a_color(void **state)
{
	struct table_look look = {.has_header = true, .has_color = true, .n_rows_max = 1};
	struct table *table = make_table();
	FILE *file = output_begin();

	(void)state;
	table_print(table, &look, file);
	expect_output(file, "\x1b[0;1;4mNAME  SIZE\x1b[0m\n\xc3\xa9?[1m   12\n");
	(void)table_free(table);
}

static void text_is_cut_off_where_a_character_ends(void **state)
{
	char text[8];

	(void)state;
	assert_int_equal(utf8_copy_printable("a\033\302\233\377z", sizeof(text), text),
			 5);
	assert_string_equal(text, "a???z");
	assert_int_equal(utf8_copy_printable("12345\303\251", sizeof(text), text), 6);
	assert_string_equal(text, "12345\303\251");
	assert_int_equal(utf8_copy_printable("123456\303\251", sizeof(text), text), 6);
	assert_string_equal(text, "123456");
	assert_string_equal(PRINTABLE("\033]0;title\007"), "?]0;title?");
}

/* ---- order ---- */

static void expect_order(struct connection_rows *rows, const char *column, bool reverse,
			 const uint64_t ids[3])
{
	connection_rows_sort(rows, column ? column_find(column) : NULL, reverse);
	for (size_t i = 0; i < rows->n; i++)
		assert_int_equal(rows->list[i].id, ids[i]);
}

static void rows_are_sorted_by_any_column(void **state)
{
	struct connection_row list[] = {
		{.id = 20, .instance = (char[]){"a9"}, .peer = (char[]){"x"}, .sent = 5},
		{.id = 3, .instance = (char[]){"a10"}, .peer = (char[]){"y"}, .sent = 7},
		{.id = 10, .instance = (char[]){"a9"}, .peer = (char[]){"x"}, .sent = 6},
	};
	struct connection_rows rows = {.list = list, .n = N_ELEMENTS(list)};

	(void)state;
	expect_order(&rows, NULL, false, (uint64_t[]){10, 20, 3});
	expect_order(&rows, NULL, true, (uint64_t[]){3, 20, 10});
	expect_order(&rows, "id", false, (uint64_t[]){3, 10, 20});
	expect_order(&rows, "sent", true, (uint64_t[]){3, 10, 20});
	expect_order(&rows, "sent", false, (uint64_t[]){20, 10, 3});
	expect_order(&rows, "peer", false, (uint64_t[]){10, 20, 3});
	assert_null(column_find("no such"));
}

/* ---- instances ---- */

static void instances_are_found_in_the_order_of_their_names(void **state)
{
	char directory[] = "/tmp/test-ctl.XXXXXX", path[64];
	static const char *const names[] = {"10", "9", "without"};
	struct targets targets = {0};

	(void)state;
	assert_int_equal(targets_find(&targets, "/nonexistent"), 0);
	assert_non_null(mkdtemp(directory));
	for (size_t i = 0; i < N_ELEMENTS(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
		(void)must(mkdir(path, 0700));
		(void)snprintf(path, sizeof(path), "%s/%s/control", directory, names[i]);
		if (i < 2)
			assert_int_equal(fclose(fopen(path, "w")), 0);
	}
	assert_int_equal(targets_find(&targets, directory), 0);
	assert_int_equal(targets.n, 2);
	assert_string_equal(targets.list[0].name, "9");
	assert_string_equal(targets.list[1].name, "10");
	for (size_t i = 0; i < targets.n; i++)
		(void)must(unlink(targets.list[i].path));
	for (size_t i = 0; i < N_ELEMENTS(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
		(void)must(rmdir(path));
	}
	(void)must(rmdir(directory));
	targets_done(&targets);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(times_are_told_as_systemd_tells_them),
		cmocka_unit_test(pauses_are_told_with_their_fraction),
		cmocka_unit_test(sizes_are_told_in_powers_of_1024),
		cmocka_unit_test(utf8_is_what_rfc_3629_says),
		cmocka_unit_test(strings_of_json_are_escaped),
		cmocka_unit_test(short_json_is_one_line),
		cmocka_unit_test(pretty_json_is_indented),
		cmocka_unit_test(tables_are_aligned_and_safe_for_a_terminal),
		cmocka_unit_test(tables_may_lack_header_rows_and_columns),
		cmocka_unit_test(only_the_header_has_a_color),
		cmocka_unit_test(text_is_cut_off_where_a_character_ends),
		cmocka_unit_test(rows_are_sorted_by_any_column),
		cmocka_unit_test(instances_are_found_in_the_order_of_their_names),
	};

	return UNIT_RUN("ctl", tests);
}
