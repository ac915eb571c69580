/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* holdfastctl: asks running holdfastds. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/connections.h"
#include "ctl/instance.h"
#include "ctl/verbs.h"

static const char help_text[] =
	"holdfastctl [OPTIONS...] [VERB] [ID] [INSTANCE... | --socket=PATH]\n"
	"\n"
	"Asks running holdfastds: those of holdfast@INSTANCE.service, or the one that was\n"
	"started with --control=PATH. Without either, all that have a control socket in a\n"
	"directory below " TARGETS_DIRECTORY ".\n"
	"\n"
	"Verbs:\n"
	"  list [INSTANCE...]        Their connections (without a verb, too)\n"
	"  show ID [INSTANCE]        One connection, in full\n"
	"  close ID [INSTANCE]       Ends a connection: takes no more from its peers, delivers\n"
	"                            what is pending, then closes both sides. Does not wait\n"
	"                            until that is done\n"
	"  status [INSTANCE...]      The processes, what they hold, and the last restart\n"
	"  metrics [INSTANCE...]     The same in the text format of OpenMetrics\n"
	"  watch [INSTANCE...]       The list on the whole terminal, again and again;\n"
	"                            q leaves\n"
	"  audit INSTANCE            Proves for each connection that no byte was lost or\n"
	"                            repeated, by the kernel's own counts. Shows those for\n"
	"                            which this fails, which are reset; the status is 1 then\n"
	"  takeover INSTANCE [-- COMMAND ARGUMENTS...]\n"
	"                            Replaces the process by a new one while its connections\n"
	"                            go on; returns when the new one serves. It is started by\n"
	"                            COMMAND, or by the command line of the present process.\n"
	"                            If it can't take over, the present one serves on, and\n"
	"                            the status is 1\n"
	"\n"
	"Options:\n"
	"     --socket=PATH          The control socket\n"
	"     --sort=COLUMN          Sorts by a column: id, instance, service, peer, listener,\n"
	"                            upstream, age, idle, received, sent, pending, restarts,\n"
	"                            worker, state\n"
	"     --reverse              The last one first\n"
	"     --json=short|pretty|off\n"
	"     --all                  audit: shows all connections\n"
	"     --reset                close: resets both sides at once\n"
	"     --no-legend            No header, and nothing below\n"
	"     --no-pager\n"
	"  -h --help                 Shows this text\n"
	"     --version              Shows the version\n";

/* What may follow a verb. */
enum {
	TAKES_ID = 1 << 0,       /* of a connection, which has to be there */
	TAKES_MANY = 1 << 1,     /* instances; else one */
	NEEDS_INSTANCE = 1 << 2, /* all of them are not what is meant */
	TAKES_COMMAND = 1 << 3,  /* after "--" */
	TAKES_ALL = 1 << 4,      /* --all */
};

struct verb {
	const char *name;
	int (*run)(const struct request *request);
	unsigned takes;
};

/* The first one is what is done without a verb. */
static const struct verb verbs[] = {
	{"list", verb_list, TAKES_MANY},
	{"audit", verb_audit, NEEDS_INSTANCE | TAKES_ALL},
	{"close", verb_close, TAKES_ID},
	{"metrics", verb_metrics, TAKES_MANY},
	{"show", verb_show, TAKES_ID},
	{"status", verb_status, TAKES_MANY},
	{"takeover", verb_takeover, NEEDS_INSTANCE | TAKES_COMMAND},
	{"watch", verb_watch, TAKES_MANY},
};

enum {
	OPTION_SOCKET = 256,
	OPTION_SORT,
	OPTION_REVERSE,
	OPTION_JSON,
	OPTION_RESET,
	OPTION_ALL,
	OPTION_NO_LEGEND,
	OPTION_NO_PAGER,
	OPTION_VERSION,
};

static const struct option long_options[] = {
	{"socket", required_argument, NULL, OPTION_SOCKET},
	{"sort", required_argument, NULL, OPTION_SORT},
	{"reverse", no_argument, NULL, OPTION_REVERSE},
	{"json", required_argument, NULL, OPTION_JSON},
	{"all", no_argument, NULL, OPTION_ALL},
	{"reset", no_argument, NULL, OPTION_RESET},
	{"no-legend", no_argument, NULL, OPTION_NO_LEGEND},
	{"no-pager", no_argument, NULL, OPTION_NO_PAGER},
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, OPTION_VERSION},
	{0},
};

