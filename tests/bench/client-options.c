/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client-options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "argument.h"
#include "base/time.h"
#include "conversation.h"

#define INTERVAL_MAX_MSEC 60000
#define TIME_MAX_SEC 86400

static const char help_text[] =
	"pause-client [OPTIONS] HOST:PORT\n"
	"\n"
	"Measures the longest pause that the peers of an echo service see: numbered messages\n"
	"at fixed times on some of many connections. Each latency counts from the time at\n"
	"which its message was due, so a pause that delays the sending is seen as well.\n"
	"\n"
	"  --connections=N    connections (default: 100)\n"
	"  --active=N         of those, the ones with messages all the time, spread evenly;\n"
	"                     the others have one at the start and one at the end\n"
	"                     (default: 50, or all if there are fewer)\n"
	"  --bytes=N          size of a message (default: 64)\n"
	"  --interval=MSEC    from one message of a connection to its next (default: 5);\n"
	"                     connections take turns evenly in it\n"
	"  --seconds=N        ends after so long\n"
	"  --timeout=SECONDS  gives up on an answer after so long (default: 60)\n"
	"  --help\n"
	"\n"
	"Prints \"ready\" once each connection has echoed a message. Then reads commands from\n"
	"stdin:\n"
	"  mark NAME          begins a new window. When all messages that were due before\n"
	"                     it have been answered, the line of the window before (the first\n"
	"                     is called start) is printed, then \"marked NAME\".\n"
	"  end                ends, as do the end of stdin (without --seconds=) and SIGTERM:\n"
	"                     prints the last window, has each idle connection echo once more,\n"
	"                     half-closes all, waits for their ends and prints \"ended\".\n"
	"\n"
	"A window is a line of JSON; max_usec is the longest pause that a connection has seen,\n"
	"late_max_usec how late this program itself was with a message. Whatever is lost,\n"
	"repeated, changed or reset is said on stderr, and the exit status is 1.\n";

enum option_id {
	OPTION_CONNECTIONS = 256, /* above all characters, which getopt uses for itself */
	OPTION_ACTIVE,
	OPTION_BYTES,
	OPTION_INTERVAL,
	OPTION_SECONDS,
	OPTION_TIMEOUT,
	OPTION_HELP,
};

static const struct option long_options[] = {
	{"connections", required_argument, NULL, OPTION_CONNECTIONS},
	{"active", required_argument, NULL, OPTION_ACTIVE},
	{"bytes", required_argument, NULL, OPTION_BYTES},
	{"interval", required_argument, NULL, OPTION_INTERVAL},
	{"seconds", required_argument, NULL, OPTION_SECONDS},
	{"timeout", required_argument, NULL, OPTION_TIMEOUT},
	{"help", no_argument, NULL, OPTION_HELP},
	{0},
};

static int parse_time(const char *option, const char *text, uint32_t max,
		      uint64_t unit_usec, uint64_t *ret_usec)
{
	uint32_t number;
	int r = argument_parse_number(option, text, 1, max, &number);

	if (r == 0)
		*ret_usec = number * unit_usec;
	return r;
}

static int parse_option(enum option_id id, const char *value,
			struct client_options *options)
{
	switch (id) {
	case OPTION_CONNECTIONS:
		return argument_parse_number("connections", value, 1, CONNECTIONS_MAX,
					     &options->n_connections);
	case OPTION_ACTIVE:
		return argument_parse_number("active", value, 1, CONNECTIONS_MAX,
					     &options->n_active);
	case OPTION_BYTES:
		return argument_parse_number("bytes", value, MESSAGE_BYTES_MIN,
					     MESSAGE_BYTES_MAX, &options->message_bytes);
	case OPTION_INTERVAL:
		return parse_time("interval", value, INTERVAL_MAX_MSEC, USEC_PER_MSEC,
				  &options->interval_usec);
	case OPTION_SECONDS:
		return parse_time("seconds", value, TIME_MAX_SEC, USEC_PER_SEC,
				  &options->run_usec);
	case OPTION_TIMEOUT:
		return parse_time("timeout", value, TIME_MAX_SEC, USEC_PER_SEC,
				  &options->timeout_usec);
	case OPTION_HELP:
		break;
	}
	return -EINVAL; /* getopt has said why */
}

static int parse_arguments(int argc, char *argv[], struct client_options *options)
{
	int id, r;

	while ((id = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
		if (id == OPTION_HELP)
			return fputs(help_text, stdout) < 0 || fflush(stdout) ? -EINVAL
									      : 0;
		r = parse_option((enum option_id)id, optarg, options);
		if (r < 0)
			return r;
	}
	if (argc - optind != 1) {
		(void)fputs("pause-client: give one HOST:PORT after the options; see "
			    "--help\n",
			    stderr);
		return -EINVAL;
	}
	r = argument_parse_address(argv[optind], &options->address,
				   &options->address_bytes);
	return r < 0 ? r : 1;
}

int client_options_parse(int argc, char *argv[], struct client_options *ret_options)
{
	struct client_options options = {
		.n_connections = 100,
		.n_active = 50,
		.message_bytes = 64,
		.interval_usec = 5 * USEC_PER_MSEC,
		.run_usec = USEC_INFINITY,
		.timeout_usec = 60 * USEC_PER_SEC,
	};
	int r = parse_arguments(argc, argv, &options);

	if (r <= 0)
		return r;
	if (options.n_active > options.n_connections)
		options.n_active = options.n_connections;
	*ret_options = options;
	return 1;
}
