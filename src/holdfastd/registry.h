/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The registry: which worker serves the connection of each slot. It is how the main
 * thread finds out whom to ask: it reads ids and owners here, and never the ledger's
 * records or a connection, which are the workers' to change at any instant.
 *
 * An entry is written by the worker that serves its slot, and by no other: before that
 * one has its turn, or after, another has. The memory of entries that were never used
 * costs nothing.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct connection;

struct registry_entry {
	_Atomic uint64_t id;           /* of the connection; 0: none */
	_Atomic uint32_t worker;       /* index + 1; 0: none */
	struct connection *connection; /* its worker's only */
};

struct registry {
	struct registry_entry *entries; /* NULL: nothing is registered, see below */
	uint32_t n_entries;
	_Atomic uint32_t end; /* entries at and above this were never used */
};

/*
 * Returns 0 or -ENOMEM. A registry that was never initialised takes what is added and
 * finds nothing: serving does not depend on it.
 */
int registry_init(struct registry *registry, uint32_t n_slots);
void registry_done(struct registry *registry);

/* The worker's that serves the connection: from its first instant to its last. */
void registry_add(struct registry *registry, uint32_t slot, uint64_t id, unsigned worker,
		  struct connection *connection);
void registry_remove(struct registry *registry, uint32_t slot);

/* Any thread's: whether there is a connection in slot, and then its id and worker. */
bool registry_look(const struct registry *registry, uint32_t slot, uint64_t *ret_id,
		   unsigned *ret_worker);

/* The worker's: its connection id in slot, or NULL if that is another by now, or
 * another worker's. */
struct connection *registry_get(const struct registry *registry, uint32_t slot,
				uint64_t id, unsigned worker);

/* Any thread's: where slots that are in use end. */
uint32_t registry_end(const struct registry *registry);
