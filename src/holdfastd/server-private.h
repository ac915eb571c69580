/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between the files of the server's room only: server.c starts it and has its signals,
 * server-clock.c what it does from time to time, server-control.c what is asked of it
 * through the control socket.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "holdfastd/auditor.h"
#include "holdfastd/control.h"
#include "holdfastd/inspection.h"
#include "holdfastd/recover.h"
#include "holdfastd/server.h"
#include "holdfastd/successor.h"
#include "holdfastd/takeover.h"
#include "holdfastd/worker.h"

#define STATUS_SIZE 512

struct server {
	struct shared shared;
	struct adopt_report report;
	struct recovery recovery;
	struct takeover *takeover;
	struct auditor *auditor;
	struct successor *successor; /* NULL: adopted from the store */
	bool are_workers_running;
	bool is_handed_over;
	bool is_heard; /* by the service manager: this is its main process */
	char **arguments;
	uint64_t started_usec;
	uint64_t watchdog_usec; /* 0: none */
	uint64_t rounds_seen[THREADS_MAX];
	unsigned n_missed[THREADS_MAX]; /* checks in a row without a round in between */
	char status[STATUS_SIZE];
	sd_event *event;
	struct inspection *inspection;
	struct control *control;            /* NULL: none */
	struct control_call *takeover_call; /* who has asked for the one under way */
};

/* Tells the service manager what is served, if that has changed. */
void server_set_status(struct server *server);

/* Says that no connection would outlive this process. */
void server_say_stores_nothing(void);

/*
 * Adds to the event loop what is done each second, and the watchdog's part. Returns 0 or
 * a negative errno.
 */
int server_add_timers(struct server *server);

/* Opens the control socket, if there is to be one. What fails is said, that is all. */
void server_start_control(struct server *server);

/* Answers who has asked for the takeover that has just ended, if somebody has. */
void server_answer_takeover(struct server *server, enum takeover_result result, pid_t pid,
			    const char *why);
