/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfast-keeper: options. keeper.h says what it is for. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "keeper/keeper.h"
#include "keeper/say.h"

/* An exit status, of this program and of services by custom: it was used wrongly. */
#define STATUS_USAGE 2
#define TIME_MAX_SEC 31536000 /* a year */
#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)

enum option_id {
	OPTION_LISTEN = 256, /* above all characters, which getopt uses for itself */
	OPTION_NAME,
	OPTION_ON_DEMAND,
	OPTION_RESTART_DELAY_MAX,
	OPTION_RESTART_PREVENT,
	OPTION_STOP_TIMEOUT,
	OPTION_STORE_MAX,
	OPTION_WATCHDOG,
	OPTION_VERBOSE,
	OPTION_HELP,
	OPTION_VERSION,
};

static const struct option long_options[] = {
	{"listen", required_argument, NULL, OPTION_LISTEN},
	{"name", required_argument, NULL, OPTION_NAME},
	{"on-demand", no_argument, NULL, OPTION_ON_DEMAND},
	{"restart-delay-max", required_argument, NULL, OPTION_RESTART_DELAY_MAX},
	{"restart-prevent-exit-status", required_argument, NULL, OPTION_RESTART_PREVENT},
	{"stop-timeout", required_argument, NULL, OPTION_STOP_TIMEOUT},
	{"store-max", required_argument, NULL, OPTION_STORE_MAX},
	{"watchdog", required_argument, NULL, OPTION_WATCHDOG},
	{"verbose", no_argument, NULL, OPTION_VERBOSE},
	{"help", no_argument, NULL, OPTION_HELP},
	{"version", no_argument, NULL, OPTION_VERSION},
	{NULL, 0, NULL, 0},
};

static const char help_text[] =
	"holdfast-keeper --listen=ADDRESS... [OPTIONS] -- COMMAND [ARGUMENTS...]\n"
	"\n"
	"Listens, runs COMMAND with the listeners (sd_listen_fds(3)), keeps fds that it\n"
	"stores (sd_notify(3)), and starts it again with all of them when it ends.\n"
	"\n"
	"  --listen=ADDRESS  %s;\n"
	"                    may be given %d times\n"
	"  --name=NAME       their name in $LISTEN_FDNAMES (default: the address)\n"
	"  --on-demand       do not start COMMAND before the first connection\n"
	"  --store-max=N     fds that may be stored (default: %d)\n"
	"  --watchdog=SECONDS\n"
	"                    SIGABRT to a service without WATCHDOG=1 for so long\n"
	"                    (default: 0, never)\n"
	"  --stop-timeout=SECONDS\n"
	"                    from SIGTERM to SIGKILL (default: %d)\n"
	"  --restart-delay-max=SECONDS\n"
	"                    bound of the growing delay before a restart (default: %d)\n"
	"  --restart-prevent-exit-status=N[,N...]\n"
	"                    exit statuses of COMMAND with which the keeper ends, too,\n"
	"                    unless it holds stored fds;\n"
	"                    but after %d the next connection starts COMMAND again\n"
	"                    (default: %d,%d)\n"
	"  --verbose         say more: READY= and STATUS= of the service\n"
	"  --help, --version\n"
	"\n"
	"SIGHUP restarts the service, SIGTERM and SIGINT stop it and the keeper;\n"
	"SIGUSR2 is passed on to it: holdfastd lets a new process take over then.\n";

/* Returns the exit status. */
static int print_help(void)
{
	int n = printf(help_text, ADDRESS_FORMS, LISTENERS_MAX, KEEPER_STORE_MAX_DEFAULT,
		       KEEPER_STOP_TIMEOUT_SEC, RESTART_DELAY_MAX_SEC,
		       RESTART_STATUS_IDLE, STATUS_USAGE, RESTART_STATUS_IDLE);

	return n < 0 || fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS;
}

/* Returns the exit status. */
static int print_version(void)
{
	return puts("holdfast-keeper " HOLDFAST_VERSION) < 0 || fflush(stdout)
		       ? EXIT_FAILURE
		       : EXIT_SUCCESS;
}

static int usage_error(const char *option, const char *value, const char *expected)
{
	say_line(LOG_ERR, "%s%s: expected %s", option, value, expected);
	return -EINVAL;
}

static int parse_number(const char *text, unsigned long max, unsigned long *ret_number)
{
	unsigned long number;

	if (!*text || text[strspn(text, "0123456789")])
		return -EINVAL;
	errno = 0;
	number = strtoul(text, NULL, 10);
	if (errno || number > max)
		return -EINVAL;
	*ret_number = number;
	return 0;
}

static int parse_seconds(const char *option, const char *text, uint64_t *ret_usec)
{
	double seconds;
	char *end;

	seconds = strtod(text, &end);
	/* the first test leaves out signs, blanks, hexadecimals, "inf" and "nan" */
	if (!*text || text[strspn(text, "0123456789.")] || *end || seconds > TIME_MAX_SEC)
		return usage_error(option, text,
				   "seconds, as in 90 or 0.5, up to " STRING(
					   TIME_MAX_SEC));
	*ret_usec = (uint64_t)(seconds * (double)USEC_PER_SEC + 0.5);
	return 0;
}

