/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "house.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/fd.h"
#include "base/time.h"
#include "unit.h"

struct house *house_new(unsigned store_max, uint32_t n_slots)
{
	struct house *house = calloc(1, sizeof(*house));

	assert_non_null(house);
	house->n_fds_before = count_fds();
	house->n_slots = n_slots;
	house->manager = fake_manager_new(store_max);
	return house;
}

struct house *house_free(struct house *house)
{
	unsigned n_before = house->n_fds_before;

	house_leave(house);
	house->manager = fake_manager_free(house->manager);
	free(house);
	assert_int_equal(count_fds(), n_before);
	return NULL;
}

int house_setup(void **state)
{
	*state = house_new(HOUSE_STORE_MAX, HOUSE_SLOTS);
	return 0;
}

int house_setup_started(void **state)
{
	(void)house_setup(state);
	house_start(*state);
	return 0;
}

int house_teardown(void **state)
{
	*state = house_free(*state);
	return 0;
}

void house_receive(struct house *house)
{
	assert_null(house->vault);
	fake_manager_sync(house->manager);
	fake_manager_give(house->manager, &house->given);
}

void house_adopt_received(struct house *house)
{
	assert_int_equal(vault_new(1, &house->vault), 0);
	assert_int_equal(vault_adopt(house->vault, house->given.fds, house->given.n,
				     house->n_slots, &house->report),
			 0);
	packer_init(&house->packer, house->vault);
	pipe_pool_init(&house->pipes, &house->packer);
}

void house_adopt(struct house *house)
{
	house_receive(house);
	house_adopt_received(house);
}

void house_finish_start(struct house *house)
{
	(void)adopt_done(house->vault);
	assert_int_equal(vault_stock_wait(house->vault,
					  UNIT_PATIENCE_MSEC * USEC_PER_MSEC),
			 0);
}

void house_start(struct house *house)
{
	house_adopt(house);
	house_finish_start(house);
}

void house_leave(struct house *house)
{
	if (!house->vault)
		return;
	pipe_pool_done(&house->pipes);
	house->vault = vault_free(house->vault);
}

void house_dispatch(struct house *house)
{
	(void)wait_for(vault_fd(house->vault), POLLIN);
	vault_dispatch(house->vault);
}

void house_settle(struct house *house)
{
	do {
		vault_dispatch(house->vault);
		/* A probe under way is answered by then */
		fake_manager_sync(house->manager);
	} while (events_now(vault_fd(house->vault), POLLIN));
}

int house_try_park(struct house *house, const int *fds, int n_fds, uint32_t *ret_slot)
{
	struct ledger_slot *record;
	uint32_t slot;
	int r;

	r = packer_take_slot(&house->packer, &slot);
	if (r < 0)
		return r;
	record = &house->vault->ledger.slots[slot];
	record->id = atomic_fetch_add(&house->vault->ledger.header->next_id, 1);
	packer_publish(&house->packer, slot, SLOT_CONNECTION);
	r = packer_put(&house->packer, slot, record->generation, fds, n_fds);
	if (r < 0)
		packer_free_slot(&house->packer, slot);
	else
		*ret_slot = slot;
	return r;
}

uint32_t house_park(struct house *house, const int *fds, int n_fds)
{
	uint32_t slot = 0;
	int r;

	/* Spares come by themselves, one batch for each round */
	while ((r = house_try_park(house, fds, n_fds, &slot)) == -EBUSY)
		house_dispatch(house);
	assert_int_equal(r, 0);
	return slot;
}

void house_map_ledger(struct house *house, struct ledger *ret_ledger)
{
	int fd = fake_manager_get(house->manager, STORE_NAME_LEDGER);
	int r = ledger_map(fd, ret_ledger);

	if (r < 0)
		(void)fd_close(fd);
	assert_int_equal(r, 0);
}

void house_close_entry(struct adopted_entry *entry)
{
	for (int i = 0; i < entry->n_fds; i++)
		entry->fds[i] = fd_close(entry->fds[i]);
	entry->n_fds = 0;
}