struct command_line {
	const struct verb *verb;
	const char *answer; /* all there is to do, if set */
	const char *socket_path;
	struct request request;
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

static int take_sort(const char *value, struct request *request)
{
	request->sort = column_find(value);
	return request->sort ? 0 : usage_error(value, "no column of this name");
}

static int take_json(const char *value, struct request *request)
{
	if (strcmp(value, "short") == 0)
		request->json = JSON_SHORT;
	else if (strcmp(value, "pretty") == 0)
		request->json = JSON_PRETTY;
	else if (strcmp(value, "off") == 0)
		request->json = JSON_OFF;
	else
		return usage_error(value, "--json= is short, pretty or off");
	return 0;
}

static int take_option(int option, char **argv, struct command_line *line)
{
	switch (option) {
	case OPTION_SOCKET:
		line->socket_path = optarg;
		return 0;
	case OPTION_SORT:
		return take_sort(optarg, &line->request);
	case OPTION_REVERSE:
		line->request.reverse = true;
		return 0;
	case OPTION_JSON:
		return take_json(optarg, &line->request);
	case OPTION_ALL:
		line->request.all = true;
		return 0;
	case OPTION_RESET:
		line->request.reset = true;
		return 0;
	case OPTION_NO_LEGEND:
		line->request.no_legend = true;
		return 0;
	case OPTION_NO_PAGER:
		line->request.no_pager = true;
		return 0;
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
}

static int take_options(int argc, char **argv, struct command_line *line)
{
	int option, r = 0;

	opterr = 0;
	while (r == 0 && !line->answer &&
	       (option = getopt_long(argc, argv, ":h", long_options, NULL)) >= 0)
		r = take_option(option, argv, line);
	return r;
}

static int take_id(const char *word, struct request *request)
{
	char *end;

	if (!word)
		return usage_error("no connection", "give its id, as list shows it");
	errno = 0;
	request->id = strtoull(word, &end, 10);
	if (errno != 0 || *end || *word < '0' || *word > '9' || request->id == 0)
		return usage_error(word, "the id of a connection is a number from 1 on");
	return 0;
}

static int add_target(struct request *request, const char *name, const char *path)
{
	if (targets_add(&request->targets, name, path) == 0)
		return 0;
	return usage_error(name, "no memory");
}

static int take_instance(const char *name, struct request *request)
{
	char path[INSTANCE_PATH_SIZE];
	int r;

	r = instance_set_path(name, path);
	if (r < 0)
		return usage_error(name,
				   r == -ENAMETOOLONG
					   ? "the name is too long for a socket's path"
					   : "no name of an instance");
	return add_target(request, name, path);
}

static int find_all(struct request *request)
{
	int r = targets_find(&request->targets, TARGETS_DIRECTORY);

	return r < 0 ? instance_fail(TARGETS_DIRECTORY, "can't be read", r) : 0;
}

static int take_instances(char **words, int n_words, struct command_line *line)
{
	struct request *request = &line->request;
	int r = 0;

	if (n_words > 1 && !(line->verb->takes & TAKES_MANY))
		return usage_error(words[1], "unexpected argument");
	if (line->socket_path && n_words > 0)
		return usage_error(words[0], "give an INSTANCE or --socket=, not both");
	if (line->socket_path)
		return add_target(request, line->socket_path, line->socket_path);
	if (n_words == 0 && line->verb->takes & NEEDS_INSTANCE)
		return usage_error("no instance", "give its name, or --socket=PATH");
	if (n_words == 0)
		return find_all(request);
	for (int i = 0; i < n_words && r == 0; i++)
		r = take_instance(words[i], request);
	return r;
}

/* What is neither an option nor the command. */
static int take_words(char **words, int n_words, struct command_line *line)
{
	int r;

	line->verb = n_words > 0 ? find_verb(words[0]) : &verbs[0];
	if (!line->verb)
		return usage_error(words[0], "unknown verb");
	if (n_words > 0)
		words++, n_words--;
	if (line->verb->takes & TAKES_ID) {
		r = take_id(n_words > 0 ? words[0] : NULL, &line->request);
		if (r < 0)
			return r;
		words++, n_words--;
	}
	return take_instances(words, n_words, line);
}

static int command_line_parse(int argc, char **argv, struct command_line *line)
{
	char **command = NULL;
	int r;

	argc = cut_command(argc, argv, &command);
	r = take_options(argc, argv, line);
	if (r < 0 || line->answer)
		return r;
	r = take_words(argv + optind, argc - optind, line);
	if (r < 0)
		return r;
	if (command && !(line->verb->takes & TAKES_COMMAND && command[0]))
		return usage_error("--", line->verb->takes & TAKES_COMMAND
						 ? "a command has to follow"
						 : "this verb takes no command");
	if (line->request.all && !(line->verb->takes & TAKES_ALL))
		return usage_error("--all", "this verb has nothing to show all of");
	line->request.command_line = command;
	return 0;
}

int main(int argc, char **argv)
{
	struct command_line line = {0};
	int status, r;

	r = command_line_parse(argc, argv, &line);
	if (r < 0) {
		status = r == -EINVAL ? STATUS_USAGE : STATUS_FAILURE;
	} else if (line.answer) {
		(void)fputs(line.answer, stdout);
		status = finish_output(true);
	} else {
		status = line.verb->run(&line.request);
	}
	targets_done(&line.request.targets);
	return status;
}
