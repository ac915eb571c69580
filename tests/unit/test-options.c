/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <errno.h>
#include <string.h>
#include <syslog.h>

#include "base/time.h"
#include "holdfastd/options.h"

#define ARGUMENTS_MAX 8
#define ERROR_SIZE 256

/* getopt_long(3) permutes argv, so it gets one of its own. */
static int parse(const char *const *arguments, struct options *ret_options,
		 char *ret_error)
{
	static char name[] = "holdfastd";
	static char copies[ARGUMENTS_MAX][128]; /* the options point into them */
	char *argv[ARGUMENTS_MAX + 2] = {name};
	int n = 0;

	while (arguments[n]) {
		assert_true(n < ARGUMENTS_MAX &&
			    strlen(arguments[n]) < sizeof(copies[n]));
		argv[n + 1] = strcpy(copies[n], arguments[n]);
		n++;
	}
	return options_parse(n + 1, argv, ret_options, ret_error, ERROR_SIZE);
}

#define PARSE(options, error, ...) \
	parse((const char *const[]){__VA_ARGS__, NULL}, options, error)

/* Parses what must be refused; *ret_options must stay as it is, error is one line. */
static void refuse(const char *const *arguments, const char *expected)
{
	struct options options, before;
	char error[ERROR_SIZE] = "";

	memset(&options, 0x5a, sizeof(options));
	memcpy(&before, &options, sizeof(options));
	assert_int_equal(parse(arguments, &options, error), -EINVAL);
	assert_memory_equal(&options, &before, sizeof(options));
	assert_null(strchr(error, '\n'));
	if (!strstr(error, expected))
		fail_msg("\"%s\" does not say \"%s\"", error, expected);
}

#define REFUSE(expected, ...) refuse((const char *const[]){__VA_ARGS__, NULL}, expected)

static void service_alone_gets_the_defaults(void **state)
{
	struct options options;
	char error[ERROR_SIZE];

	(void)state;
	assert_int_equal(PARSE(&options, error, "log"), OPTIONS_RUN);
	assert_int_equal(options.service, SERVICE_LOG);
	assert_int_equal(options.buffer_bytes, 8);
	assert_int_equal(options.frame, FRAME_READ);
	assert_int_equal(options.n_threads, 0);
	assert_int_equal(options.connections_max, 0);
	assert_true(options.idle_timeout_usec == USEC_INFINITY);
	assert_true(options.exit_idle_usec == USEC_INFINITY);
	assert_true(options.connect_timeout_usec == 10 * USEC_PER_SEC);
	assert_true(options.keepalive_idle_usec == 60 * USEC_PER_SEC);
	assert_int_equal(options.log_level, LOG_INFO);
}

static void every_service_is_known(void **state)
{
	struct options options;
	char error[ERROR_SIZE];

	(void)state;
	assert_int_equal(PARSE(&options, error, "echo"), OPTIONS_RUN);
	assert_int_equal(options.service, SERVICE_ECHO);
	assert_int_equal(PARSE(&options, error, "relay", "db.internal:5432"),
			 OPTIONS_RUN);
	assert_int_equal(options.service, SERVICE_RELAY);
	assert_string_equal(options.upstream.host, "db.internal");
	assert_string_equal(options.upstream.port, "5432");
}

static void every_option_is_taken(void **state)
{
	struct options options;
	char error[ERROR_SIZE];

	(void)state;
	assert_int_equal(PARSE(&options, error, "--buffer=65536", "--frame=line",
			       "--threads=64", "--connections-max=262144", "log"),
			 OPTIONS_RUN);
	assert_int_equal(options.buffer_bytes, 65536);
	assert_int_equal(options.frame, FRAME_LINE);
	assert_int_equal(options.n_threads, 64);
	assert_int_equal(options.connections_max, 262144);
	assert_int_equal(PARSE(&options, error, "--idle-timeout=5min",
			       "--connect-timeout=2s", "--keepalive=30",
			       "--exit-idle-time=1h", "--log-level=debug", "echo"),
			 OPTIONS_RUN);
	assert_true(options.idle_timeout_usec == 300 * USEC_PER_SEC);
	assert_true(options.connect_timeout_usec == 2 * USEC_PER_SEC);
	assert_true(options.keepalive_idle_usec == 30 * USEC_PER_SEC);
	assert_true(options.exit_idle_usec == 3600 * USEC_PER_SEC);
	assert_int_equal(options.log_level, LOG_DEBUG);
	assert_null(options.control);
	assert_int_equal(PARSE(&options, error, "--control=/run/a:b/control", "echo"),
			 OPTIONS_RUN);
	assert_string_equal(options.control, "/run/a:b/control");
}

