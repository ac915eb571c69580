/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * kill-at-call: kills a process before or after its N-th system call from now on, or
 * counts them. The state that a process leaves behind can change only by its system
 * calls (and by what it writes to shared memory between two of them): a test that kills
 * it at each of them in turn has tried every instant.
 *
 * tracer.h says how the process is followed. Here is what is counted and when to kill.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/time.h"
#include "syscall-names.h" /* syscall_names[], by number */
#include "tracer.h"

#define TIMEOUT_SEC 30
#define TIME_MAX_SEC 86400
#define STRING_OF(x) #x
#define STRING(x) STRING_OF(x)

/* Exit statuses. */
#define STATUS_USAGE 2
#define STATUS_NOT_REACHED 3
#define STATUS_TIMED_OUT 4
/* Not one: there is more to do. */
#define STATUS_NONE (-1)

enum option_id {
	OPTION_AFTER_EXIT = 256, /* above all characters, which getopt uses for itself */
	OPTION_ALL_THREADS,
	OPTION_CALL,
	OPTION_CHILD,
	OPTION_COUNT,
	OPTION_HELP,
	OPTION_PID,
	OPTION_SIGNAL,
	OPTION_TIMEOUT,
	OPTION_WHEN,
};

static const struct option long_options[] = {
	{"after-exit", required_argument, NULL, OPTION_AFTER_EXIT},
	{"all-threads", no_argument, NULL, OPTION_ALL_THREADS},
	{"call", required_argument, NULL, OPTION_CALL},
	{"child", no_argument, NULL, OPTION_CHILD},
	{"count", no_argument, NULL, OPTION_COUNT},
	{"help", no_argument, NULL, OPTION_HELP},
	{"pid", required_argument, NULL, OPTION_PID},
	{"signal", required_argument, NULL, OPTION_SIGNAL},
	{"timeout", required_argument, NULL, OPTION_TIMEOUT},
	{"when", required_argument, NULL, OPTION_WHEN},
	{NULL, 0, NULL, 0},
};

static const char help_text[] =
	"kill-at-call --pid=PID [OPTIONS] --count\n"
	"kill-at-call --pid=PID [OPTIONS] --call=N --when=before|after\n"
	"\n"
	"Counts the system calls that the main thread of the process PID makes from now\n"
	"until it exits, or kills the process at the N-th. A call in progress at the\n"
	"beginning is none, and one that the kernel restarts is one.\n"
	"\n"
	"  --pid=PID            the process; its other threads are left alone\n"
	"  --child              count the calls of the next child process that PID's\n"
	"                       main thread makes instead, from its birth until PID or\n"
	"                       the child exits\n"
	"  --after-exit=N       with --child: go on for N calls after PID has exited\n"
	"                       (default: 0)\n"
	"  --all-threads        count the calls of all threads, in the order in which\n"
	"                       they are made\n"
	"  --signal=NAME        once attached, send PID this signal, such as USR2\n"
	"  --count              print a line \"NUMBER NAME\" for each call, and at last\n"
	"                       \"total NUMBER\"\n"
	"  --call=N             kill (SIGKILL) at the N-th call\n"
	"  --when=before|after  before: the call is not made; after: it has been made;\n"
	"                       a call that does not return has no after, and one\n"
	"                       that waits is waited for, even when PID has exited\n"
	"  --timeout=SECONDS    give up after so long (default: " STRING(
		TIMEOUT_SEC) ")\n"
			     "  --help\n"
			     "\n"
			     "Prints \"attached\" when no call can be missed any more; then what it counts,\n"
			     "\"killed before|after call N: NAME\", or \"not reached: NUMBER calls\". Whatever\n"
			     "it has not killed goes on untraced. Exit status: 0; 1 an error; 2 wrong usage;\n"
			     "3 not reached; 4 timeout.\n";

struct command_line {
	struct tracer_options tracer;
	unsigned long call; /* 0: count */
	bool is_count;
	const char *when; /* "before" or "after" */
	unsigned long n_after_exit;
	int signal; /* 0: none */
	bool is_help;
};

__attribute__((format(printf, 1, 2))) static void say_error(const char *format, ...)
{
	va_list arguments;

	(void)fputs("kill-at-call: ", stderr);
	va_start(arguments, format);
	(void)vfprintf(stderr, format, arguments);
	va_end(arguments);
	(void)fputc('\n', stderr);
}

static int usage_error(const char *option, const char *value, const char *expected)
{
	say_error("%s%s: expected %s", option, value, expected);
	return -EINVAL;
}

