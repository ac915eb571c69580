/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/time.h"

#define TRACKED 100

/* Standard error while a test logs: cmocka itself writes there when a test fails. */
struct capture {
	int saved;
	int read_fd;
};

static struct capture capture_begin(void)
{
	struct capture capture;
	int ends[2];

	(void)must(pipe2(ends, O_CLOEXEC));
	capture.saved = must(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3));
	capture.read_fd = ends[0];
	(void)must(dup2(ends[1], STDERR_FILENO));
	(void)close(ends[1]);
	log_init();
	return capture;
}

/* Restores standard error, with which the pipe ends, and gives what was written to it. */
static void capture_end(struct capture *capture, char *ret_text, size_t size)
{
	size_t length = 0;
	ssize_t n;

	(void)must(dup2(capture->saved, STDERR_FILENO));
	(void)close(capture->saved);
	while ((n = read(capture->read_fd, ret_text + length, size - 1 - length)) > 0)
		length += (size_t)n;
	ret_text[length] = '\0';
	(void)close(capture->read_fd);
}

static int reset_level(void **state)
{
	(void)state;
	log_set_max_level(LOG_INFO);
	return 0;
}

/* ---- levels ---- */

static void level_names_and_numbers_are_known(void **state)
{
	static const char *const names[] = {"emerg",   "alert",  "crit", "err",
					    "warning", "notice", "info", "debug"};

	(void)state;
	for (int level = LOG_EMERG; level <= LOG_DEBUG; level++) {
		char number[2] = {(char)('0' + level), '\0'};

		assert_int_equal(log_level_from_string(names[level]), level);
		assert_int_equal(log_level_from_string(number), level);
	}
}

static void other_levels_are_refused(void **state)
{
	static const char *const bad[] = {"",      "8",    "-1",    "00",
					  "error", "Info", "info ", "7x"};

	(void)state;
	for (size_t i = 0; i < N_ELEMENTS(bad); i++)
		assert_true(log_level_from_string(bad[i]) < 0);
}

static void lines_above_the_level_are_not_even_made(void **state)
{
	struct capture capture;
	char text[256];

	(void)state;
	log_set_max_level(LOG_WARNING);
	assert_true(log_is_level_enabled(LOG_ERR));
	assert_false(log_is_level_enabled(LOG_NOTICE));
	assert_null(log_line_new(LOG_NOTICE, NULL));
	capture = capture_begin();
	log_notice("not this");
	log_warning("this");
	log_error("and this");
	capture_end(&capture, text, sizeof(text));
	assert_string_equal(text, "<4>this\n<3>and this\n");
}

/* ---- standard error ---- */

static void line_has_its_level_and_its_text(void **state)
{
	struct capture capture = capture_begin();
	char text[256];

	(void)state;
	log_line(LOG_INFO, "0123456789abcdef0123456789abcdef", "pid: %i", 42);
	capture_end(&capture, text, sizeof(text));
	assert_string_equal(text, "<6>pid: 42\n");
}

static void line_stays_one_line(void **state)
{
	struct capture capture = capture_begin();
	char text[256];

	(void)state;
	log_info("one\ntwo\n");
	capture_end(&capture, text, sizeof(text));
	assert_string_equal(text, "<6>one two \n");
}

static void long_lines_are_whole(void **state)
{
	struct capture capture = capture_begin();
	static char text[20000], line[10000];

	(void)state;
	memset(line, 'x', sizeof(line) - 1);
	log_info("%s", line);
	capture_end(&capture, text, sizeof(text));
	assert_int_equal(strlen(text), strlen("<6>\n") + sizeof(line) - 1);
}

static void *log_long_line(void *line)
{
	log_info("%s", (const char *)line);
	return NULL;
}

static void long_lines_are_whole_where_standard_error_does_not_block(void **state)
{
	static char text[400000], line[200000];
	struct capture capture = capture_begin();
	pthread_t thread;

	(void)state;
	memset(line, 'x', sizeof(line) - 1);
	(void)must(fcntl(STDERR_FILENO, F_SETFL, O_NONBLOCK));
	assert_int_equal(pthread_create(&thread, NULL, log_long_line, line), 0);
	read_exactly(capture.read_fd, text, strlen("<6>\n") + sizeof(line) - 1);
	(void)pthread_join(thread, NULL);
	assert_int_equal(strspn(text + 3, "x"), sizeof(line) - 1);
	capture_end(&capture, text, sizeof(text));
	assert_string_equal(text, "");
}

static void entry_without_a_message_is_an_empty_line(void **state)
{
	struct capture capture;
	struct log_entry *entry = malloc(sizeof(*entry));
	char text[256];

	(void)state;
	assert_non_null(entry);
	log_entry_init(entry, LOG_INFO);
	log_entry_add(entry, "MESSAGE_ID=%s", "x");
	capture = capture_begin();
	log_entry_submit(entry);
	capture_end(&capture, text, sizeof(text));
	assert_string_equal(text, "<6>\n");
}

/* ---- entries ---- */

static void expect_field(const struct log_entry *entry, size_t i, const void *data,
			 size_t size)
{
	assert_true(i < entry->n_fields);
	assert_int_equal(entry->fields[i].iov_len, size);
	assert_memory_equal(entry->fields[i].iov_base, data, size);
}

static void fields_are_text_or_binary(void **state)
{
	struct log_entry entry;

	(void)state;
	log_entry_init(&entry, LOG_NOTICE);
	log_entry_add(&entry, "NUMBER=%i", 7);
	log_entry_add_data(&entry, "DATA", "a\0\n", 3);
	log_entry_add_data(&entry, "NOTHING", "", 0);
	assert_int_equal(entry.n_fields, 4);
	expect_field(&entry, 0, "PRIORITY=5", 10);
	expect_field(&entry, 1, "NUMBER=7", 8);
	expect_field(&entry, 2, "DATA=a\0\n", 8);
	expect_field(&entry, 3, "NOTHING=", 8);
	log_entry_done(&entry);
	assert_int_equal(entry.n_fields, 0);
}

