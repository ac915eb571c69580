/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "base/fd.h"
#include "base/time.h"

/* Connections that are being opened at once: what any listener's queue takes, for a SYN
 * that it drops costs a second */
#define OPENING_MAX 64
#define EVENTS_MAX 64

/* What epoll tells of an fd that is no conversation; those are their numbers */
enum event_source {
	SOURCE_TIMER = CONNECTIONS_MAX,
	SOURCE_COMMANDS,
	SOURCE_SIGNALS,
};

static void enter_phase(struct bench *bench, enum phase phase)
{
	bench->phase = phase;
	bench->phase_usec = time_now_usec();
}

/* Conversations */

static int watch(const struct bench *bench, int operation, int fd, uint32_t events,
		 uint64_t tag)
{
	struct epoll_event event = {.events = events, .data.u64 = tag};

	return epoll_ctl(bench->epoll_fd, operation, fd, &event) < 0 ? -errno : 0;
}

static int conversation_watch(const struct bench *bench,
			      struct conversation *conversation)
{
	uint32_t events = conversation_events(conversation);
	uint32_t old = conversation->events;
	int operation = old == 0      ? EPOLL_CTL_ADD
			: events == 0 ? EPOLL_CTL_DEL
				      : EPOLL_CTL_MOD;

	if (events == old)
		return 0;
	conversation->events = events;
	return watch(bench, operation, conversation->fd, events, conversation->number);
}

/* One more message of it is due. */
static int conversation_say(struct bench *bench, struct conversation *conversation)
{
	int r;

	conversation->n_due++;
	bench->n_unanswered++;
	r = conversation_send(conversation, &bench->complaint);
	return r < 0 ? r : conversation_watch(bench, conversation);
}

static int open_conversation(struct bench *bench)
{
	const struct client_options *options = bench->options;
	uint32_t number = bench->n_opened++;
	int r = conversation_init(&bench->conversations[number], number,
				  (const struct sockaddr *)&options->address,
				  options->address_bytes,
				  bench->partials +
					  (size_t)number * options->message_bytes,
				  options->message_bytes, &bench->complaint);

	return r < 0 ? r : conversation_say(bench, &bench->conversations[number]);
}

static void account(struct bench *bench, uint64_t message, uint64_t now_usec,
		    uint64_t arrived_usec)
{
	bool is_old = bench->has_closing && message < bench->closing.end;
	struct window *window = is_old ? &bench->closing : &bench->window;
	uint64_t due_usec = schedule_due_usec(&bench->schedule, message);
	bool is_kept = bench->n_due - message <= BENCH_SENT_KEPT;
	uint64_t sent_usec =
		is_kept ? bench->sent_usec[message % BENCH_SENT_KEPT] : due_usec;

	latency_add(&window->latency, now_usec - due_usec);
	if (arrived_usec > sent_usec && arrived_usec - sent_usec > window->peer_max_usec)
		window->peer_max_usec = arrived_usec - sent_usec;
}

/* Takes account of what has been answered since there were n_before answers. */
static void account_answers(struct bench *bench, const struct conversation *conversation,
			    uint64_t n_before)
{
	uint64_t now_usec = time_now_usec();
	uint32_t first;

	bench->n_unanswered -= conversation->n_answered - n_before;
	if (!schedule_is_active(&bench->schedule, conversation->number, &first))
		return;
	for (uint64_t n = n_before; n < conversation->n_answered; n++)
		if (n > 0)
			account(bench, schedule_message(&bench->schedule, first, n - 1),
				now_usec, conversation->arrived_usec);
}

static int conversation_handle(struct bench *bench, struct conversation *conversation,
			       uint32_t events)
{
	uint64_t n_before = conversation->n_answered;
	int r = 0;

	if (events & ~(uint32_t)EPOLLOUT)
		r = conversation_receive(conversation, &bench->complaint);
	if (r < 0)
		return r;
	account_answers(bench, conversation, n_before);
	bench->n_ended += conversation->has_ended;
	r = conversation_send(conversation, &bench->complaint);
	return r < 0 ? r : conversation_watch(bench, conversation);
}

/* Time */

static int set_timer(const struct bench *bench)
{
	uint64_t usec = schedule_due_usec(&bench->schedule, bench->n_due);
	const struct itimerspec when = {
		.it_value.tv_sec = (time_t)(usec / USEC_PER_SEC),
		.it_value.tv_nsec = (long)(usec % USEC_PER_SEC * 1000),
	};

	return timerfd_settime(bench->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) < 0
		       ? -errno
		       : 0;
}

