/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between the files of the keeper's room only: keeper.c starts and ends the service,
 * keeper-messages.c has what the service says.
 */
#pragma once

#include <stdint.h>

#include <systemd/sd-event.h>

#include "keeper/keeper.h"
#include "keeper/notify.h"
#include "keeper/service.h"
#include "keeper/store.h"

/* What the timer means stands with each. */
enum keeper_phase {
	KEEPER_IDLE,     /* no service; the next connection starts it. No timer */
	KEEPER_RUNNING,  /* the main process lives. Timer: the watchdog */
	KEEPER_STOPPING, /* it lives but ought to end. Timer: SIGKILL */
	KEEPER_CLEARING, /* it has ended, others not yet. Timer: look again */
	KEEPER_WAITING,  /* no service. Timer: start it */
};

struct keeper {
	struct keeper_options *options;
	sd_event *event;
	sd_event_source *timer;
	sd_event_source *main_end; /* of a main process that is not our child */
	struct notify_socket notify;
	struct store store;

	enum keeper_phase phase;
	struct service service;
	uint64_t watchdog_usec;
};

/* Enters RUNNING, with the whole time of the watchdog ahead. */
void keeper_enter_running(struct keeper *self);

/* Enters STOPPING. signal_number 0: the service said itself that it is about to end. */
void keeper_stop_service(struct keeper *self, int signal_number);

/* Takes all messages that wait. */
void keeper_drain(struct keeper *self);

/* A main process that is not our child has ended: an sd_event_io_handler_t. */
int keeper_on_main_end(sd_event_source *source, int fd, uint32_t events, void *userdata);
