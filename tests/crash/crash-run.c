/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * crash-run: runs the scenario of a service once for each line of its standard input,
 * which says at which system calls the service is to die or to be failed. crash_points.py
 * in tests/system writes these lines.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/time.h"
#include "scenario.h"
#include "service.h"

#define TIMEOUT_SEC 10
#define COMMAND_MAX 16

static const char help_text[] =
	"crash-run [OPTIONS] KEEPER HOLDFASTD echo|relay|log < RUNS\n"
	"\n"
	"Runs the scenario of a service under the keeper, again and again: once for each\n"
	"line of RUNS. A line has up to four points, each at a system call that a thread of\n"
	"the service makes:\n"
	"\n"
	"  PROCESS.THREAD.CALL:before    die of SIGKILL, and the call is not made\n"
	"  PROCESS.THREAD.CALL:after     die of SIGKILL when it has returned\n"
	"  PROCESS.THREAD.CALL:NUMBER    the call is not made and fails, with that errno\n"
	"\n"
	"PROCESS counts from 1 in the order of the starts (half way through the scenario the\n"
	"service is killed in any case), THREAD from 0, which is the main thread, CALL from\n"
	"1, the first after execve(2); NAME.CALL counts those of one name only. Two more words: \"show\" has all calls printed, and\n"
	"\"may-reset\" lets calls that fail reset connections. Each run is answered by a line\n"
	"that begins with \"survived\" or \"failed\"; before the latter come lines with a bar,\n"
	"what the keeper and the service have said, and where its threads are.\n"
	"\n"
	"  --listen=IPV4:PORT     of the service (default: 127.0.0.1:7000)\n"
	"  --upstream=IPV4:PORT   of the relay's upstream (default: 127.0.0.1:7001)\n"
	"  --threads=N            worker threads of the service (default: 1)\n"
	"  --help\n";

enum option_id {
	OPTION_LISTEN = 256,
	OPTION_UPSTREAM,
	OPTION_THREADS,
	OPTION_HELP,
};

static const struct option long_options[] = {
	{"listen", required_argument, NULL, OPTION_LISTEN},
	{"upstream", required_argument, NULL, OPTION_UPSTREAM},
	{"threads", required_argument, NULL, OPTION_THREADS},
	{"help", no_argument, NULL, OPTION_HELP},
	{NULL, 0, NULL, 0},
};

struct command_line {
	const char *listen;
	const char *upstream;
	const char *keeper;
	char threads[sizeof("--threads=64")];
	char *command[COMMAND_MAX];
	enum scenario_kind kind;
};

static bool parse_kind(const char *text, enum scenario_kind *ret_kind)
{
	for (unsigned i = 0; i < SCENARIOS; i++)
		if (strcmp(scripts[i].name, text) == 0) {
			*ret_kind = (enum scenario_kind)i;
			return true;
		}
	return false;
}

