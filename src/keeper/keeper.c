/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "keeper/keeper-private.h"
#include "keeper/say.h"
#include "keeper/spawn.h"

/* Fds that the keeper needs besides listeners, store and one message; generously. */
#define OWN_FDS_MAX 64
/* How often to look whether killed processes have gone, should nothing tell. */
#define CLEARING_USEC (100 * USEC_PER_MSEC)
/* sd-event takes no times that overflow; nobody waits longer than a year. */
#define TIMEOUT_MAX_USEC (365ULL * 24 * 3600 * USEC_PER_SEC)

static void keeper_enter(struct keeper *self, enum keeper_phase phase,
			 uint64_t timeout_usec)
{
	int timing = timeout_usec == USEC_INFINITY ? SD_EVENT_OFF : SD_EVENT_ONESHOT;
	int r;

	if (timing != SD_EVENT_OFF && timeout_usec > TIMEOUT_MAX_USEC)
		timeout_usec = TIMEOUT_MAX_USEC;
	self->phase = phase;
	r = listeners_watch(&self->options->listeners, phase == KEEPER_IDLE);
	if (r >= 0 && timing != SD_EVENT_OFF)
		r = sd_event_source_set_time_relative(self->timer, timeout_usec);
	if (r >= 0)
		r = sd_event_source_set_enabled(self->timer, timing);
	if (r < 0) /* want of memory; a keeper that waits for nothing must not go on */
		(void)sd_event_exit(self->event, EXIT_FAILURE);
}

void keeper_enter_running(struct keeper *self)
{
	keeper_enter(self, KEEPER_RUNNING,
		     self->watchdog_usec > 0 ? self->watchdog_usec : USEC_INFINITY);
}

static void keeper_enter_idle(struct keeper *self)
{
	say_line(LOG_INFO, "%zu fds in the store; waiting for a connection",
		 self->store.n_fds);
	keeper_enter(self, KEEPER_IDLE, USEC_INFINITY);
}

void keeper_stop_service(struct keeper *self, int signal_number)
{
	if (signal_number)
		service_signal(&self->service, signal_number);
	keeper_enter(self, KEEPER_STOPPING, self->options->stop_timeout_usec);
}

static void keeper_decide(struct keeper *self);

static void keeper_start_service(struct keeper *self)
{
	struct spawn spawn = {
		.command = self->options->command,
		.listeners = &self->options->listeners,
		.store = &self->store,
		.notify_name = self->notify.name,
		.watchdog_usec = self->options->watchdog_usec,
	};
	pid_t pid;

	restart_begin(&self->options->restart, time_now_usec());
	self->watchdog_usec = self->options->watchdog_usec;
	pid = spawn_run(&spawn);
	if (pid < 0) {
		say_line(LOG_ERR, "cannot start %s: %s", self->options->command[0],
			 strerror(-pid));
		keeper_decide(self);
		return;
	}
	service_begin(&self->service, pid);
	say_line(LOG_INFO, "started pid %d: %s, with %zu fds from the store", (int)pid,
		 self->options->command[0], self->store.n_fds);
	keeper_enter_running(self);
}

/* The service has ended and all of it is gone, or it could not be started: what next? */
static void keeper_decide(struct keeper *self)
{
	struct restart *restart = &self->options->restart;
	uint64_t now_usec = time_now_usec(), wait_usec;

	restart->is_holding = self->store.n_fds > 0;
	switch (restart_decide(restart, now_usec)) {
	case RESTART_NOW:
		keeper_start_service(self);
		break;
	case RESTART_LATER:
		wait_usec = restart_wait_usec(restart, now_usec);
		say_line(LOG_INFO, "%zu fds in the store; restart in %llu ms",
			 self->store.n_fds,
			 (unsigned long long)(wait_usec / USEC_PER_MSEC));
		keeper_enter(self, KEEPER_WAITING, wait_usec);
		break;
	case RESTART_ON_CONNECTION:
		keeper_enter_idle(self);
		break;
	case RESTART_NEVER:
		say_line(LOG_INFO, "leaving with exit status %d", restart->exit_status);
		(void)sd_event_exit(self->event, restart->exit_status);
		break;
	}
}

