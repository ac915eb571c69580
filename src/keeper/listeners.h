/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The sockets that the keeper listens on for the service, from its start to its end. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <systemd/sd-event.h>

#include "keeper/address.h"
#include "keeper/fdname.h"

#define LISTENERS_MAX 64

struct listener {
	const char *text; /* the address as given, for messages; borrowed */
	char name[FD_NAME_MAX + 1];
	struct address address;
	int fd;
	sd_event_source *source;
};

/* All zeroes are no listeners. */
struct listeners {
	size_t n;
	size_t n_open;
	struct listener all[LISTENERS_MAX];
};

/*
 * Adds the address text, which is borrowed; its name is the address, made legal.
 * Returns 0, -EINVAL if it is none of ADDRESS_FORMS, or -E2BIG if there are
 * LISTENERS_MAX.
 */
int listeners_add(struct listeners *listeners, const char *text);

/* Names all of them name, a valid one. */
void listeners_set_name(struct listeners *listeners, const char *name);

/*
 * Opens all of them, and adds them to event with handler, switched off.
 * Returns 0, or the negative errno of the first that failed, which is all[n_open].
 */
int listeners_open(struct listeners *listeners, sd_event *event,
		   sd_event_io_handler_t handler, void *userdata);

/* Switches on or off that the handler is called while a connection waits. */
int listeners_watch(struct listeners *listeners, bool is_on);

/* Bytes in all names, with a separator for each. */
size_t listeners_names_size(const struct listeners *listeners);

/* Closes those that are open. */
void listeners_done(struct listeners *listeners);