/* Returns the exit status, or -1: go on. */
static int command_line_parse(int argc, char **argv, struct command_line *line)
{
	const char *n_threads = "1";
	int id;

	while ((id = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
		switch (id) {
		case OPTION_LISTEN:
			line->listen = optarg;
			break;
		case OPTION_UPSTREAM:
			line->upstream = optarg;
			break;
		case OPTION_THREADS:
			n_threads = optarg;
			break;
		case OPTION_HELP:
			return fputs(help_text, stdout) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
		default:
			return 2;
		}
	}
	if (argc - optind != 3 || !parse_kind(argv[optind + 2], &line->kind)) {
		(void)fputs(help_text, stderr);
		return 2;
	}
	line->keeper = argv[optind];
	line->command[0] = argv[optind + 1];
	/* A number that is too long is one that the service refuses as well */
	(void)snprintf(line->threads, sizeof(line->threads), "--threads=%s", n_threads);
	line->command[1] = line->threads;
	line->command[2] = argv[optind + 2];
	return -1;
}

static bool outcome_parse(const char *text, struct point *point)
{
	point->error = atoi(text);
	if (strcmp(text, "before") == 0)
		point->kind = POINT_BEFORE;
	else if (strcmp(text, "after") == 0)
		point->kind = POINT_AFTER;
	else
		point->kind = POINT_FAIL;
	return point->kind != POINT_FAIL || point->error > 0;
}

/* Returns whether text is a point. */
static bool point_parse(const char *text, struct point *ret_point)
{
	struct point point = {.call_kind = CALL_ANY, .reached_kind = -1};
	char name[32], outcome[8];

	if (sscanf(text, "%u.%u.%u:%7s", &point.process, &point.thread, &point.call,
		   outcome) < 4) {
		if (sscanf(text, "%u.%u.%31[a-z0-9_].%u:%7s", &point.process,
			   &point.thread, name, &point.call, outcome) < 5)
			return false;
		point.call_kind = call_find(name);
		if (point.call_kind < 0)
			return false;
	}
	*ret_point = point;
	return outcome_parse(outcome, ret_point);
}

static bool run_parse(char *text, struct scenario *scenario, struct service *service)
{
	scenario->may_reset = false;
	for (char *word = strtok(text, " \n"); word; word = strtok(NULL, " \n")) {
		if (strcmp(word, "show") == 0)
			service->is_shown = true;
		else if (strcmp(word, "may-reset") == 0)
			scenario->may_reset = true;
		else if (service->n_points == SERVICE_POINTS_MAX ||
			 !point_parse(word, &service->points[service->n_points++]))
			return false;
	}
	return true;
}

/*
 * Each end of a process has its reason: a point, or the scenario's own kill. Where a call
 * fails it may end by itself, but not by a signal.
 */
static int check_ends(struct scenario *scenario, const struct service *service)
{
	unsigned n_killed = 1;
	bool may_leave = false;

	for (size_t i = 0; i < service->n_points; i++) {
		const struct point *point = &service->points[i];

		may_leave |= point->kind == POINT_FAIL;
		n_killed += point->is_reached && point->kind != POINT_FAIL;
	}
	if (service->n_kills == n_killed &&
	    (may_leave || service->n_processes == n_killed + 1))
		return 0;
	(void)snprintf(scenario->why, sizeof(scenario->why),
		       "%u processes, %u of them killed, %u by us", service->n_processes,
		       service->n_kills, n_killed);
	return -1;
}

static void print_why(const struct scenario *scenario)
{
	const struct script *script = &scripts[scenario->kind];

	(void)printf(" why=");
	if (scenario->step > 0 && scenario->step <= script->n) {
		const struct step *step = &script->steps[scenario->step - 1];

		(void)printf("step %u (%s %u): ", scenario->step,
			     operation_names[step->operation], step->connection);
	}
	(void)printf("%s", scenario->why);
}

static void print_answer(const struct scenario *scenario, const struct service *service,
			 int r, uint64_t took_usec)
{
	(void)printf("%s refused=%u lost=%u repeated=%u abandoned=%u processes=%u calls=%u "
		     "msec=%llu",
		     r == 0 ? "survived" : "failed", scenario->n_refused,
		     scenario->n_lost, scenario->n_repeated, scenario->n_abandoned,
		     service->n_processes, service->n_calls,
		     (unsigned long long)(took_usec / USEC_PER_MSEC));
	for (size_t i = 0; i < service->n_points; i++) {
		const struct point *point = &service->points[i];

		(void)printf(" at=%s%s",
			     point->is_reached ? call_name(point->reached_kind)
					       : "not-reached",
			     point->is_unprotected ? ",unprotected" : "");
	}
	if (r < 0)
		print_why(scenario);
	(void)putchar('\n');
	(void)fflush(stdout);
}

/* What the keeper and the service have said, each line behind a bar. */
static void print_said(const struct service *service)
{
	char text[4096];
	bool is_begin = true;
	off_t offset = 0;
	ssize_t n;

	while ((n = pread(service->said_fd, text, sizeof(text), offset)) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (is_begin)
				(void)fputs("| ", stdout);
			is_begin = text[i] == '\n';
			(void)putchar(text[i]);
		}
		offset += n;
	}
	if (!is_begin)
		(void)putchar('\n');
}

static int run(const struct command_line *line, struct scenario *scenario, char *text)
{
	static struct service service;
	const uint64_t begun_usec = time_now_usec();
	int r;

	service = (struct service){.said_fd = -EBADF};
	if (!run_parse(text, scenario, &service)) {
		(void)fputs("crash-run: no such run; see --help\n", stderr);
		return -1;
	}
	r = service_start(&service, line->keeper, line->listen, line->command,
			  TIMEOUT_SEC * USEC_PER_SEC);
	if (r < 0) {
		(void)fprintf(stderr, "crash-run: can't start: %s\n", strerror(-r));
	} else {
		r = scenario_run(scenario, &service);
		if (r == 0)
			r = check_ends(scenario, &service);
		if (r < 0) {
			print_said(&service);
			service_show(&service);
		}
		print_answer(scenario, &service, r, time_now_usec() - begun_usec);
		r = 0;
	}
	service_stop(&service);
	return r;
}

/* With one CPU, nobody runs while we look. */
static void take_one_cpu(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned)sched_getcpu(), &set);
	(void)sched_setaffinity(0, sizeof(set), &set); /* without it, it takes longer */
}

int main(int argc, char **argv)
{
	static struct command_line line = {.listen = "127.0.0.1:7000",
					   .upstream = "127.0.0.1:7001"};
	static struct scenario scenario;
	char text[512];
	int r = command_line_parse(argc, argv, &line);

	if (r >= 0)
		return r;
	take_one_cpu();
	r = scenario_init(&scenario, line.kind, line.upstream);
	if (r < 0) {
		(void)fprintf(stderr, "crash-run: can't listen on %s: %s\n",
			      line.upstream, strerror(-r));
		return EXIT_FAILURE;
	}
	scenario.service_address = line.listen;
	if (line.kind == SCENARIO_RELAY)
		line.command[3] = (char *)(uintptr_t)line.upstream;
	while (r == 0 && fgets(text, sizeof(text), stdin))
		r = run(&line, &scenario, text);
	scenario_done(&scenario);
	return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