static void fields_beyond_the_bound_are_left_out(void **state)
{
	struct log_entry entry;

	(void)state;
	log_entry_init(&entry, LOG_NOTICE);
	for (unsigned i = 0; i < 2 * LOG_FIELDS_MAX; i++)
		log_entry_add(&entry, "FIELD=%u", i);
	log_entry_add_data(&entry, "DATA", "x", 1);
	assert_int_equal(entry.n_fields, LOG_FIELDS_MAX);
	log_entry_done(&entry);
}

/* ---- with its thread: from here on there is no way back ---- */

static struct {
	pthread_mutex_t lock;
	unsigned n_done;
} tracked = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void count_done(struct log_entry *entry)
{
	pthread_mutex_lock(&tracked.lock);
	tracked.n_done++;
	pthread_mutex_unlock(&tracked.lock);
	log_entry_done(entry);
}

static unsigned n_tracked_done(void)
{
	unsigned n;

	pthread_mutex_lock(&tracked.lock);
	n = tracked.n_done;
	pthread_mutex_unlock(&tracked.lock);
	return n;
}

static void start_once(void)
{
	static bool started;

	if (!started)
		assert_int_equal(log_start(), 0);
	started = true;
}

static void flush_waits_until_all_is_written(void **state)
{
	struct capture capture = capture_begin();
	char text[4096];

	(void)state;
	start_once();
	for (unsigned i = 0; i < 100; i++)
		log_info("%u", i);
	log_flush(UNIT_PATIENCE_MSEC * USEC_PER_MSEC);
	capture_end(&capture, text, sizeof(text));
	assert_non_null(strstr(text, "<6>0\n<6>1\n"));
	assert_non_null(strstr(text, "<6>98\n<6>99\n"));
}

/* Lines of all sorts as they come out of a target that has stopped for a while. */
struct seen {
	unsigned n_lines;
	unsigned n_tracked;
	unsigned n_dropped; /* as was said */
	unsigned next_line; /* they are in order, whatever is missing */
};

static void see_line(struct seen *seen, const char *line)
{
	unsigned number;

	if (sscanf(line, "<6>line %u", &number) == 1) {
		assert_true(number >= seen->next_line);
		seen->next_line = number + 1;
		seen->n_lines++;
	} else if (strncmp(line, "<5>tracked", 10) == 0) {
		seen->n_tracked++;
	} else if (sscanf(line, "<4>The journal was too slow: %u log", &number) == 1) {
		seen->n_dropped += number;
	} else {
		fail_msg("unexpected line: %s", line);
	}
}

/* Reads until all of the n_lines are accounted for. */
static struct seen see_all(FILE *stream, unsigned n_lines)
{
	struct seen seen = {0};
	char line[256];

	while (seen.n_lines + seen.n_dropped < n_lines || seen.n_tracked < TRACKED) {
		if (!fgets(line, sizeof(line), stream))
			fail_msg("the log has ended too early");
		see_line(&seen, line);
	}
	return seen;
}

static void slow_target_costs_lines_which_are_counted_but_no_tracked_entry(void **state)
{
	enum { LINES = 3 * LOG_QUEUE_MAX };
	static struct log_entry entries[TRACKED];
	struct capture capture = capture_begin();
	struct seen seen = {0};
	FILE *stream;

	(void)state;
	start_once();
	(void)fcntl(STDERR_FILENO, F_SETPIPE_SZ, 4096);
	/* Nobody reads: the thread stands still in its write, and the queue fills */
	for (unsigned i = 0; i < LINES; i++)
		log_info("line %u", i);
	for (unsigned i = 0; i < TRACKED; i++) {
		log_entry_init(&entries[i], LOG_NOTICE);
		log_entry_add(&entries[i], "MESSAGE=tracked %u", i);
		entries[i].done = count_done;
		log_entry_submit(&entries[i]);
	}
	assert_int_equal(n_tracked_done(), 0);
	stream = fdopen(capture.read_fd, "r");
	if (stream)
		seen = see_all(stream, LINES);
	log_flush(UNIT_PATIENCE_MSEC * USEC_PER_MSEC);
	(void)must(dup2(capture.saved, STDERR_FILENO));
	(void)close(capture.saved);
	assert_non_null(stream);
	(void)fclose(stream);
	assert_true(seen.n_lines >= LOG_QUEUE_MAX);
	assert_true(seen.n_dropped > 0);
	assert_int_equal(seen.n_lines + seen.n_dropped, LINES);
	assert_int_equal(seen.n_tracked, TRACKED);
	assert_int_equal(n_tracked_done(), TRACKED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, reset_level)
	const struct CMUnitTest tests[] = {
		TEST(level_names_and_numbers_are_known),
		TEST(other_levels_are_refused),
		TEST(lines_above_the_level_are_not_even_made),
		TEST(line_has_its_level_and_its_text),
		TEST(line_stays_one_line),
		TEST(long_lines_are_whole),
		TEST(long_lines_are_whole_where_standard_error_does_not_block),
		TEST(entry_without_a_message_is_an_empty_line),
		TEST(fields_are_text_or_binary),
		TEST(fields_beyond_the_bound_are_left_out),
		TEST(flush_waits_until_all_is_written),
		TEST(slow_target_costs_lines_which_are_counted_but_no_tracked_entry),
	};

	return UNIT_RUN("log", tests);
}
