/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/registry.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int registry_init(struct registry *registry, uint32_t n_slots)
{
	struct registry_entry *entries = calloc(n_slots, sizeof(*entries));

	if (!entries)
		return -ENOMEM;
	*registry = (struct registry){.entries = entries, .n_entries = n_slots};
	return 0;
}

void registry_done(struct registry *registry)
{
	free(registry->entries);
	*registry = (struct registry){0};
}

static void raise_end(struct registry *registry, uint32_t end)
{
	uint32_t old = registry->end;

	while (old < end && !atomic_compare_exchange_weak(&registry->end, &old, end))
		;
}

void registry_add(struct registry *registry, uint32_t slot, uint64_t id, unsigned worker,
		  struct connection *connection)
{
	struct registry_entry *entry;

	if (!registry->entries)
		return;
	assert(slot < registry->n_entries);
	entry = &registry->entries[slot];
	entry->connection = connection;
	atomic_store_explicit(&entry->worker, worker + 1, memory_order_release);
	atomic_store_explicit(&entry->id, id, memory_order_release);
	raise_end(registry, slot + 1);
}

void registry_remove(struct registry *registry, uint32_t slot)
{
	struct registry_entry *entry;

	if (!registry->entries)
		return;
	entry = &registry->entries[slot];
	entry->connection = NULL;
	atomic_store_explicit(&entry->id, 0, memory_order_release);
	atomic_store_explicit(&entry->worker, 0, memory_order_release);
}

bool registry_look(const struct registry *registry, uint32_t slot, uint64_t *ret_id,
		   unsigned *ret_worker)
{
	const struct registry_entry *entry = &registry->entries[slot];
	uint64_t id = atomic_load_explicit(&entry->id, memory_order_acquire);
	uint32_t worker = atomic_load_explicit(&entry->worker, memory_order_acquire);

	/* What has changed in between is seen by the worker that is asked */
	if (id == 0 || worker == 0)
		return false;
	*ret_id = id;
	*ret_worker = worker - 1;
	return true;
}

struct connection *registry_get(const struct registry *registry, uint32_t slot,
				uint64_t id, unsigned worker)
{
	const struct registry_entry *entry = &registry->entries[slot];

	/* The worker first: if it is the caller, nobody else writes the rest */
	if (atomic_load_explicit(&entry->worker, memory_order_acquire) != worker + 1 ||
	    atomic_load_explicit(&entry->id, memory_order_acquire) != id)
		return NULL;
	return entry->connection;
}

uint32_t registry_end(const struct registry *registry)
{
	return registry->end;
}