/* Message n_due of all falls due. */
static int say_next(struct bench *bench, uint64_t late_usec)
{
	uint32_t number = schedule_connection(&bench->schedule, bench->n_due);

	bench->sent_usec[bench->n_due++ % BENCH_SENT_KEPT] = time_now_usec();
	if (late_usec > bench->window.late_max_usec)
		bench->window.late_max_usec = late_usec;
	return conversation_say(bench, &bench->conversations[number]);
}

/* Sends all that has fallen due. */
static int handle_timer(struct bench *bench)
{
	for (;;) {
		uint64_t now_usec = time_now_usec();
		uint64_t due_usec = schedule_due_usec(&bench->schedule, bench->n_due);
		int r;

		if (due_usec > now_usec)
			break;
		if (now_usec - bench->phase_usec >= bench->options->run_usec)
			bench->is_end_wanted = true;
		r = say_next(bench, now_usec - due_usec);
		if (r < 0)
			return r;
	}
	return set_timer(bench);
}

/* Commands */

static void mark(struct bench *bench, const char *name)
{
	window_close(&bench->window, bench->n_due);
	bench->closing = bench->window;
	bench->has_closing = true;
	window_open(&bench->window, name, bench->n_due);
}

static int run_command(struct bench *bench, const char *line)
{
	static const char mark_command[] = "mark ";
	const size_t n = sizeof(mark_command) - 1;

	if (strncmp(line, mark_command, n) == 0 && window_name_is_valid(line + n)) {
		mark(bench, line + n);
		return 0;
	}
	if (strcmp(line, "end") == 0) {
		bench->is_end_wanted = true;
		return 0;
	}
	(void)snprintf(bench->complaint.text, sizeof(bench->complaint.text),
		       "unknown command \"%s\": give \"mark NAME\" or \"end\"", line);
	return -EINVAL;
}

/* Whether a command may be run: one after another. */
static bool is_ready_for_command(const struct bench *bench)
{
	return bench->phase == PHASE_RUNNING && !bench->has_closing &&
	       !bench->is_end_wanted;
}

static int run_commands(struct bench *bench)
{
	char line[COMMAND_SIZE];

	while (is_ready_for_command(bench) && commands_take(&bench->commands, line)) {
		int r = run_command(bench, line);

		if (r < 0)
			return r;
	}
	if (is_ready_for_command(bench) && bench->commands.has_ended &&
	    bench->options->run_usec == USEC_INFINITY)
		bench->is_end_wanted = true;
	return 0;
}

/* A command waits in stdin until the one before it has been carried out. */
static int watch_commands(struct bench *bench)
{
	bool is_wanted = is_ready_for_command(bench) && !bench->commands.has_ended;
	int r;

	if (is_wanted == bench->is_watching_commands)
		return 0;
	r = watch(bench, is_wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, STDIN_FILENO, EPOLLIN,
		  SOURCE_COMMANDS);
	if (r == -EPERM) { /* a file, as /dev/null is one, can't be waited for */
		bench->commands.has_ended = true;
		return run_commands(bench);
	}
	bench->is_watching_commands = is_wanted;
	return r;
}

/* Phases */

static int advance_opening(struct bench *bench)
{
	while (bench->n_opened < bench->options->n_connections &&
	       bench->n_unanswered < OPENING_MAX) {
		int r = open_conversation(bench);

		if (r < 0)
			return r;
	}
	if (bench->n_unanswered > 0)
		return 0;
	(void)puts("ready");
	enter_phase(bench, PHASE_RUNNING);
	bench->schedule.start_usec = bench->phase_usec;
	return set_timer(bench);
}

static int advance_running(struct bench *bench)
{
	if (bench->has_closing && !window_is_complete(&bench->closing))
		return 0;
	if (bench->has_closing) {
		window_print(&bench->closing);
		(void)printf("marked %s\n", bench->window.name);
		bench->has_closing = false;
	}
	if (bench->is_end_wanted) {
		window_close(&bench->window, bench->n_due);
		enter_phase(bench, PHASE_CLOSING);
		return watch(bench, EPOLL_CTL_DEL, bench->timer_fd, 0, SOURCE_TIMER);
	}
	return run_commands(bench);
}