static int parse_statuses(const char *text, struct keeper_options *options)
{
	char copy[1024], *rest = copy, *item;
	unsigned long status;

	memset(options->restart.is_prevented, 0, sizeof(options->restart.is_prevented));
	if ((size_t)snprintf(copy, sizeof(copy), "%s", text) >= sizeof(copy))
		copy[0] = '\0'; /* is no number, then */
	while ((item = strsep(&rest, ","))) {
		if (parse_number(item, RESTART_STATUSES - 1, &status) < 0)
			return usage_error("--restart-prevent-exit-status=", text,
					   "numbers from 0 to 255 with commas between");
		options->restart.is_prevented[status] = true;
	}
	return 0;
}

static int add_listen(const char *text, struct keeper_options *options)
{
	int r = listeners_add(&options->listeners, text);

	if (r == -E2BIG)
		return usage_error("--listen=", text,
				   "no more than " STRING(LISTENERS_MAX) " addresses");
	return r < 0 ? usage_error("--listen=", text, ADDRESS_FORMS) : 0;
}

static int parse_store_max(const char *text, struct keeper_options *options)
{
	unsigned long number;

	if (parse_number(text, KEEPER_STORE_MAX_LIMIT, &number) < 0)
		return usage_error("--store-max=", text,
				   "a number from 0 to " STRING(KEEPER_STORE_MAX_LIMIT));
	options->store_max = number;
	return 0;
}

/* getopt's two complaints: ':' and '?'. */
static int unknown_option(int id, const char *argument)
{
	if (id == ':')
		return usage_error(argument, "", "a value");
	return usage_error("unknown or misused option ", argument,
			   "one that --help lists");
}

struct command_line {
	struct keeper_options keeper;
	const char *name;
	bool is_verbose;
	int (*answer)(void); /* all there is to do, if set */
};

static int take_option(int id, const char *argument, struct command_line *line)
{
	switch (id) {
	case OPTION_LISTEN:
		return add_listen(optarg, &line->keeper);
	case OPTION_NAME:
		if (!fd_name_is_valid(optarg) || !*optarg)
			return usage_error("--name=", optarg,
					   "1 to 255 characters of ASCII without ':'");
		line->name = optarg;
		return 0;
	case OPTION_ON_DEMAND:
		line->keeper.is_on_demand = true;
		return 0;
	case OPTION_RESTART_DELAY_MAX:
		return parse_seconds("--restart-delay-max=", optarg,
				     &line->keeper.restart.delay_max_usec);
	case OPTION_RESTART_PREVENT:
		return parse_statuses(optarg, &line->keeper);
	case OPTION_STOP_TIMEOUT:
		return parse_seconds("--stop-timeout=", optarg,
				     &line->keeper.stop_timeout_usec);
	case OPTION_STORE_MAX:
		return parse_store_max(optarg, &line->keeper);
	case OPTION_WATCHDOG:
		return parse_seconds("--watchdog=", optarg, &line->keeper.watchdog_usec);
	case OPTION_VERBOSE:
		line->is_verbose = true;
		return 0;
	case OPTION_HELP:
		line->answer = print_help;
		return 0;
	case OPTION_VERSION:
		line->answer = print_version;
		return 0;
	default:
		return unknown_option(id, argument);
	}
}

static int command_line_parse(int argc, char **argv, struct command_line *line)
{
	int id, r;

	opterr = 0;
	/* '+': options end where the command begins; ':': tell a missing value apart */
	while ((id = getopt_long(argc, argv, "+:", long_options, NULL)) >= 0) {
		r = take_option(id, argv[optind - 1], line);
		if (r < 0 || line->answer)
			return r;
	}
	if (line->keeper.listeners.n == 0)
		return usage_error("no --listen=", "", "at least one: " ADDRESS_FORMS);
	if (optind == argc)
		return usage_error("no command", "",
				   "-- COMMAND ARGUMENTS... after the options");
	line->keeper.command = argv + optind;
	if (line->name)
		listeners_set_name(&line->keeper.listeners, line->name);
	return 0;
}

/* Else our sockets could become 0, 1 and 2, and what we say go to one of them. */
static void open_standard_fds(void)
{
	int fd;

	do
		fd = open("/dev/null",
			  O_RDWR); /* the lowest free one; inherited, like those */
	while (fd >= 0 && fd <= STDERR_FILENO);
	(void)fd_close(fd);
}

int main(int argc, char **argv)
{
	static struct command_line line;
	struct keeper_options *keeper = &line.keeper;

	keeper->store_max = KEEPER_STORE_MAX_DEFAULT;
	keeper->stop_timeout_usec = KEEPER_STOP_TIMEOUT_SEC * USEC_PER_SEC;
	restart_init(&keeper->restart);
	keeper->restart.is_prevented[STATUS_USAGE] = true;
	keeper->restart.is_prevented[RESTART_STATUS_IDLE] = true;
	open_standard_fds();
	say_start(false);
	if (command_line_parse(argc, argv, &line) < 0)
		return STATUS_USAGE;
	if (line.answer)
		return line.answer();
	say_start(line.is_verbose);
	return keeper_run(keeper);
}
