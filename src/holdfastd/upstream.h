/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The upstream of a relay: turns its address into a list of socket addresses, and does so
 * again at times, in a thread of its own, since getaddrinfo(3) may take as long as it
 * likes.
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <sys/socket.h>

#include "holdfastd/address.h"

/* A name is resolved again after this long; after a failure sooner, but growing to it. */
#define UPSTREAM_REFRESH_SEC 30
#define UPSTREAM_ADDRESSES_MAX 16

struct upstream_address {
	struct sockaddr_storage address;
	socklen_t length;
};

/* An immutable list, shared by reference. */
struct upstream_list {
	_Atomic unsigned n_references;
	size_t n;
	struct upstream_address addresses[UPSTREAM_ADDRESSES_MAX];
};

enum upstream_state {
	UPSTREAM_RESOLVING, /* no answer yet: let connections wait */
	UPSTREAM_RESOLVED,
	UPSTREAM_FAILED, /* never resolved so far */
};

struct upstream;

/*
 * Starts resolving address. changed(userdata) is called, in any thread, when the state
 * has changed. Returns 0 or a negative errno.
 */
int upstream_new(const struct address *address, void (*changed)(void *userdata),
		 void *userdata, struct upstream **ret_upstream);

enum upstream_state upstream_get_state(struct upstream *upstream);

/* The current list, or NULL while there is none. Give it back with upstream_list_unref().
 */
struct upstream_list *upstream_get(struct upstream *upstream);

/* Returns NULL. */
struct upstream_list *upstream_list_unref(struct upstream_list *list);

/* Asks for the name to be resolved soon: an address has failed. */
void upstream_refresh(struct upstream *upstream);

/* As the person wrote it, for messages. */
const char *upstream_name(const struct upstream *upstream);
