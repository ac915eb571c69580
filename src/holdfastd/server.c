/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/server.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/time.h"
#include "holdfastd/control.h"
#include "holdfastd/crash.h"
#include "holdfastd/messages.h"
#include "holdfastd/recover.h"
#include "holdfastd/worker.h"

/* How long the service manager may take to answer the first uploads. */
#define STOCK_TIMEOUT_USEC (60 * USEC_PER_SEC)
#define TICK_USEC USEC_PER_SEC
/* A process that has lived for this long ends a row of crashes. */
#define SETTLED_USEC (10 * USEC_PER_SEC)
/* Fds that are nobody's connection: standard ones, epolls, listeners, logs, spares, and
 * clients of the control socket. */
#define FILES_RESERVED 64
#define STATUS_SIZE 256
/* At the end, for what was answered last. */
#define CONTROL_FLUSH_USEC (100 * USEC_PER_MSEC)

struct server {
	struct shared shared;
	struct adopt_report report;
	struct recovery recovery;
	uint64_t started_usec;
	uint64_t watchdog_usec; /* 0: none */
	uint64_t rounds_seen[THREADS_MAX];
	unsigned n_missed[THREADS_MAX]; /* checks in a row without a round in between */
	char status[STATUS_SIZE];
	sd_event *event;
	struct control *control; /* NULL: none */
};

/* ---- limits ---- */

/* Fds of one connection at its worst: its sockets, and a pipe for each flow. */
static unsigned files_per_connection(enum service_kind service)
{
	switch (service) {
	case SERVICE_LOG:
	case SERVICE_ECHO:
		return 2;
	case SERVICE_RELAY:
		return 4;
	}
	return 4;
}

static unsigned long raise_files_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	limit.rlim_cur = limit.rlim_max;
	/* Up to the hard limit it is always allowed */
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur == RLIM_INFINITY ? CONNECTIONS_MAX * 8UL : limit.rlim_cur;
}

static unsigned connections_max(const struct options *options, unsigned long files)
{
	unsigned per_connection = files_per_connection(options->service);
	unsigned long most;

	files = files > 2 * FILES_RESERVED ? files - FILES_RESERVED : FILES_RESERVED;
	/* Two fds for each parcel of PARCEL_ENTRIES_MAX: one part in a hundred */
	most = (files - files / 100) / per_connection;
	if (most > CONNECTIONS_MAX)
		most = CONNECTIONS_MAX;
	if (options->connections_max == 0)
		return (unsigned)most;
	if (options->connections_max > most)
		log_warning("--connections-max=%u needs more open files than the limit of %lu "
			    "allows: %lu connections are served (raise LimitNOFILE=)",
			    options->connections_max, files, most);
	return options->connections_max < most ? options->connections_max
					       : (unsigned)most;
}

static unsigned n_threads(const struct options *options)
{
	cpu_set_t cpus;
	int n = 1;

	if (options->n_threads > 0)
		return options->n_threads;
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		n = CPU_COUNT(&cpus);
	return n > THREADS_MAX ? THREADS_MAX : (unsigned)n;
}

static_assert(THREADS_MAX <= LEDGER_WORKERS_MAX,
	      "the ledger names what each worker has in hand");

/* ---- status ---- */

static void set_status(struct server *server)
{
	char status[STATUS_SIZE];

	(void)snprintf(status, sizeof(status),
		       "STATUS=%s: %u connections, %u adopted at start, %u restarts survived",
		       service_name(server->shared.options->service),
		       server->shared.n_connections, server->recovery.n_adopted,
		       server->report.n_starts - 1);
	if (strcmp(status, server->status) == 0)
		return;
	memcpy(server->status, status, sizeof(status));
	(void)sd_notify(0, status); /* there is nobody else to tell */
}

/* ---- events ---- */

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info,
		     void *userdata)
{
	struct server *server = userdata;

	(void)source;
	log_line(LOG_INFO, MESSAGE_STOPPING, "Stopping on SIG%s",
		 sigabbrev_np((int)info->ssi_signo));
	(void)sd_notify(0, "STOPPING=1"); /* it is for show only */
	return sd_event_exit(server->event, EXIT_SUCCESS);
}

static int on_vault(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct server *server = userdata;

	(void)source;
	(void)fd;
	(void)events;
	vault_dispatch(server->shared.vault);
	return 0;
}