static int parse_number(const char *option, const char *text, unsigned long max,
			unsigned long *ret_number)
{
	unsigned long number;

	errno = 0;
	number = strtoul(text, NULL, 10);
	if (!*text || text[strspn(text, "0123456789")] || errno || !number ||
	    number > max)
		return usage_error(option, text, "a positive number");
	*ret_number = number;
	return 0;
}

static int parse_seconds(const char *text, uint64_t *ret_usec)
{
	char *end;
	double seconds = strtod(text, &end);

	/* the first test leaves out signs, blanks, hexadecimals, "inf" and "nan" */
	if (!*text || text[strspn(text, "0123456789.")] || *end || seconds > TIME_MAX_SEC)
		return usage_error("--timeout=", text,
				   "seconds, as in 90 or 0.5, up to " STRING(
					   TIME_MAX_SEC));
	*ret_usec = (uint64_t)(seconds * (double)USEC_PER_SEC + 0.5);
	return 0;
}

static int parse_signal(const char *text, int *ret_signal)
{
	for (int i = 1; i < NSIG; i++) {
		const char *name = sigabbrev_np(i);

		if (name && strcmp(name, text) == 0) {
			*ret_signal = i;
			return 0;
		}
	}
	return usage_error("--signal=", text,
			   "a signal's name without SIG, such as USR2");
}

static int parse_pid(const char *text, pid_t *ret_pid)
{
	unsigned long number;
	int r = parse_number("--pid=", text, INT_MAX, &number);

	if (r == 0)
		*ret_pid = (pid_t)number;
	return r;
}

static int parse_when(const char *text, const char **ret_when)
{
	if (strcmp(text, "before") != 0 && strcmp(text, "after") != 0)
		return usage_error("--when=", text, "before or after");
	*ret_when = text;
	return 0;
}

static int unknown_option(int id, const char *argument)
{
	if (id == ':')
		return usage_error(argument, "", "a value");
	return usage_error("unknown or misused option ", argument,
			   "one that --help lists");
}

static int take_option(int id, const char *argument, struct command_line *line)
{
	switch (id) {
	case OPTION_AFTER_EXIT:
		return parse_number("--after-exit=", optarg, ULONG_MAX,
				    &line->n_after_exit);
	case OPTION_ALL_THREADS:
		line->tracer.with_threads = true;
		return 0;
	case OPTION_CALL:
		return parse_number("--call=", optarg, ULONG_MAX, &line->call);
	case OPTION_CHILD:
		line->tracer.with_child = true;
		return 0;
	case OPTION_COUNT:
		line->is_count = true;
		return 0;
	case OPTION_HELP:
		line->is_help = true;
		return 0;
	case OPTION_PID:
		return parse_pid(optarg, &line->tracer.pid);
	case OPTION_SIGNAL:
		return parse_signal(optarg, &line->signal);
	case OPTION_TIMEOUT:
		return parse_seconds(optarg, &line->tracer.timeout_usec);
	case OPTION_WHEN:
		return parse_when(optarg, &line->when);
	default:
		return unknown_option(id, argument);
	}
}

/* What the options say together. */
static int command_line_check(const struct command_line *line)
{
	if (!line->tracer.pid)
		return usage_error("no --pid=", "", "the process to trace");
	if (line->is_count == (line->call > 0))
		return usage_error(line->is_count ? "--count and --call="
						  : "no --count and no --call=",
				   "", "one of them");
	if ((line->when != NULL) != (line->call > 0))
		return usage_error(line->when ? "--when= without --call="
					      : "--call= without --when=",
				   "", "both or neither");
	if (line->n_after_exit && !line->tracer.with_child)
		return usage_error("--after-exit= without --child", "",
				   "a child that outlives PID");
	return 0;
}

static int command_line_parse(int argc, char **argv, struct command_line *line)
{
	int id, r;

	opterr = 0;
	/* ':': tell a missing value apart */
	while ((id = getopt_long(argc, argv, ":", long_options, NULL)) >= 0) {
		r = take_option(id, argv[optind - 1], line);
		if (r < 0 || line->is_help)
			return r;
	}
	if (optind < argc)
		return usage_error(argv[optind], "", "options only");
	return command_line_check(line);
}

/* A run */

struct run {
	const struct command_line *line;
	struct tracer tracer;
	unsigned long n_calls;
	unsigned long n_calls_max; /* those after them do not count */
	pid_t nth_tid;             /* who makes the N-th call, from then on */
	long nth_number;           /* of it, SYS_* */
	bool is_killed;
};

static void print_call_name(long number)
{
	const size_t n = sizeof(syscall_names) / sizeof(syscall_names[0]);

	if (number >= 0 && (size_t)number < n && syscall_names[number])
		(void)printf("%s\n", syscall_names[number]);
	else
		(void)printf("syscall_%ld\n", number);
}