static void keeper_look_whether_cleared(struct keeper *self)
{
	if (service_is_cleared(&self->service))
		keeper_decide(self);
	else
		keeper_enter(self, KEEPER_CLEARING, CLEARING_USEC);
}

/* The main process is dead and not reaped, but by its parent where info is NULL. */
static void keeper_main_ended(struct keeper *self, const siginfo_t *info)
{
	int *last_status = &self->options->restart.last_status;

	*last_status = RESTART_STATUS_NONE;
	if (!info) {
		say_line(LOG_NOTICE, "pid %d has gone", (int)self->service.main_pid);
	} else if (info->si_code == CLD_EXITED) {
		*last_status = info->si_status & (RESTART_STATUSES - 1);
		say_line(LOG_NOTICE, "pid %d exited with status %d", (int)info->si_pid,
			 *last_status);
	} else {
		say_line(LOG_NOTICE, "pid %d was killed by signal %d (%s)",
			 (int)info->si_pid, info->si_status, strsignal(info->si_status));
	}
	service_end(&self->service);
	self->main_end = sd_event_source_disable_unref(self->main_end);
	keeper_enter(self, KEEPER_CLEARING, CLEARING_USEC);
}

static int on_notify(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void)source, (void)fd, (void)events;
	keeper_drain(userdata);
	return 0;
}

/* Something has ended: the main process, what it left behind, or any orphan. */
static void keeper_reap(struct keeper *self)
{
	siginfo_t info;

	for (;;) {
		info.si_pid = 0; /* which waitid() leaves if there is none */
		if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 ||
		    !info.si_pid)
			break;
		/* all that it ever sent is there now, and its pid not yet another's */
		keeper_drain(self);
		if (service_is_main(&self->service, info.si_pid))
			keeper_main_ended(self, &info);
		(void)waitid(P_PID, (id_t)info.si_pid, &info, WEXITED | WNOHANG);
	}
	/* what it said last may have been who comes after it */
	if (service_has_vanished(&self->service))
		keeper_drain(self);
	if (service_has_vanished(&self->service))
		keeper_main_ended(self, NULL);
	if (self->phase == KEEPER_CLEARING)
		keeper_look_whether_cleared(self);
}

static int on_child(sd_event_source *source, const struct signalfd_siginfo *info,
		    void *userdata)
{
	(void)source, (void)info; /* one signal may stand for many children */
	keeper_reap(userdata);
	return 0;
}

int keeper_on_main_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	(void)source, (void)fd, (void)events;
	keeper_reap(userdata);
	return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct keeper *self = userdata;

	(void)source, (void)usec;
	switch (self->phase) {
	case KEEPER_IDLE:
		break;
	case KEEPER_RUNNING:
		say_line(LOG_ERR, "pid %d did not feed its watchdog for %llu ms: SIGABRT",
			 (int)self->service.main_pid,
			 (unsigned long long)(self->watchdog_usec / USEC_PER_MSEC));
		keeper_stop_service(self, SIGABRT);
		break;
	case KEEPER_STOPPING:
		say_line(LOG_WARNING, "pid %d has not ended: SIGKILL",
			 (int)self->service.main_pid);
		service_kill(&self->service);
		keeper_enter(self, KEEPER_STOPPING, USEC_INFINITY);
		break;
	case KEEPER_CLEARING:
		keeper_look_whether_cleared(self);
		break;
	case KEEPER_WAITING:
		keeper_start_service(self);
		break;
	}
	return 0;
}

