/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfastctl: asks a running holdfastd. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/instance.h"
#include "ctl/verbs.h"

static const char help_text[] =
	"holdfastctl VERB INSTANCE | --socket=PATH [-- COMMAND ARGUMENTS...]\n"
	"\n"
	"Asks a running holdfastd: that of holdfast@INSTANCE.service, or the one that was\n"
	"started with --control=PATH.\n"
	"\n"
	"Verbs:\n"
	"  takeover          Replaces the process by a new one while its connections go on;\n"
	"                    returns when the new one serves. It is started by COMMAND, or by\n"
	"                    the command line of the present process. If it can't take over,\n"
	"                    the present one serves on, and the status is 1\n"
	"\n"
	"Options:\n"
	"     --socket=PATH  The control socket\n"
	"  -h --help         Shows this text\n"
	"     --version      Shows the version\n";

struct verb {
	const char *name;
	int (*run)(const struct request *request);
	bool takes_command;
};

static const struct verb verbs[] = {
	{"takeover", verb_takeover, true},
};

enum {
	OPTION_SOCKET = 256,
	OPTION_VERSION,
};

static const struct option long_options[] = {
	{"socket", required_argument, NULL, OPTION_SOCKET},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, OPTION_VERSION},
	{0},
};

struct command_line {
	const struct verb *verb;
	const char *answer; /* all there is to do, if set */
	struct request request;
	char path[INSTANCE_PATH_SIZE];
};

static int usage_error(const char *value, const char *expected)
{
	(void)fprintf(stderr, "holdfastctl: %s: %s (see --help)\n", value, expected);
	return -EINVAL;
}

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

/* Cuts off the command at the first "--", where getopt(3) would forget what was before. */
static int cut_command(int argc, char **argv, char ***ret_command)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--") == 0) {
			*ret_command = argv + i + 1;
			argv[i] = NULL;
			return i;
		}
	return argc;
}

static int take_options(int argc, char **argv, struct command_line *line)
{
	int option;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) >= 0)
		switch (option) {
		case OPTION_SOCKET:
			line->request.socket_path = optarg;
			break;
		case 'h':
			line->answer = help_text;
			return 0;
		case OPTION_VERSION:
			line->answer = "holdfastctl " HOLDFAST_VERSION "\n";
			return 0;
		case ':':
			return usage_error(argv[optind - 1], "needs a value");
		default:
			return usage_error(argv[optind - 1], "no such option");
		}
	return 0;
}

static int take_instance(const char *name, struct command_line *line)
{
	int r;

	if (line->request.socket_path) {
		line->request.instance = line->request.socket_path;
		return name ? usage_error(name, "give an INSTANCE or --socket=, not both")
			    : 0;
	}
	if (!name)
		return usage_error("no instance", "give its name, or --socket=PATH");
	r = instance_set_path(name, line->path);
	if (r < 0)
		return usage_error(name,
				   r == -ENAMETOOLONG
					   ? "the name is too long for a socket's path"
					   : "no name of an instance");
	line->request.instance = name;
	line->request.socket_path = line->path;
	return 0;
}

static int command_line_parse(int argc, char **argv, struct command_line *line)
{
	char **command = NULL;
	int n_words, r;

	argc = cut_command(argc, argv, &command);
	r = take_options(argc, argv, line);
	if (r < 0 || line->answer)
		return r;
	argv += optind;
	n_words = argc - optind;
	if (n_words == 0)
		return usage_error("no verb", "give one, such as takeover");
	line->verb = find_verb(argv[0]);
	if (!line->verb)
		return usage_error(argv[0], "unknown verb");
	if (n_words > 2)
		return usage_error(argv[2], "unexpected argument");
	if (command && !(line->verb->takes_command && command[0]))
		return usage_error("--", line->verb->takes_command
						 ? "a command has to follow"
						 : "this verb takes no command");
	line->request.command_line = command;
	return take_instance(n_words > 1 ? argv[1] : NULL, line);
}

int main(int argc, char **argv)
{
	struct command_line line = {0};

	if (command_line_parse(argc, argv, &line) < 0)
		return STATUS_USAGE;
	if (line.answer)
		return fputs(line.answer, stdout) < 0 || fflush(stdout) ? STATUS_FAILURE
									: EXIT_SUCCESS;
	return line.verb->run(&line.request);
}