/* Returns the exit status. */
static int run_end(const struct run *run)
{
	if (run->line->is_count) {
		(void)printf("total %lu\n", run->n_calls);
		return EXIT_SUCCESS;
	}
	(void)printf("not reached: %lu calls\n", run->n_calls);
	return STATUS_NOT_REACHED;
}

/* Returns the exit status or STATUS_NONE, as all the following. */
static int run_attached(const struct run *run)
{
	(void)puts("attached");
	if (fflush(stdout))
		return EXIT_FAILURE;
	if (run->line->signal && kill(run->line->tracer.pid, run->line->signal) < 0) {
		say_error("cannot send SIG%s to %d: %s", sigabbrev_np(run->line->signal),
			  (int)run->line->tracer.pid, strerror(errno));
		return EXIT_FAILURE;
	}
	return STATUS_NONE;
}

static int run_kill(struct run *run)
{
	int r = tracer_kill(&run->tracer);

	if (r < 0) {
		say_error("cannot kill %d: %s", (int)run->tracer.process, strerror(-r));
		return EXIT_FAILURE;
	}
	run->is_killed = true;
	return STATUS_NONE;
}

static int run_entered(struct run *run, const struct tracer_event *event)
{
	if (run->n_calls == run->n_calls_max)
		return run_end(run);
	run->n_calls++;
	if (run->line->is_count) {
		(void)printf("%lu ", run->n_calls);
		print_call_name(event->number);
	}
	if (run->n_calls != run->line->call)
		return STATUS_NONE;
	run->nth_tid = event->tid;
	run->nth_number = event->number;
	return strcmp(run->line->when, "before") == 0 ? run_kill(run) : STATUS_NONE;
}

static int run_at_call(struct run *run, const struct tracer_event *event)
{
	if (run->is_killed)
		return STATUS_NONE;
	/* left, or broken off for a signal handler that makes its first call now */
	if (event->tid == run->nth_tid)
		return run_kill(run);
	return event->kind == TRACER_ENTERED ? run_entered(run, event) : STATUS_NONE;
}

static int run_parent_exited(struct run *run)
{
	/* the call to kill after may be the very one that has made the parent exit */
	if (run->is_killed || run->nth_tid)
		return STATUS_NONE;
	run->n_calls_max = run->n_calls + run->line->n_after_exit;
	return run->line->n_after_exit ? STATUS_NONE : run_end(run);
}

static int run_exited(const struct run *run, int status)
{
	/* it may have ended by itself at that very instant */
	if (!run->is_killed || !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		return run_end(run);
	(void)printf("killed %s call %lu: ", run->line->when, run->line->call);
	print_call_name(run->nth_number);
	return EXIT_SUCCESS;
}

static int run_timed_out(const struct run *run)
{
	say_error("timeout: tracing %d came to no end; %lu calls so far",
		  (int)run->line->tracer.pid, run->n_calls);
	return STATUS_TIMED_OUT;
}

static int run_event(struct run *run, const struct tracer_event *event)
{
	switch (event->kind) {
	case TRACER_ATTACHED:
		return run_attached(run);
	case TRACER_ENTERED:
	case TRACER_LEFT:
		return run_at_call(run, event);
	case TRACER_PARENT_EXITED:
		return run_parent_exited(run);
	case TRACER_EXITED:
		return run_exited(run, event->status);
	case TRACER_TIMED_OUT:
		return run_timed_out(run);
	case TRACER_NONE:
		break;
	}
	return STATUS_NONE;
}

static int run_all(struct run *run)
{
	struct tracer_event event;
	int status = STATUS_NONE;
	int r = tracer_init(&run->tracer, &run->line->tracer);

	while (r >= 0 && status == STATUS_NONE) {
		r = tracer_next(&run->tracer, &event);
		if (r >= 0)
			status = run_event(run, &event);
	}
	if (r < 0) {
		say_error("cannot trace %d: %s", (int)run->line->tracer.pid,
			  strerror(-r));
		status = EXIT_FAILURE;
	}
	return status;
}

int main(int argc, char **argv)
{
	static struct command_line line;
	static struct run run = {.line = &line, .n_calls_max = ULONG_MAX};
	int status;

	line.tracer.timeout_usec = TIMEOUT_SEC * USEC_PER_SEC;
	if (command_line_parse(argc, argv, &line) < 0)
		return STATUS_USAGE;
	if (line.is_help)
		status = fputs(help_text, stdout) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	else
		status = run_all(&run);
	return fflush(stdout) ? EXIT_FAILURE : status;
}
