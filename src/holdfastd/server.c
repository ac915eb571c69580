/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/server.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "base/fd.h"
#include "base/leisure.h"
#include "base/log.h"
#include "base/time.h"
#include "holdfastd/capacity.h"
#include "holdfastd/crash.h"
#include "holdfastd/messages.h"
#include "holdfastd/server-private.h"
#include "vault/proof.h"

/* How long the service manager may take to answer the first uploads. */
#define STOCK_TIMEOUT_USEC (60 * USEC_PER_SEC)
/* At the end, for what was answered last. */
#define CONTROL_FLUSH_USEC (100 * USEC_PER_MSEC)

static_assert(THREADS_MAX <= LEDGER_WORKERS_MAX,
	      "the ledger names what each worker has in hand");

/* ---- events ---- */

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info,
		     void *userdata)
{
	struct server *server = userdata;
	struct log_entry *line;

	(void)source;
	line = log_line_new(LOG_INFO, MESSAGE_STOPPING);
	log_entry_add(line, "HOLDFAST_CONNECTIONS=%u", server->shared.n_connections);
	log_line_send(line, "Stopping on SIG%s", sigabbrev_np((int)info->ssi_signo));
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
	takeover_look(server->takeover);
	return 0;
}

static int on_takeover_signal(sd_event_source *source,
			      const struct signalfd_siginfo *info, void *userdata)
{
	struct server *server = userdata;
	const char *why;

	(void)source, (void)info;
	/* It has been logged if it could not be begun */
	(void)takeover_begin(server->takeover, NULL, &why);
	return 0;
}

static void on_takeover_ended(void *userdata, enum takeover_result result, pid_t pid,
			      const char *why)
{
	struct server *server = userdata;

	server_answer_takeover(server, result, pid, why);
	switch (result) {
	case TAKEOVER_DONE:
		server->is_handed_over = true;
		(void)sd_event_exit(server->event, EXIT_SUCCESS);
		break;
	case TAKEOVER_ROLLED_BACK:
		break;
	case TAKEOVER_LOST:
		log_line(LOG_ERR, MESSAGE_TAKEOVER_FAILED,
			 "Leaving, to be started again: %s", why);
		(void)sd_event_exit(server->event, EXIT_STATUS_AGAIN);
		break;
	}
}

/*
 * The service manager listens to this process from now on. Until then a takeover has to
 * wait: its signal stays pending.
 */
static int be_heard(struct server *server)
{
	int r = sd_event_add_signal(server->event, NULL, SIGUSR2, on_takeover_signal,
				    server);

	if (r < 0)
		return r;
	server->is_heard = true;
	server_start_control(server);
	server_set_status(server);
	/* There is a manager: it was spoken to before. Its watchdog counts on from what
	 * the process before this one has said */
	(void)sd_notify(0, "READY=1\nWATCHDOG=1");
	vault_go_on(server->shared.vault);
	return 0;
}

static void on_takeover_audited(void *userdata, const struct audit_result *result)
{
	(void)userdata;
	audit_log_tally(&result->tally);
}

static int on_released(void *userdata, bool is_heard)
{
	struct server *server = userdata;

	if (!is_heard) {
		log_line(LOG_ERR, MESSAGE_TAKEOVER_FAILED,
			 "Leaving, to be started again: the old process has died before "
			 "the service manager knew of this one");
		return sd_event_exit(server->event, EXIT_STATUS_AGAIN);
	}
	/* Without memory for it the connections go on as they are */
	if (server->shared.n_connections > 0)
		(void)auditor_begin(server->auditor, false, on_takeover_audited, server);
	return be_heard(server) < 0 ? sd_event_exit(server->event, EXIT_FAILURE) : 0;
}