static int advance_closing(struct bench *bench)
{
	uint32_t first;

	if (!window_is_complete(&bench->window))
		return 0;
	window_print(&bench->window);
	enter_phase(bench, PHASE_PROVING);
	for (uint32_t i = 0; i < bench->n_opened; i++) {
		int r = 0;

		if (!schedule_is_active(&bench->schedule, i, &first))
			r = conversation_say(bench, &bench->conversations[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static int advance_proving(struct bench *bench)
{
	if (bench->n_unanswered > 0)
		return 0;
	enter_phase(bench, PHASE_ENDING);
	for (uint32_t i = 0; i < bench->n_opened; i++) {
		int r = conversation_end(&bench->conversations[i], &bench->complaint);

		if (r < 0)
			return r;
	}
	return 0;
}

static int advance_ending(struct bench *bench)
{
	if (bench->n_ended < bench->n_opened)
		return 0;
	(void)puts("ended");
	enter_phase(bench, PHASE_DONE);
	return 0;
}

static int advance_phase(struct bench *bench)
{
	switch (bench->phase) {
	case PHASE_OPENING:
		return advance_opening(bench);
	case PHASE_RUNNING:
		return advance_running(bench);
	case PHASE_CLOSING:
		return advance_closing(bench);
	case PHASE_PROVING:
		return advance_proving(bench);
	case PHASE_ENDING:
		return advance_ending(bench);
	case PHASE_DONE:
		break;
	}
	return 0;
}

/* Does what the state allows. To be called after each change of it. */
static int advance(struct bench *bench)
{
	enum phase old;
	int r;

	do {
		old = bench->phase;
		r = advance_phase(bench);
	} while (r >= 0 && bench->phase != old);
	return r < 0 ? r : watch_commands(bench);
}

static int handle_event(struct bench *bench, const struct epoll_event *event)
{
	struct signalfd_siginfo ignored;

	switch (event->data.u64) {
	case SOURCE_TIMER:
		return handle_timer(bench);
	case SOURCE_COMMANDS:
		return commands_read(&bench->commands, STDIN_FILENO);
	case SOURCE_SIGNALS:
		bench->is_end_wanted = true;
		return read(bench->signal_fd, &ignored, sizeof(ignored)) < 0 ? -errno : 0;
	default:
		return conversation_handle(bench, &bench->conversations[event->data.u64],
					   event->events);
	}
}

int bench_run(struct bench *bench)
{
	struct epoll_event events[EVENTS_MAX];
	int r = advance(bench);

	while (r >= 0 && bench->phase != PHASE_DONE) {
		int n = epoll_wait(bench->epoll_fd, events, EVENTS_MAX,
				   BENCH_CHECK_INTERVAL_USEC / USEC_PER_MSEC);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n && r >= 0; i++)
			r = handle_event(bench, &events[i]);
		if (r >= 0)
			r = advance(bench);
		if (r >= 0)
			r = bench_check_patience(bench);
	}
	return r;
}

/* The beginning and the end */

int bench_init(struct bench *bench, const struct client_options *options)
{
	sigset_t signals;
	int r;

	*bench = (struct bench){
		.options = options,
		.schedule = {.n_connections = options->n_connections,
			     .n_active = options->n_active,
			     .interval_usec = options->interval_usec},
	};
	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	bench->conversations =
		calloc(options->n_connections, sizeof(*bench->conversations));
	bench->partials = calloc(options->n_connections, options->message_bytes);
	bench->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	bench->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	bench->signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
	if (!bench->conversations || !bench->partials || bench->epoll_fd < 0 ||
	    bench->timer_fd < 0 || bench->signal_fd < 0)
		return -errno;
	window_open(&bench->window, "start", 0);
	enter_phase(bench, PHASE_OPENING);
	r = watch(bench, EPOLL_CTL_ADD, bench->timer_fd, EPOLLIN, SOURCE_TIMER);
	if (r < 0)
		return r;
	return watch(bench, EPOLL_CTL_ADD, bench->signal_fd, EPOLLIN, SOURCE_SIGNALS);
}

void bench_done(struct bench *bench)
{
	for (uint32_t i = 0; i < bench->n_opened; i++)
		conversation_done(&bench->conversations[i]);
	free(bench->conversations);
	free(bench->partials);
	(void)fd_close(bench->epoll_fd);
	(void)fd_close(bench->timer_fd);
	(void)fd_close(bench->signal_fd);
}
