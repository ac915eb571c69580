/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A vault with all that a worker has of it, and the manager that stores it: what each
 * test above the single rooms starts from.
 *
 * The manager outlives the processes. house_start() is the start of one: it adopts what
 * the manager holds. house_leave() is its end, without a word to anybody.
 */
#pragma once

#include "fake-manager.h"
#include "vault/adopt.h"
#include "vault/packer.h"
#include "vault/pipes.h"
#include "vault/vault.h"

/* Slots of the ledger, where a test does not say otherwise. */
#define HOUSE_SLOTS 2048
#define HOUSE_STORE_MAX 64

struct house {
	struct fake_manager *manager;
	uint32_t n_slots;
	unsigned n_fds_before; /* of the test process */

	/* of the process */
	struct vault *vault;
	struct packer packer; /* the worker's */
	struct pipe_pool pipes;
	struct adopt_report report;
	struct fake_manager_given given;
};

/* A manager without a process. */
struct house *house_new(unsigned store_max, uint32_t n_slots);

/* Ends the process if there is one, and the manager; fails if an fd was left open. */
struct house *house_free(struct house *house);

/* cmocka's setup and teardown around a test: state is a house of the usual size. */
int house_setup(void **state);
int house_setup_started(void **state); /* and with a process in it */
int house_teardown(void **state);

/* A new process up to vault_adopt(), in one or in two steps. */
void house_adopt(struct house *house);
void house_receive(struct house *house);
void house_adopt_received(struct house *house);

/* A new process, ready for work: adopted what it wants to take, and with spare parcels. */
void house_start(struct house *house);

/* The second half of it: gives up what nobody has taken, and makes spares. */
void house_finish_start(struct house *house);

/* The process is gone. */
void house_leave(struct house *house);

/* Does what the main thread has to do until there is nothing more, probes included. */
void house_settle(struct house *house);

/* Waits until the vault's fd tells that there is something to do, and does it. */
void house_dispatch(struct house *house);

/* Parks fds as a new connection's, and returns its slot. */
uint32_t house_park(struct house *house, const int *fds, int n_fds);

/* Like it, where it may not be possible. Returns 0 or the error of packer_put(). */
int house_try_park(struct house *house, const int *fds, int n_fds, uint32_t *ret_slot);

/* Maps the stored ledger, to look at it or to damage it. To be freed by ledger_done(). */
void house_map_ledger(struct house *house, struct ledger *ret_ledger);

/* Closes the fds of a taken entry. */
void house_close_entry(struct adopted_entry *entry);
