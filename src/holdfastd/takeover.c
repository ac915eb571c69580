/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/takeover.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/time.h"
#include "holdfastd/messages.h"
#include "holdfastd/takeover-private.h"
#include "vault/give.h"

/* ---- the successor's end ---- */

/*
 * Ends the successor. Where it has ended by itself, and has not said why, the way of its
 * end is the reason.
 */
static void end_successor(struct takeover *takeover, bool has_gone)
{
	if (has_gone && spawn_has_ended(&takeover->successor, TAKEOVER_END_USEC_MAX)) {
		if (takeover->why[0] == '\0')
			spawn_explain_end(&takeover->successor, takeover->why,
					  sizeof(takeover->why));
		takeover->successor.fd = fd_close(takeover->successor.fd);
		return;
	}
	if (takeover->why[0] == '\0')
		(void)snprintf(takeover->why, sizeof(takeover->why),
			       "the new process hung up");
	spawn_kill(&takeover->successor);
	/* One that does not go at once holds up the next takeover: see is_free() */
	if (spawn_has_ended(&takeover->successor, TAKEOVER_END_USEC_MAX))
		takeover->successor.fd = fd_close(takeover->successor.fd);
}

static pid_t forget(struct takeover *takeover)
{
	takeover->message_source =
		sd_event_source_disable_unref(takeover->message_source);
	takeover->timer = sd_event_source_disable_unref(takeover->timer);
	takeover->socket = fd_close(takeover->socket);
	takeover->is_under_way = false;
	takeover->is_ready = false;
	takeover->n_parcels = 0;
	return takeover->successor.pid;
}

static void set_why(struct takeover *takeover, const char *why)
{
	(void)snprintf(takeover->why, sizeof(takeover->why), "%s", why);
}

static void take_why(struct takeover *takeover, const struct handover *word)
{
	(void)snprintf(takeover->why, sizeof(takeover->why), "the new process says: %.*s",
		       HANDOVER_TEXT_SIZE, word->text);
}

/* One that has gone may have said why, while it was being told something else. */
static void hear_last_words(struct takeover *takeover)
{
	struct handover word;
	int fds[HANDOVER_FDS_MAX];

	while (takeover->why[0] == '\0' &&
	       handover_receive(takeover->socket, 0, &word, fds) == HANDOVER_MESSAGE) {
		handover_close_fds(&word, fds);
		if (word.type == HANDOVER_FAILED)
			take_why(takeover, &word);
	}
}

/* The successor gets a CPU for its start, and the workers leave it that. */
static const struct cpus *divide_cpus(struct takeover *takeover)
{
	takeover->are_cpus_divided = cpus_divide(&takeover->cpus);
	if (!takeover->are_cpus_divided)
		return NULL;
	worker_set_cpus_all(takeover->shared, &takeover->cpus.rest);
	return &takeover->cpus;
}

static void unite_cpus(struct takeover *takeover)
{
	if (takeover->are_cpus_divided)
		worker_set_cpus_all(takeover->shared, &takeover->cpus.all);
	takeover->are_cpus_divided = false;
}

/* All goes on as before. has_gone: whether the successor is known to have ended. */
static void roll_back(struct takeover *takeover, bool has_gone)
{
	pid_t pid;

	if (has_gone)
		hear_last_words(takeover);
	end_successor(takeover, has_gone);
	unite_cpus(takeover);
	pid = forget(takeover);
	give_end(takeover->shared->vault);
	vault_dispatch(takeover->shared->vault);
	log_line(LOG_ERR, MESSAGE_TAKEOVER_FAILED,
		 "The takeover by pid %d has failed: %s. Pid %d goes on", (int)pid,
		 takeover->why, (int)getpid());
	takeover->ended(takeover->userdata, TAKEOVER_ROLLED_BACK, pid, takeover->why);
}

static void fail(struct takeover *takeover, const char *why)
{
	set_why(takeover, why);
	roll_back(takeover, false);
}

static void fail_sending(struct takeover *takeover, int r)
{
	/* -EPIPE: it has ended, and its end says more */
	takeover->why[0] = '\0';
	if (r != -EPIPE)
		(void)snprintf(takeover->why, sizeof(takeover->why),
			       "it could not be told: %s", strerror(-r));
	roll_back(takeover, r == -EPIPE);
}

/* ---- handing over ---- */

static struct log_entry *line_new(const char *message_id, pid_t successor)
{
	struct log_entry *line = log_line_new(LOG_INFO, message_id);

	log_entry_add(line, "HOLDFAST_OLD_PID=%d", (int)getpid());
	log_entry_add(line, "HOLDFAST_NEW_PID=%d", (int)successor);
	return line;
}

