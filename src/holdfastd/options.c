/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "base/log.h"
#include "base/time.h"

const char options_help[] =
	"holdfastd [OPTIONS] log | echo | relay UPSTREAM\n"
	"\n"
	"A TCP service whose connections outlive its process. Started by socket activation:\n"
	"  systemctl enable --now holdfast@8888.socket\n"
	"or, where there is no systemd:\n"
	"  holdfast-keeper --listen=8888 -- holdfastd log\n"
	"\n"
	"Services:\n"
	"  log                      Each read becomes a line in the journal\n"
	"  echo                     Each byte goes back to where it came from\n"
	"  relay UPSTREAM           Each connection goes on to UPSTREAM, which is HOST:PORT,\n"
	"                           [IPv6]:PORT or /path\n"
	"\n"
	"Options:\n"
	"     --buffer=BYTES        log: the size of a read, 1 to 65536 (default: 8)\n"
	"     --frame=read|line     log: one entry for each read, or for each line\n"
	"                           (default: read)\n"
	"     --threads=N           Worker threads, 1 to 64 (default: the CPUs that the process\n"
	"                           may use)\n"
	"     --connections-max=N   Connections served at once, 1 to 262144; further ones wait\n"
	"                           (default: what the limit of open files allows)\n"
	"     --idle-timeout=TIME   Resets a connection on which no byte has moved for this long\n"
	"                           (default: infinity)\n"
	"     --connect-timeout=TIME  How long each address of UPSTREAM may take to answer\n"
	"                           (default: 10s)\n"
	"     --keepalive=TIME|no   After this long without a byte, asks a peer if it is still\n"
	"                           there; one that does not answer for a minute is gone\n"
	"                           (default: 60s)\n"
	"     --exit-idle-time=TIME Exits (status 77) when there has been no connection for this\n"
	"                           long; the next one starts the service again\n"
	"                           (default: infinity)\n"
	"     --takeover-timeout=TIME  How long the new process of a takeover (SIGUSR2, systemctl\n"
	"                           reload) may take until it is ready; the old one serves on\n"
	"                           after it (default: 10s)\n"
	"     --control=PATH        Where holdfastctl can ask this process (default: nowhere)\n"
	"     --log-level=LEVEL     emerg, alert, crit, err, warning, notice, info or debug\n"
	"                           (default: info)\n"
	"  -h --help                Shows this text\n"
	"     --version             Shows the version\n"
	"\n"
	"TIME is a number with a unit of us, ms, s, min, h or d (default: s), or infinity.\n";

enum {
	OPTION_BUFFER = 256,
	OPTION_FRAME,
	OPTION_THREADS,
	OPTION_CONNECTIONS_MAX,
	OPTION_IDLE_TIMEOUT,
	OPTION_CONNECT_TIMEOUT,
	OPTION_KEEPALIVE,
	OPTION_EXIT_IDLE_TIME,
	OPTION_TAKEOVER_TIMEOUT,
	OPTION_CONTROL,
	OPTION_LOG_LEVEL,
	OPTION_VERSION,
};