static void options_may_stand_anywhere_before_a_double_dash(void **state)
{
	struct options options;
	char error[ERROR_SIZE];

	(void)state;
	assert_int_equal(PARSE(&options, error, "log", "--buffer", "32"), OPTIONS_RUN);
	assert_int_equal(options.buffer_bytes, 32);
	assert_int_equal(PARSE(&options, error, "--", "echo"), OPTIONS_RUN);
	REFUSE("unexpected argument '--buffer=32'", "--", "log", "--buffer=32");
}

static void last_of_two_values_counts(void **state)
{
	struct options options;
	char error[ERROR_SIZE];

	(void)state;
	assert_int_equal(PARSE(&options, error, "--threads=2", "--threads=3", "log"),
			 OPTIONS_RUN);
	assert_int_equal(options.n_threads, 3);
}

static void help_and_version_need_no_service(void **state)
{
	struct options options;
	char error[ERROR_SIZE];

	(void)state;
	assert_int_equal(PARSE(&options, error, "--help"), OPTIONS_HELP);
	assert_int_equal(PARSE(&options, error, "-h"), OPTIONS_HELP);
	assert_int_equal(PARSE(&options, error, "--version"), OPTIONS_VERSION);
	assert_int_equal(PARSE(&options, error, "--threads=2", "--help"), OPTIONS_HELP);
}

static void help_names_every_option(void **state)
{
	static const char *const names[] = {
		"--buffer=",       "--frame=",
		"--threads=",      "--connections-max=",
		"--idle-timeout=", "--connect-timeout=",
		"--keepalive=",    "--exit-idle-time=",
		"--log-level=",    "--help",
		"--version",       "--control=",
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMENTS(names); i++)
		assert_non_null(strstr(options_help, names[i]));
}

static void numbers_out_of_range_are_refused_with_the_range(void **state)
{
	static const char *const bad[] = {"0",
					  "",
					  "-1",
					  "+1",
					  " 1",
					  "1 ",
					  "0x10",
					  "1k",
					  "65537",
					  "18446744073709551617",
					  "99999999999999999"};
	char option[64] = "--buffer=";

	(void)state;
	for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
		strcpy(option + strlen("--buffer="), bad[i]);
		REFUSE("give a number from 1 to 65536", option, "log");
	}
	REFUSE("--threads=65: give a number from 1 to 64", "--threads=65", "log");
	REFUSE("--connections-max=262145: give a number from 1 to 262144",
	       "--connections-max=262145", "log");
}

static void bad_values_are_named(void **state)
{
	(void)state;
	REFUSE("--frame=word", "--frame=word", "log");
	REFUSE("--frame=", "--frame=", "log");
	REFUSE("--log-level=loud", "--log-level=loud", "log");
	REFUSE("--idle-timeout=soon", "--idle-timeout=soon", "log");
	REFUSE("--idle-timeout=0", "--idle-timeout=0", "log");
	REFUSE("--connect-timeout=5parsecs", "--connect-timeout=5parsecs", "log");
	REFUSE("--exit-idle-time=-1", "--exit-idle-time=-1", "log");
	REFUSE("--control=: give an absolute path", "--control=", "log");
	REFUSE("--control=a/b: give an absolute path", "--control=a/b", "log");
}

static void keepalive_is_what_the_kernel_can_count(void **state)
{
	struct options options;
	char error[ERROR_SIZE];

	(void)state;
	assert_int_equal(PARSE(&options, error, "--keepalive=no", "log"), OPTIONS_RUN);
	assert_true(options.keepalive_idle_usec == USEC_INFINITY);
	assert_int_equal(PARSE(&options, error, "--keepalive=32767", "log"), OPTIONS_RUN);
	REFUSE("1s to 32767s", "--keepalive=32768", "log");
	REFUSE("1s to 32767s", "--keepalive=999ms", "log");
	REFUSE("1s to 32767s", "--keepalive=infinity", "log");
	REFUSE("1s to 32767s", "--keepalive=yes", "log");
}

