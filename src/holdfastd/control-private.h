/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between the files of the control room only: control.c has the clients,
 * control-methods.c what these can ask. A method's userdata is the struct control_client.
 */
#pragma once

#include <stdbool.h>
#include <sys/queue.h>

#include <systemd/sd-bus.h>

#include "holdfastd/control.h"

struct control_client {
	LIST_ENTRY(control_client) entry;
	struct control *control;
	sd_bus *bus;
	sd_event_source *idle;
	struct control_call *call; /* not yet answered; NULL: none */
	bool has_ended;            /* the reaper will free it */
};

struct control {
	sd_event *event;
	int listen_fd;
	const struct control_handlers *handlers;
	void *userdata;
	sd_id128_t id; /* D-Bus wants one of every server */
	uint64_t idle_usec;
	sd_event_source *acceptor;
	sd_event_source *resumer; /* of the acceptor, after ACCEPT_RETRY_USEC */
	sd_event_source *reaper;
	LIST_HEAD(, control_client) clients;
	unsigned n_clients;
	bool is_leaving;
};

/* Of INSTANCE_INTERFACE. */
extern const sd_bus_vtable control_vtable[];

/* Of org.freedesktop.DBus: as much of it as busctl asks for. */
extern const sd_bus_vtable control_hello_vtable[];

/* Ends a client, which is freed in a later round of the loop: a callback of its may be
 * running. May be repeated. */
void control_client_end(struct control_client *client);

/* Begins a new period of idleness. */
void control_client_touch(struct control_client *client);

struct control_call {
	struct control_client *client; /* NULL: it has gone */
	sd_bus_message *message;
};

/*
 * Makes the call that a method is answered by later. Returns 0, or what the method is to
 * return.
 */
int control_call_begin(struct control_client *client, sd_bus_message *message,
		       struct control_call **ret_call, sd_bus_error *ret_error);

/* Ends it after its client, which is there, was sent a reply with the result r. */
void control_call_finish(struct control_call *call, int r);

/* Ends it without a reply. */
void control_call_free(struct control_call *call);

/* Leaves call without its client, and the client without its call. */
void control_call_drop(struct control_call *call);

/* The method of control-audit.c. */
int control_on_audit(sd_bus_message *message, void *userdata, sd_bus_error *ret_error);