/* The successor serves: the manager is told, then the successor may speak to it. */
static void leave(struct takeover *takeover)
{
	pid_t pid = takeover->successor.pid;

	/*
	 * Should the manager not hear of it, it sees the end of this process as that of
	 * the service, and starts it again: a crash like any other
	 */
	(void)sd_notifyf(0, "MAINPID=%d", (int)pid);
	(void)sd_notify_barrier(0, TAKEOVER_MANAGER_USEC_MAX);
	(void)takeover_tell(takeover, HANDOVER_RELEASED, 0, NULL, 0);
	log_line_send(line_new(MESSAGE_TAKEOVER, pid), "Handed over to pid %d", (int)pid);
	takeover->ended(takeover->userdata, TAKEOVER_DONE, pid, NULL);
}

/* Waits for the successor's word. Returns enum handover_received or a negative errno. */
static int wait_for_word(struct takeover *takeover, struct handover *ret_word)
{
	uint64_t until = time_now_usec() + TAKEOVER_PAUSE_USEC_MAX;
	int fds[HANDOVER_FDS_MAX], r;

	r = handover_receive(takeover->socket, until, ret_word, fds);
	if (r != HANDOVER_MESSAGE)
		return r;
	handover_close_fds(ret_word, fds);
	return ret_word->type == HANDOVER_SERVING || ret_word->type == HANDOVER_FAILED
		       ? r
		       : -EBADMSG;
}

/* Everybody has stopped. */
static void offer(struct takeover *takeover, uint64_t stopped_usec)
{
	struct shared *shared = takeover->shared;
	struct handover go = {.type = HANDOVER_GO, .usec = stopped_usec}, word;
	int r;

	go.number = ledger_offer(&shared->vault->ledger);
	r = takeover_tell_parcels(takeover);
	if (r == 0)
		r = handover_send(takeover->socket, &go, NULL);
	r = r < 0 ? r : wait_for_word(takeover, &word);
	if (!ledger_withdraw_offer(&shared->vault->ledger, go.number)) {
		if (r != HANDOVER_GONE) {
			leave(takeover);
			return;
		}
		set_why(takeover, "the new process has died after it had begun to serve");
		takeover->ended(takeover->userdata, TAKEOVER_LOST,
				takeover->successor.pid, takeover->why);
		return;
	}
	gate_open(&shared->gate);
	takeover->why[0] = '\0';
	if (r == HANDOVER_MESSAGE)
		take_why(takeover, &word);
	else if (r < 0 && r != -EPIPE)
		set_why(takeover, r == -ETIME ? "the new process did not go on in time"
					      : "the new process made no sense");
	roll_back(takeover, r == HANDOVER_GONE || r == -EPIPE);
}

static void hand_over_if_settled(struct takeover *takeover)
{
	struct shared *shared = takeover->shared;
	uint64_t now;

	if (!takeover->is_ready || !give_settle(shared->vault))
		return;
	now = time_now_usec();
	if (worker_stop_all(shared, now + TAKEOVER_PAUSE_USEC_MAX))
		offer(takeover, now);
	else
		fail(takeover, "a worker of the old process did not stop in time");
}

/* Whether all of the last one has gone. */
static bool is_free(struct takeover *takeover)
{
	if (takeover->is_under_way)
		return false;
	if (takeover->successor.fd >= 0 && !spawn_has_ended(&takeover->successor, 0))
		return false;
	takeover->successor.fd = fd_close(takeover->successor.fd);
	return true;
}

void takeover_look(struct takeover *takeover)
{
	int r;

	if (!takeover->is_under_way)
		return;
	r = takeover_tell_parcels(takeover);
	if (r < 0 && r != -EAGAIN)
		fail_sending(takeover, r);
	else if (takeover->n_parcels - takeover->n_parcels_told > TAKEOVER_PARCELS_MAX)
		fail(takeover, "too many connections have come and gone meanwhile");
	else
		hand_over_if_settled(takeover);
}

/* ---- events ---- */

static int on_message(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct takeover *takeover = userdata;
	struct handover message;
	int fds[HANDOVER_FDS_MAX], r;

	(void)source, (void)events;
	r = handover_receive(fd, 0, &message, fds);
	if (r == -ETIME)
		return 0;
	takeover->why[0] = '\0';
	if (r == HANDOVER_GONE) {
		roll_back(takeover, true);
		return 0;
	}
	if (r < 0) {
		fail(takeover,
		     r == -EPROTO
			     ? "the new process speaks another version of the handover"
			     : "the new process made no sense");
		return 0;
	}
	handover_close_fds(&message, fds);
	if (message.type == HANDOVER_READY) {
		takeover->is_ready = true;
		hand_over_if_settled(takeover);
	} else if (message.type == HANDOVER_FAILED) {
		take_why(takeover, &message);
		roll_back(takeover, true);
	} else {
		fail(takeover, "the new process made no sense");
	}
	return 0;
}