static const struct option long_options[] = {
	{"buffer", required_argument, NULL, OPTION_BUFFER},
	{"frame", required_argument, NULL, OPTION_FRAME},
	{"threads", required_argument, NULL, OPTION_THREADS},
	{"connections-max", required_argument, NULL, OPTION_CONNECTIONS_MAX},
	{"idle-timeout", required_argument, NULL, OPTION_IDLE_TIMEOUT},
	{"connect-timeout", required_argument, NULL, OPTION_CONNECT_TIMEOUT},
	{"keepalive", required_argument, NULL, OPTION_KEEPALIVE},
	{"exit-idle-time", required_argument, NULL, OPTION_EXIT_IDLE_TIME},
	{"takeover-timeout", required_argument, NULL, OPTION_TAKEOVER_TIMEOUT},
	{"control", required_argument, NULL, OPTION_CONTROL},
	{"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, OPTION_VERSION},
	{0},
};

struct error {
	char *text;
	size_t size;
};

__attribute__((format(printf, 2, 3))) static int refuse(const struct error *error,
							const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(error->text, error->size, format, arguments);
	va_end(arguments);
	return -EINVAL;
}

static int parse_number(const char *text, const char *option, unsigned long max,
			const struct error *error, unsigned long *ret_number)
{
	size_t length = strlen(text);
	unsigned long number = 0;

	if (length > 0 && length < 10 && strspn(text, "0123456789") == length)
		number = strtoul(text, NULL, 10);
	if (number < 1 || number > max)
		return refuse(error, "--%s=%s: give a number from 1 to %lu", option, text,
			      max);
	*ret_number = number;
	return 0;
}

static int unit_to_usec(const char *unit, uint64_t *ret_usec)
{
	static const struct {
		const char *name;
		uint64_t usec;
	} units[] = {
		{"", USEC_PER_SEC},
		{"s", USEC_PER_SEC},
		{"us", 1},
		{"ms", USEC_PER_MSEC},
		{"min", 60 * USEC_PER_SEC},
		{"h", 3600 * USEC_PER_SEC},
		{"d", 86400 * USEC_PER_SEC},
	};

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (strcmp(unit, units[i].name) == 0) {
			*ret_usec = units[i].usec;
			return 0;
		}
	return -EINVAL;
}

int options_parse_usec(const char *text, uint64_t *ret_usec)
{
	size_t n_digits = strspn(text, "0123456789");
	uint64_t number, unit;

	if (strcmp(text, "infinity") == 0) {
		*ret_usec = USEC_INFINITY;
		return 0;
	}
	if (n_digits == 0 || unit_to_usec(text + n_digits, &unit) < 0)
		return -EINVAL;
	if (n_digits > 12)
		return -ERANGE;
	number = strtoull(text, NULL, 10);
	if (number == 0 || number > USEC_INFINITY / 2 / unit)
		return -ERANGE;
	*ret_usec = number * unit;
	return 0;
}

static int parse_time(const char *text, const char *option, const struct error *error,
		      uint64_t *ret_usec)
{
	if (options_parse_usec(text, ret_usec) < 0)
		return refuse(
			error,
			"--%s=%s: give a time above 0 such as 500ms, 30s, 5min, or infinity",
			option, text);
	return 0;
}

static int parse_keepalive(const char *text, const struct error *error,
			   uint64_t *ret_usec)
{
	if (strcmp(text, "no") == 0) {
		*ret_usec = USEC_INFINITY;
		return 0;
	}
	/* The kernel counts in seconds up to 32767 (MAX_TCP_KEEPIDLE, include/net/tcp.h) */
	if (options_parse_usec(text, ret_usec) < 0 || *ret_usec < USEC_PER_SEC ||
	    *ret_usec > 32767 * USEC_PER_SEC)
		return refuse(error,
			      "--keepalive=%s: give a time from 1s to 32767s, or no",
			      text);
	return 0;
}

static int parse_takeover_timeout(const char *text, const struct error *error,
				  uint64_t *ret_usec)
{
	if (options_parse_usec(text, ret_usec) < 0 || *ret_usec == 0 ||
	    *ret_usec > TAKEOVER_TIMEOUT_USEC_MAX)
		return refuse(error,
			      "--takeover-timeout=%s: give a time above 0, up to 1min",
			      text);
	return 0;
}

static int parse_frame(const char *text, const struct error *error, enum frame *ret_frame)
{
	if (strcmp(text, "read") == 0)
		*ret_frame = FRAME_READ;
	else if (strcmp(text, "line") == 0)
		*ret_frame = FRAME_LINE;
	else
		return refuse(error, "--frame=%s: give read or line", text);
	return 0;
}

/*
 * The path is an option, not $RUNTIME_DIRECTORY: there a colon parts the directories, and
 * that of holdfast@127.0.0.1:5432 has one. How long it may be is not asked here: without
 * its control socket a service serves as well, without its options not at all.
 */
static int parse_control(const char *text, const struct error *error,
			 const char **ret_control)
{
	if (text[0] != '/')
		return refuse(error, "--control=%s: give an absolute path", text);
	*ret_control = text;
	return 0;
}

static int parse_log_level(const char *text, const struct error *error, int *ret_level)
{
	int level = log_level_from_string(text);

	if (level < 0)
		return refuse(error,
			      "--log-level=%s: give emerg, alert, crit, err, warning, notice, "
			      "info or debug",
			      text);
	*ret_level = level;
	return 0;
}

/* Returns OPTIONS_RUN to go on, another options_result to end, or -EINVAL. */
static int parse_option(int option, const char *value, const struct error *error,
			struct options *options)
{
	unsigned long number = 0;
	int r;

	switch (option) {
	case OPTION_BUFFER:
		r = parse_number(value, "buffer", BUFFER_BYTES_MAX, error, &number);
		options->buffer_bytes = number;
		return r;
	case OPTION_FRAME:
		return parse_frame(value, error, &options->frame);
	case OPTION_THREADS:
		r = parse_number(value, "threads", THREADS_MAX, error, &number);
		options->n_threads = (unsigned)number;
		return r;
	case OPTION_CONNECTIONS_MAX:
		r = parse_number(value, "connections-max", CONNECTIONS_MAX, error,
				 &number);
		options->connections_max = (unsigned)number;
		return r;
	case OPTION_IDLE_TIMEOUT:
		return parse_time(value, "idle-timeout", error,
				  &options->idle_timeout_usec);
	case OPTION_CONNECT_TIMEOUT:
		return parse_time(value, "connect-timeout", error,
				  &options->connect_timeout_usec);
	case OPTION_KEEPALIVE:
		return parse_keepalive(value, error, &options->keepalive_idle_usec);
	case OPTION_EXIT_IDLE_TIME:
		return parse_time(value, "exit-idle-time", error,
				  &options->exit_idle_usec);
	case OPTION_TAKEOVER_TIMEOUT:
		return parse_takeover_timeout(value, error,
					      &options->takeover_timeout_usec);
	case OPTION_CONTROL:
		return parse_control(value, error, &options->control);
	case OPTION_LOG_LEVEL:
		return parse_log_level(value, error, &options->log_level);
	case 'h':
		return OPTIONS_HELP;
	case OPTION_VERSION:
		return OPTIONS_VERSION;
	default:
		return -EINVAL;
	}
}

static int parse_service(int argc, char *argv[], const struct error *error,
			 struct options *options)
{
	int kind, n_wanted;

	if (argc < 1)
		return refuse(error,
			      "no service was named: give log, echo or relay UPSTREAM "
			      "(see --help)");
	kind = service_from_name(argv[0]);
	if (kind < 0)
		return refuse(error,
			      "unknown service '%s': give log, echo or relay UPSTREAM",
			      argv[0]);
	options->service = (enum service_kind)kind;
	n_wanted = kind == SERVICE_RELAY ? 2 : 1;
	if (argc < n_wanted)
		return refuse(error, "relay needs an upstream: relay HOST:PORT, relay "
				     "[IPv6]:PORT or relay /path");
	if (argc > n_wanted)
		return refuse(error, "unexpected argument '%s' after the service",
			      argv[n_wanted]);
	return kind == SERVICE_RELAY ? address_parse(argv[1], &options->upstream,
						     error->text, error->size)
				     : 0;
}

static int refuse_option(int option, char *argv[], const struct error *error)
{
	const char *text = argv[optind - 1];

	if (option == ':')
		return refuse(error, "option %s needs a value (see --help)", text);
	if (optopt >= OPTION_BUFFER || optopt == 'h')
		return refuse(error, "option %s takes no value (see --help)", text);
	if (optopt != 0)
		return refuse(error, "unknown option -%c (see --help)", optopt);
	return refuse(error, "unknown option %s (see --help)", text);
}

int options_parse(int argc, char *argv[], struct options *ret_options, char *ret_error,
		  size_t error_size)
{
	struct error error = {.text = ret_error, .size = error_size};
	struct options options = {
		.buffer_bytes = BUFFER_BYTES_DEFAULT,
		.frame = FRAME_READ,
		.idle_timeout_usec = USEC_INFINITY,
		.connect_timeout_usec = CONNECT_TIMEOUT_USEC_DEFAULT,
		.keepalive_idle_usec = KEEPALIVE_IDLE_USEC_DEFAULT,
		.exit_idle_usec = USEC_INFINITY,
		.takeover_timeout_usec = TAKEOVER_TIMEOUT_USEC_DEFAULT,
		.log_level = LOG_INFO,
	};
	int r;

	/* 0, not 1: getopt_long(3) then forgets what an earlier parse left behind */
	optind = 0;
	for (;;) {
		/* ':': the error is ours to tell */
		int option = getopt_long(argc, argv, ":h", long_options, NULL);

		if (option == -1)
			break;
		if (option == '?' || option == ':')
			return refuse_option(option, argv, &error);
		r = parse_option(option, optarg, &error, &options);
		if (r != OPTIONS_RUN)
			return r;
	}
	r = parse_service(argc - optind, argv + optind, &error, &options);
	if (r < 0)
		return r;
	*ret_options = options;
	return OPTIONS_RUN;
}