static void wake_workers(void *userdata)
{
	struct server *server = userdata;

	for (unsigned i = 0; i < server->shared.n_workers; i++)
		worker_wake(&server->shared.workers[i]);
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
	if (r < 0)
		return r;
	r = auditor_new(&server->shared, server->event, &server->auditor);
	if (r < 0)
		return r;
	r = takeover_new(&server->shared, server->event, server->arguments,
			 on_takeover_ended, server, &server->takeover);
	return r < 0 ? r : server_add_timers(server);
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

	shared->vault->wake_packers = wake_workers;
	shared->vault->userdata = server;
	shared->workers = calloc(n, sizeof(*shared->workers));
	if (!shared->workers)
		return -ENOMEM;
	shared->n_workers = n;
	if (shared->options->control &&
	    registry_init(&shared->registry, LEDGER_SLOTS_MAX) < 0)
		return -ENOMEM;
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
	unsigned n = capacity_get_threads(shared->options);
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

void server_say_stores_nothing(void)
{
	log_line(LOG_ERR, MESSAGE_NOT_STARTED,
		 "The service manager stores no file descriptors for this service: set "
		 "FileDescriptorStoreMax=4096 in its unit");
}

/* Errors of which the next tick may find nothing: see vault_tick(). */
static bool is_lack(int error)
{
	return error == -ENOSPC || error == -EMFILE || error == -ENFILE ||
	       error == -ETOOMANYREFS || error == -ENOMEM || error == -ENOBUFS;
}

/*
 * The first spares, and with them the manager's word that it stores anything at all.
 * Connections that were adopted go on without any; new ones have to wait.
 */
static int stock_vault(struct server *server)
{
	struct vault *vault = server->shared.vault;
	bool was_empty = server->recovery.n_adopted == 0 && server->report.n_parcels == 0;
	int r;

	if (was_empty)
		proof_begin(vault);
	r = vault_stock_wait(vault, STOCK_TIMEOUT_USEC);
	if (vault->stores_nothing)
		r = -ENOSPC;
	if (was_empty && r == -ENOSPC)
		server_say_stores_nothing();
	if (was_empty || !is_lack(r))
		return r;
	if (r == -ENOSPC)
		worker_limit_reached(&server->shared, LIMIT_STORE,
				     "The fd store is full (FileDescriptorStoreMax=): new "
				     "connections wait");
	else
		worker_limit_reached(&server->shared, LIMIT_FILES,
				     "Nothing can be stored (%s): new connections wait",
				     strerror(-r));
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

/* From the store. */
static int start(struct server *server, const struct stored_fd *stored, size_t n_stored)
{
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
	r = add_events(server);
	if (r < 0)
		return r;
	/* Adopted connections go on now; new ones as soon as there are parcels for them */
	server->are_workers_running = true;
	r = start_workers(server);
	if (r == 0)
		r = stock_vault(server);
	if (r < 0)
		return r;
	log_line(LOG_INFO, MESSAGE_STARTED, "tcp server started");
	return be_heard(server);
}

static int receive_vault(struct server *server, int handover)
{
	struct shared *shared = &server->shared;
	unsigned n = capacity_get_threads(shared->options);
	int r;

	r = vault_new(n, &shared->vault);
	if (r == 0)
		r = successor_new(handover, shared->vault, &server->successor);
	if (r < 0)
		return r;
	shared->listeners =
		successor_get_listeners(server->successor, &shared->n_listeners);
	return init_workers(server, n);
}

/* From a process that serves until this one does. */
static int start_as_successor(struct server *server, int handover)
{
	struct shared *shared = &server->shared;
	int r;

	r = receive_vault(server, handover);
	if (r == 0)
		r = resolve_upstream(server);
	if (r == 0)
		r = add_events(server);
	if (r < 0)
		return r;
	gate_close(&shared->gate);
	r = start_workers(server);
	if (r == 0)
		r = successor_take_over(server->successor, shared);
	if (r < 0)
		return r;
	server->are_workers_running = true;
	server->report.n_starts = shared->vault->ledger.header->n_starts;
	server->recovery.n_adopted = successor_get_n_connections(server->successor);
	return successor_watch_release(server->successor, server->event, on_released,
				       server);
}

void server_block_takeover_signal(void)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGUSR2);
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

void server_block_signals(void)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGINT);
	/* Inherited by every thread: the event loop's signalfd gets them */
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
	/* Else the kernel would reap what takeover.c waits for; it may be inherited */
	(void)signal(SIGCHLD, SIG_DFL);
	/* splice(2) has no MSG_NOSIGNAL (tests/kernel/splice-to-lost-peer.c) */
	(void)signal(SIGPIPE, SIG_IGN);
}

static int start_anyhow(struct server *server, const struct inheritance *inheritance)
{
	if (inheritance->handover >= 0) {
		int r = start_as_successor(server, inheritance->handover);

		/* Where more was said before, that counts */
		if (r < 0)
			successor_say_failure(inheritance->handover, strerror(-r));
		return r;
	}
	server->shared.listeners = inheritance->listeners;
	server->shared.n_listeners = inheritance->n_listeners;
	return start(server, inheritance->stored, inheritance->n_stored);
}

static struct server the_server; /* threads use it to the last instant */

int server_run(const struct options *options, const struct inheritance *inheritance)
{
	struct server *server = &the_server;
	int r;

	server->started_usec = time_now_usec();
	server->arguments = inheritance->arguments;
	server->shared.options = options;
	server->shared.connections_max =
		capacity_get_connections(options, capacity_raise_files());
	server->shared.control_fd = -EBADF;
	gate_init(&server->shared.gate);
	pthread_mutex_init(&server->shared.audited_lock, NULL);
	r = start_anyhow(server, inheritance);
	if (r < 0) {
		log_line(LOG_ERR, MESSAGE_NOT_STARTED, "Can't start: %s", strerror(-r));
		log_flush(USEC_PER_SEC);
		return r == -ENOSPC ? EXIT_STATUS_USAGE : EXIT_FAILURE;
	}
	r = sd_event_loop(server->event);
	if (r < 0) {
		log_error("The event loop failed: %s", strerror(-r));
		r = EXIT_FAILURE;
	}
	control_flush(server->control, CONTROL_FLUSH_USEC);
	/* Lines only: what matters is in the store already */
	log_flush(100 * USEC_PER_MSEC);
	if (server->is_handed_over) {
		takeover_make_way(server->takeover);
		leisure_begin(NULL);
		worker_let_go_all(&server->shared, time_now_usec() + LET_GO_USEC_MAX);
	}
	return r;
}

void server_halt(void)
{
	struct shared *shared = &the_server.shared;

	/* Who has handed over has halted them */
	if (the_server.are_workers_running && !the_server.is_handed_over)
		(void)worker_halt_all(shared, time_now_usec() + HALT_USEC_MAX);
}