static int on_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct takeover *takeover = userdata;

	(void)source, (void)usec;
	if (takeover->is_ready)
		set_why(takeover, "the service manager has not answered in time");
	else
		(void)snprintf(takeover->why, sizeof(takeover->why),
			       "the new process was not ready after %llu ms "
			       "(--takeover-timeout=)",
			       (unsigned long long)(takeover->shared->options
							    ->takeover_timeout_usec /
						    USEC_PER_MSEC));
	roll_back(takeover, false);
	return 0;
}

static int add_sources(struct takeover *takeover)
{
	int r = sd_event_add_io(takeover->event, &takeover->message_source,
				takeover->socket, EPOLLIN, on_message, takeover);

	if (r < 0)
		return r;
	return sd_event_add_time_relative(takeover->event, &takeover->timer,
					  CLOCK_MONOTONIC,
					  takeover->shared->options->takeover_timeout_usec,
					  0, on_timeout, takeover);
}

static int refuse(struct takeover *takeover, int r, const char **ret_why,
		  const char *format, ...) __attribute__((format(printf, 4, 5)));

static int refuse(struct takeover *takeover, int r, const char **ret_why,
		  const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(takeover->why, sizeof(takeover->why), format, arguments);
	va_end(arguments);
	log_line(LOG_ERR, MESSAGE_TAKEOVER_FAILED, "No takeover: %s", takeover->why);
	*ret_why = takeover->why;
	return r;
}

static int start(struct takeover *takeover, const char *program, char *const arguments[])
{
	int r;

	r = give_begin(takeover->shared->vault);
	if (r < 0)
		return r;
	log_info("ready to restart and pass connfd");
	r = spawn_successor(program, arguments, divide_cpus(takeover),
			    &takeover->successor, &takeover->socket);
	if (r < 0) {
		unite_cpus(takeover);
		give_end(takeover->shared->vault);
		return r;
	}
	takeover->is_under_way = true;
	log_line_send(line_new(MESSAGE_TAKEOVER_BEGUN, takeover->successor.pid),
		      "forked pid: %d", (int)takeover->successor.pid);
	return 0;
}

int takeover_begin(struct takeover *takeover, char *const command_line[],
		   const char **ret_why)
{
	const char *program = command_line ? command_line[0] : takeover->program;
	int r;

	if (!is_free(takeover)) {
		log_line(LOG_WARNING, MESSAGE_TAKEOVER_FAILED,
			 "No takeover: one is under way already");
		*ret_why = "a takeover is under way already";
		return -EBUSY;
	}
	if (!program || program[0] != '/')
		return refuse(takeover, -EINVAL, ret_why,
			      "%s is no absolute path of a program",
			      program ? program : "nothing");
	r = start(takeover, program,
		  command_line ? command_line : (char *const *)takeover->arguments);
	if (r < 0)
		return refuse(takeover, r, ret_why, "%s can't be started: %s", program,
			      strerror(-r));
	r = takeover_tell_state(takeover);
	if (r < 0)
		fail_sending(takeover, r);
	else if ((r = add_sources(takeover)) < 0)
		fail(takeover, strerror(-r));
	return 0;
}

void takeover_make_way(const struct takeover *takeover)
{
	struct pollfd answer = {.fd = takeover->socket};

	if (!takeover->are_cpus_divided)
		return;
	leisure_begin_end(&takeover->cpus);
	/* The successor closes its end when they have */
	if (shutdown(takeover->socket, SHUT_WR) == 0)
		(void)poll(&answer, 1, TAKEOVER_MAKE_WAY_MSEC_MAX);
}

int takeover_new(struct shared *shared, sd_event *event, char *arguments[],
		 void (*ended)(void *userdata, enum takeover_result result, pid_t pid,
			       const char *why),
		 void *userdata, struct takeover **ret_takeover)
{
	struct takeover *takeover = calloc(1, sizeof(*takeover));
	int r;

	if (!takeover)
		return -ENOMEM;
	*takeover = (struct takeover){
		.shared = shared,
		.event = event,
		.ended = ended,
		.userdata = userdata,
		.arguments = arguments,
		.socket = -EBADF,
		.successor = {.fd = -EBADF},
	};
	r = spawn_find_program(takeover->program, sizeof(takeover->program));
	if (r < 0) {
		free(takeover);
		return r;
	}
	*ret_takeover = takeover;
	return 0;
}
