/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Puts a load on a relay and says what it cost. --help says how it is used; run uses it. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "argument.h"
#include "base/time.h"
#include "limits.h"
#include "load.h"

#define CONNECTIONS_MAX 1000000
#define TIME_MAX_MSEC 3600000

static const char help_text[] =
	"load-client [OPTIONS] MODE HOST:PORT\n"
	"\n"
	"Loads what listens there, which has to be a load-server or to relay to one.\n"
	"\n"
	"  bulk      each connection sends what it can\n"
	"  echo      each connection has one message under way at all times\n"
	"  connect   the same, with a new connection for each message\n"
	"  hold      each has one message echoed, then \"held\" is printed, and they stay\n"
	"            open until stdin ends\n"
	"\n"
	"  --connections=N   at once (default: 1)\n"
	"  --bytes=N         size of a message (default: 64)\n"
	"  --warm-up=MSEC    before the window (default: 200)\n"
	"  --window=MSEC     what is measured (default: 1000)\n"
	"  --pid=PID         a process whose CPU time is wanted; may be repeated\n"
	"  --help\n"
	"\n"
	"Prints a line of JSON: the length of the window, the CPU time that the processes used\n"
	"in it, the bytes (bulk) and the operations. What does not return as it was sent is\n"
	"said on stderr, and the exit status is 1.\n";

static const char *const mode_names[] = {
	[LOAD_MODE_BULK] = "bulk",
	[LOAD_MODE_ECHO] = "echo",
	[LOAD_MODE_CONNECT] = "connect",
	[LOAD_MODE_HOLD] = "hold",
};

enum option_id {
	OPTION_CONNECTIONS = 256, /* above all characters, which getopt uses for itself */
	OPTION_BYTES,
	OPTION_WARM_UP,
	OPTION_WINDOW,
	OPTION_PID,
	OPTION_HELP,
};

static const struct option long_options[] = {
	{"connections", required_argument, NULL, OPTION_CONNECTIONS},
	{"bytes", required_argument, NULL, OPTION_BYTES},
	{"warm-up", required_argument, NULL, OPTION_WARM_UP},
	{"window", required_argument, NULL, OPTION_WINDOW},
	{"pid", required_argument, NULL, OPTION_PID},
	{"help", no_argument, NULL, OPTION_HELP},
	{0},
};

static int complain(const char *what)
{
	(void)fprintf(stderr, "load-client: %s; see --help\n", what);
	return -EINVAL;
}

static int parse_msec(const char *option, const char *text, uint64_t *ret_usec)
{
	uint32_t msec;
	int r = argument_parse_number(option, text, 1, TIME_MAX_MSEC, &msec);

	if (r == 0)
		*ret_usec = msec * USEC_PER_MSEC;
	return r;
}

static int parse_pid(const char *text, struct load_options *options)
{
	uint32_t pid;
	int r = argument_parse_number("pid", text, 1, INT32_MAX, &pid);

	if (r < 0)
		return r;
	if (options->n_pids == LOAD_PIDS_MAX)
		return complain("too many --pid=");
	options->pids[options->n_pids++] = (pid_t)pid;
	return 0;
}

static int parse_option(enum option_id id, const char *value,
			struct load_options *options)
{
	switch (id) {
	case OPTION_CONNECTIONS:
		return argument_parse_number("connections", value, 1, CONNECTIONS_MAX,
					     &options->n_connections);
	case OPTION_BYTES:
		return argument_parse_number("bytes", value, 1, LOAD_MESSAGE_MAX,
					     &options->message_bytes);
	case OPTION_WARM_UP:
		return parse_msec("warm-up", value, &options->warm_up_usec);
	case OPTION_WINDOW:
		return parse_msec("window", value, &options->window_usec);
	case OPTION_PID:
		return parse_pid(value, options);
	case OPTION_HELP:
		break;
	}
	return -EINVAL; /* getopt has said why */
}

static int parse_mode(const char *text, enum load_mode *ret_mode)
{
	for (size_t i = 0; i < sizeof(mode_names) / sizeof(*mode_names); i++)
		if (strcmp(text, mode_names[i]) == 0) {
			*ret_mode = (enum load_mode)i;
			return 0;
		}
	return complain("no such mode");
}

/* Returns 1 if the arguments make sense, 0 after --help, or -EINVAL after saying on
 * stderr what is wrong. */
static int parse(int argc, char *argv[], struct load_options *options)
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
	if (argc - optind != 2)
		return complain("give MODE and HOST:PORT after the options");
	r = parse_mode(argv[optind], &options->mode);
	if (r == 0)
		r = argument_parse_address(argv[optind + 1], &options->address,
					   &options->address_bytes);
	return r < 0 ? r : 1;
}

static void print(const struct load_result *result)
{
	(void)printf("{\"usec\": %" PRIu64 ", \"cpu_usec\": %" PRIu64
		     ", \"n_bytes\": %" PRIu64 ", \"n_operations\": %" PRIu64 "}\n",
		     result->usec, result->cpu_usec, result->n_bytes,
		     result->n_operations);
}

int main(int argc, char *argv[])
{
	struct load_options options = {
		.n_connections = 1,
		.message_bytes = 64,
		.warm_up_usec = 200 * USEC_PER_MSEC,
		.window_usec = 1 * USEC_PER_SEC,
	};
	char complaint[LOAD_COMPLAINT_SIZE] = "";
	struct load_result result;
	int r = parse(argc, argv, &options);

	if (r <= 0)
		return r < 0 ? 2 : EXIT_SUCCESS;
	limits_raise();
	r = load_run(&options, &result, complaint);
	if (r < 0)
		(void)fprintf(stderr, "load-client: %s\n",
			      *complaint ? complaint : strerror(-r));
	else
		print(&result);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