/* Leaves if nothing is being served and nobody is about to accept (see accept_one()). */
static bool may_leave(struct server *server)
{
	struct shared *shared = &server->shared;
	uint64_t now = time_now_usec(), idle = shared->options->exit_idle_usec;
	uint64_t last = shared->last_end_usec;

	if (last < server->started_usec)
		last = server->started_usec;
	if (idle == USEC_INFINITY || shared->n_connections > 0 || now - last < idle)
		return false;
	shared->leaving = true;
	if (shared->n_connections > 0) {
		shared->leaving = false;
		return false;
	}
	return true;
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct server *server = userdata;
	int r;

	vault_tick(server->shared.vault);
	set_status(server);
	server->shared.vault->ledger.header->alive_usec = time_now_usec();
	if (time_now_usec() - server->started_usec > SETTLED_USEC)
		server->shared.vault->ledger.header->n_crashes_in_row = 0;
	if (may_leave(server)) {
		log_line(LOG_INFO, MESSAGE_STOPPING,
			 "No connection for a while: leaving");
		return sd_event_exit(server->event, EXIT_STATUS_IDLE);
	}
	(void)usec;
	r = sd_event_source_set_time_relative(source, TICK_USEC);
	return r < 0 ? r : sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/*
 * Three times in the timeout each worker is woken, and must have gone a round by the next
 * time or the one after it. Fed only if all have: a worker that hangs lets the manager
 * end us.
 */
static int on_watchdog(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct server *server = userdata;
	bool all_alive = true;
	int r;

	for (unsigned i = 0; i < server->shared.n_workers; i++) {
		struct worker *worker = &server->shared.workers[i];
		uint64_t rounds = worker->n_rounds;

		server->n_missed[i] =
			rounds == server->rounds_seen[i] ? server->n_missed[i] + 1 : 0;
		/* Once may be this whole process's fault: it was stopped, or the machine
		 * was */
		if (server->n_missed[i] > 1) {
			all_alive = false;
			log_line(LOG_ERR, MESSAGE_WATCHDOG, "Worker %u makes no progress",
				 i);
		}
		server->rounds_seen[i] = rounds;
		worker_wake(worker);
	}
	if (all_alive)
		(void)sd_notify(0,
				"WATCHDOG=1"); /* missed, the next one is in time too */
	(void)usec;
	r = sd_event_source_set_time_relative(source, server->watchdog_usec / 3);
	return r < 0 ? r : sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

static void wake_workers(void *userdata)
{
	struct server *server = userdata;

	for (unsigned i = 0; i < server->shared.n_workers; i++)
		worker_wake(&server->shared.workers[i]);
}

static int add_timers(struct server *server)
{
	int r;

	r = sd_event_add_time_relative(server->event, NULL, CLOCK_MONOTONIC, TICK_USEC, 0,
				       on_tick, server);
	if (r < 0)
		return r;
	if (sd_watchdog_enabled(0, &server->watchdog_usec) <= 0) {
		server->watchdog_usec = 0;
		return 0;
	}
	return sd_event_add_time_relative(server->event, NULL, CLOCK_MONOTONIC,
					  server->watchdog_usec / 3, 0, on_watchdog,
					  server);
}

static int add_events(struct server *server)
{
	static const int signals[] = {SIGTERM, SIGINT};
	int r;

	r = sd_event_new(&server->event);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		r = sd_event_add_signal(server->event, NULL, signals[i], on_signal,
					server);
		if (r < 0)
			return r;
	}
	r = sd_event_add_io(server->event, NULL, vault_fd(server->shared.vault), EPOLLIN,
			    on_vault, server);
	return r < 0 ? r : add_timers(server);
}

/* ---- control ---- */

static int on_takeover(void *userdata, char *const *command_line,
		       struct control_call *call, char *ret_error, size_t error_size)
{
	(void)userdata;
	(void)command_line;
	(void)call;
	(void)snprintf(ret_error, error_size, "takeover is not implemented");
	return -EOPNOTSUPP;
}

static int open_control(struct server *server, const char *path)
{
	static const struct control_handlers handlers = {.takeover = on_takeover};
	_cleanup_close_ int fd = -EBADF;
	int r;

	r = control_listen(path, &fd);
	if (r < 0)
		return r;
	r = control_new(server->event, fd, &handlers, server, &server->control);
	if (r >= 0)
		(void)take_fd(&fd);
	return r;
}

/* Nobody's connection is worth less for the want of it: what fails is said, that is all. */
static void start_control(struct server *server)
{
	const char *path = server->shared.options->control;
	int r = path ? open_control(server, path) : 0;

	if (r < 0)
		log_warning("No control socket at %s: %s", path,
			    control_listen_strerror(r));
}

/* ---- the start ---- */

static void close_stored(const struct stored_fd *stored, size_t n)
{
	for (size_t i = 0; i < n; i++)
		(void)fd_close(stored[i].fd);
}

static int init_workers(struct server *server, unsigned n)
{
	struct shared *shared = &server->shared;

	shared->workers = calloc(n, sizeof(*shared->workers));
	if (!shared->workers)
		return -ENOMEM;
	shared->n_workers = n;
	for (unsigned i = 0; i < n; i++) {
		int r = worker_init(&shared->workers[i], shared, i);

		if (r < 0)
			return r;
	}
	return 0;
}

static int start_workers(struct server *server)
{
	for (unsigned i = 0; i < server->shared.n_workers; i++) {
		int r = worker_start(&server->shared.workers[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

static int open_vault(struct server *server, const struct stored_fd *stored,
		      size_t n_stored)
{
	struct shared *shared = &server->shared;
	unsigned n = n_threads(shared->options);
	int r;

	r = vault_new(n, &shared->vault);
	if (r < 0) {
		close_stored(stored, n_stored);
		return r;
	}
	r = vault_adopt(shared->vault, stored, n_stored, LEDGER_SLOTS_MAX,
			&server->report);
	if (r < 0)
		return r;
	recover_say(&server->report);
	server->recovery = (struct recovery){
		.shared = shared,
		.began_usec = server->started_usec,
		.last_alive_usec = shared->vault->ledger.header->alive_usec,
	};
	shared->vault->ledger.header->alive_usec = server->started_usec;
	crash_init(shared->vault->ledger.header);
	recover_delay(&server->report);
	return init_workers(server, n);
}

/*
 * The first spares, and with them the manager's word that it stores anything at all.
 * Connections that were adopted go on without any; new ones have to wait.
 */
static int stock_vault(struct server *server)
{
	int r = vault_stock_wait(server->shared.vault, STOCK_TIMEOUT_USEC);

	if (r != -ENOSPC)
		return r;
	if (server->recovery.n_adopted == 0 && server->report.n_parcels == 0) {
		log_error(
			"The service manager stores no file descriptors for this service: set "
			"FileDescriptorStoreMax=4096 in its unit");
		return r;
	}
	worker_limit_reached(&server->shared, LIMIT_STORE,
			     "The fd store is full (FileDescriptorStoreMax=): new connections "
			     "wait");
	return 0;
}

static int resolve_upstream(struct server *server)
{
	const struct options *options = server->shared.options;

	if (options->service != SERVICE_RELAY)
		return 0;
	return upstream_new(&options->upstream, wake_workers, server,
			    &server->shared.upstream);
}

static int start(struct server *server, const struct stored_fd *stored, size_t n_stored)
{
	struct shared *shared = &server->shared;
	int r;

	r = open_vault(server, stored, n_stored);
	if (r < 0)
		return r;
	r = resolve_upstream(server);
	if (r < 0)
		return r;
	r = recover_connections(&server->recovery);
	if (r < 0)
		return r;
	shared->vault->wake_packers = wake_workers;
	shared->vault->userdata = server;
	r = add_events(server);
	if (r < 0)
		return r;
	/* Adopted connections go on now; new ones as soon as there are parcels for them */
	r = start_workers(server);
	return r < 0 ? r : stock_vault(server);
}

void server_block_signals(void)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	/* Inherited by every thread: the event loop's signalfd gets them */
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
	/* splice(2) has no MSG_NOSIGNAL (tests/kernel/splice-to-lost-peer.c) */
	(void)signal(SIGPIPE, SIG_IGN);
}

int server_run(const struct options *options, const int *listeners, size_t n_listeners,
	       const struct stored_fd *stored, size_t n_stored)
{
	static struct server server; /* threads use it to the last instant */
	int r;

	server.started_usec = time_now_usec();
	server.shared.options = options;
	server.shared.listeners = listeners;
	server.shared.n_listeners = n_listeners;
	server.shared.connections_max = connections_max(options, raise_files_limit());
	r = start(&server, stored, n_stored);
	if (r < 0) {
		log_error("Can't start: %s", strerror(-r));
		log_flush(USEC_PER_SEC);
		return r == -ENOSPC ? EXIT_STATUS_USAGE : EXIT_FAILURE;
	}
	log_line(LOG_INFO, MESSAGE_STARTED, "tcp server started");
	set_status(&server);
	start_control(&server);
	(void)sd_notify(0, "READY=1"); /* there is a manager: it was spoken to before */
	vault_dispatch(server.shared.vault);
	r = sd_event_loop(server.event);
	if (r < 0) {
		log_error("The event loop failed: %s", strerror(-r));
		r = EXIT_FAILURE;
	}
	control_flush(server.control, CONTROL_FLUSH_USEC);
	/* Lines only: what matters is in the store already */
	log_flush(100 * USEC_PER_MSEC);
	return r;
}