static void unknown_options_are_named(void **state)
{
	(void)state;
	REFUSE("unknown option --bufer=8", "--bufer=8", "log");
	REFUSE("unknown option -x", "-x", "log");
	REFUSE("option --help=yes takes no value", "--help=yes", "log");
	REFUSE("option --version=1 takes no value", "--version=1", "log");
	REFUSE("option --buffer needs a value", "log", "--buffer");
}

static void missing_or_unknown_services_are_refused(void **state)
{
	(void)state;
	refuse((const char *const[]){NULL}, "no service was named");
	REFUSE("no service was named", "--threads=2");
	REFUSE("unknown service 'proxy'", "proxy");
	REFUSE("unknown service ''", "");
	REFUSE("relay needs an upstream", "relay");
	REFUSE("unexpected argument 'more'", "log", "more");
	REFUSE("unexpected argument 'more'", "relay", "a:1", "more");
	REFUSE("upstream 'a'", "relay", "a");
}

static void errors_fit_the_buffer(void **state)
{
	struct options options;
	char error[16], long_value[100] = "--frame=";

	(void)state;
	memset(long_value + 8, 'x', sizeof(long_value) - 9);
	long_value[sizeof(long_value) - 1] = '\0';
	memset(error, '#', sizeof(error));
	assert_int_equal(options_parse(3,
				       (char *[]){long_value, long_value, long_value,
						  NULL},
				       &options, error, 8),
			 -EINVAL);
	assert_int_equal(strlen(error), 7);
	assert_int_equal(error[8], '#');
}

static void time_spans_have_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t usec;
	} good[] = {
		{"1", USEC_PER_SEC},
		{"1s", USEC_PER_SEC},
		{"500ms", 500 * USEC_PER_MSEC},
		{"7us", 7},
		{"2min", 120 * USEC_PER_SEC},
		{"3h", 10800 * USEC_PER_SEC},
		{"1d", 86400 * USEC_PER_SEC},
		{"007", 7 * USEC_PER_SEC},
		{"999999999999us", 999999999999},
		{"infinity", USEC_INFINITY},
	};

	(void)state;
	for (size_t i = 0; i < N_ELEMENTS(good); i++) {
		uint64_t usec = 0;

		assert_int_equal(options_parse_usec(good[i].text, &usec), 0);
		assert_true(usec == good[i].usec);
	}
}

static void other_time_spans_are_refused(void **state)
{
	static const char *const bad[] = {"",   "s",    "-1",  "1 s", " 1",
					  "1m", "1.5s", "1e3", "inf"};
	static const char *const too_much[] = {"0", "0ms", "1000000000000",
					       "999999999999d",
					       "99999999999999999999999"};
	uint64_t usec = 42;

	(void)state;
	for (size_t i = 0; i < N_ELEMENTS(bad); i++)
		assert_int_equal(options_parse_usec(bad[i], &usec), -EINVAL);
	for (size_t i = 0; i < N_ELEMENTS(too_much); i++)
		assert_int_equal(options_parse_usec(too_much[i], &usec), -ERANGE);
	assert_true(usec == 42);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(service_alone_gets_the_defaults),
		cmocka_unit_test(every_service_is_known),
		cmocka_unit_test(every_option_is_taken),
		cmocka_unit_test(options_may_stand_anywhere_before_a_double_dash),
		cmocka_unit_test(last_of_two_values_counts),
		cmocka_unit_test(help_and_version_need_no_service),
		cmocka_unit_test(help_names_every_option),
		cmocka_unit_test(numbers_out_of_range_are_refused_with_the_range),
		cmocka_unit_test(bad_values_are_named),
		cmocka_unit_test(keepalive_is_what_the_kernel_can_count),
		cmocka_unit_test(unknown_options_are_named),
		cmocka_unit_test(missing_or_unknown_services_are_refused),
		cmocka_unit_test(errors_fit_the_buffer),
		cmocka_unit_test(time_spans_have_units),
		cmocka_unit_test(other_time_spans_are_refused),
	};

	return UNIT_RUN("options", tests);
}