/* IDLE is over. A service that leaves again at once must not make this a busy loop. */
static int on_connection(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct keeper *self = userdata;

	(void)source, (void)fd, (void)events;
	keeper_enter(self, KEEPER_WAITING,
		     restart_wait_usec(&self->options->restart, time_now_usec()));
	return 0;
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info,
		     void *userdata)
{
	struct keeper *self = userdata;
	struct restart *restart = &self->options->restart;
	int number = (int)info->ssi_signo;

	(void)source;
	if (number == SIGUSR2) {
		service_signal(&self->service, SIGUSR2);
		return 0;
	}
	if (number == SIGHUP)
		restart->is_asked = true;
	else
		restart->is_leaving = true;
	say_line(LOG_INFO, "%s: %s", strsignal(number),
		 restart->is_leaving ? "stopping" : "restarting the service");

	if (self->service.main_pid > 0)
		keeper_stop_service(self, SIGTERM);
	else if (self->phase != KEEPER_CLEARING) /* which ends in this by itself */
		keeper_decide(self);
	return 0;
}

/* Makes a store smaller that could not be passed on within the limit of open files. */
static size_t keeper_store_max(const struct keeper_options *options)
{
	size_t possible =
		spawn_raise_limit(options->listeners.n, OWN_FDS_MAX + NOTIFY_FDS_MAX);

	if (possible >= options->store_max)
		return options->store_max;
	say_line(LOG_WARNING,
		 "--store-max=%zu is too much for the limit of open files "
		 "(ulimit -Hn): %zu at most",
		 options->store_max, possible);
	return possible;
}

static int keeper_listen(struct keeper *self)
{
	struct listeners *listeners = &self->options->listeners;
	size_t i;
	int r = listeners_open(listeners, self->event, on_connection, self);

	for (i = 0; i < listeners->n_open; i++)
		say_line(LOG_INFO, "listening on %s", listeners->all[i].text);
	if (r < 0)
		say_line(LOG_ERR, "cannot listen on %s: %s",
			 listeners->all[listeners->n_open].text, strerror(-r));
	return r;
}

static int keeper_add_signal(struct keeper *self, int number,
			     sd_event_signal_handler_t handler)
{
	/* blocked from now on; spawn.c unblocks all in the child */
	return sd_event_add_signal(self->event, NULL, number | SD_EVENT_SIGNAL_PROCMASK,
				   handler, self);
}

static int keeper_add_sources(struct keeper *self)
{
	const int numbers[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR2};
	size_t i;
	int r;

	r = sd_event_add_time(self->event, &self->timer, CLOCK_MONOTONIC, 0, 1, on_timer,
			      self);
	if (r >= 0)
		r = sd_event_add_io(self->event, NULL, self->notify.fd, EPOLLIN,
				    on_notify, self);
	if (r >= 0)
		r = keeper_add_signal(self, SIGCHLD, on_child);
	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]) && r >= 0; i++)
		r = keeper_add_signal(self, numbers[i], on_signal);
	return r;
}

static int keeper_init(struct keeper *self, struct keeper_options *options)
{
	int r;

	*self = (struct keeper){.options = options, .notify.fd = -EBADF};
	r = sd_event_new(&self->event);
	if (r < 0)
		return r;
	store_init(&self->store, self->event, keeper_store_max(options),
		   SPAWN_NAMES_MAX - listeners_names_size(&options->listeners));
	r = keeper_listen(self);
	if (r < 0)
		return r;
	r = notify_socket_init(&self->notify);
	if (r < 0)
		return r;
	/* orphans of the service become ours, among them the new process of a takeover */
	if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
		return -errno;
	/* a closed stderr is no reason to lose the store */
	(void)signal(SIGPIPE, SIG_IGN);
	return keeper_add_sources(self);
}

static void keeper_done(struct keeper *self)
{
	store_done(&self->store);
	listeners_done(&self->options->listeners);
	(void)sd_event_source_disable_unref(self->timer);
	(void)sd_event_source_disable_unref(self->main_end);
	(void)sd_event_unref(self->event);
	notify_socket_done(&self->notify);
}

int keeper_run(struct keeper_options *options)
{
	struct keeper self;
	int r;

	r = keeper_init(&self, options);
	if (r >= 0) {
		if (options->is_on_demand)
			keeper_enter_idle(&self);
		else
			keeper_start_service(&self);
		r = sd_event_loop(self.event);
	}
	if (r < 0) {
		say_line(LOG_ERR, "cannot go on: %s", strerror(-r));
		r = EXIT_FAILURE;
	}
	keeper_done(&self);
	return r;
}
