/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the server does from time to time: its status, its watchdog, leaving when idle. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <systemd/sd-daemon.h>

#include "base/log.h"
#include "base/plural.h"
#include "base/time.h"
#include "holdfastd/messages.h"
#include "holdfastd/server-private.h"

#define TICK_USEC USEC_PER_SEC
/* A process that has lived for this long ends a row of crashes. */
#define SETTLED_USEC (10 * USEC_PER_SEC)

void server_set_status(struct server *server)
{
	const struct shared *shared = &server->shared;
	unsigned n = shared->n_connections, n_restarts = server->report.n_starts - 1;
	const char *upstream = shared->upstream ? upstream_name(shared->upstream) : "";
	char status[STATUS_SIZE];

	if (!server->is_heard)
		return;
	(void)snprintf(
		status, sizeof(status),
		"STATUS=%s%s%s: %u connection%s, %u adopted at start, %u restart%s survived",
		service_name(shared->options->service), *upstream ? " " : "", upstream, n,
		plural(n), server->recovery.n_adopted, n_restarts, plural(n_restarts));
	if (strcmp(status, server->status) == 0)
		return;
	memcpy(server->status, status, sizeof(status));
	(void)sd_notify(0, status); /* there is nobody else to tell */
}

/* What sd_event does with an error of a callback is to go on without its source. */
static int set_next_time(struct server *server, sd_event_source *source, uint64_t usec)
{
	int r = sd_event_source_set_time_relative(source, usec);

	if (r >= 0)
		r = sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return r < 0 ? sd_event_exit(server->event, EXIT_FAILURE) : 0;
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
	takeover_look(server->takeover);
	if (sd_event_get_exit_code(server->event, &r) >= 0)
		return 0;
	if (server->shared.vault->stores_nothing) {
		/* Whoever is still in the backlog stays there */
		server_halt();
		server_say_stores_nothing();
		return sd_event_exit(server->event, EXIT_STATUS_USAGE);
	}
	server_set_status(server);
	server->shared.vault->ledger.header->alive_usec = time_now_usec();
	if (time_now_usec() - server->started_usec > SETTLED_USEC)
		server->shared.vault->ledger.header->n_crashes_in_row = 0;
	if (may_leave(server)) {
		log_line(LOG_INFO, MESSAGE_STOPPING,
			 "No connection for a while: leaving");
		return sd_event_exit(server->event, EXIT_STATUS_IDLE);
	}
	(void)usec;
	return set_next_time(server, source, TICK_USEC);
}

static void say_worker_hangs(unsigned index)
{
	struct log_entry *line = log_line_new(LOG_ERR, MESSAGE_WATCHDOG);

	log_entry_add(line, "HOLDFAST_WORKER=%u", index);
	log_line_send(line, "Worker %u makes no progress", index);
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

	for (unsigned i = 0; i < server->shared.n_workers; i++) {
		struct worker *worker = &server->shared.workers[i];
		uint64_t rounds = worker->n_rounds;

		server->n_missed[i] =
			rounds == server->rounds_seen[i] ? server->n_missed[i] + 1 : 0;
		/* Once may be this whole process's fault: it was stopped, or the machine
		 * was */
		if (server->n_missed[i] > 1) {
			all_alive = false;
			say_worker_hangs(i);
		}
		server->rounds_seen[i] = rounds;
		worker_wake(worker);
	}
	if (all_alive && server->is_heard)
		/* Missed, the next one is in time too */
		(void)sd_notify(0, "WATCHDOG=1");
	(void)usec;
	return set_next_time(server, source, server->watchdog_usec / 3);
}

int server_add_timers(struct server *server)
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
