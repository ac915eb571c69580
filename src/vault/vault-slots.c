/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ledger's slots, between the vault, which has the free ones, and its packers. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vault/vault.h"

uint32_t vault_take_slots(struct vault *vault, uint32_t *ret_slots, uint32_t n)
{
	struct ledger_header *header = vault->ledger.header;
	uint32_t taken = 0;

	pthread_mutex_lock(&vault->lock);
	while (taken < n && vault->n_free_slots > 0)
		ret_slots[taken++] = vault->free_slots[--vault->n_free_slots];
	/* Fresh ones only where they are needed, or each takeover would use up some */
	if (taken > 0)
		n = 0;
	else if (vault->is_counting && n > 1)
		n = 1;
	while (taken < n && header->n_slots_used < header->n_slots)
		ret_slots[taken++] = header->n_slots_used++;
	pthread_mutex_unlock(&vault->lock);
	return taken;
}

int vault_return_slots(struct vault *vault, const uint32_t *slots, uint32_t n)
{
	int r = 0;

	pthread_mutex_lock(&vault->lock);
	if (vault->n_free_slots + n > vault->free_slots_size) {
		uint32_t size = 2 * vault->free_slots_size + n;
		uint32_t *larger = reallocarray(vault->free_slots, size, sizeof(*larger));

		if (larger) {
			vault->free_slots = larger;
			vault->free_slots_size = size;
		} else {
			r = -ENOMEM;
		}
	}
	/* With none there may be no list yet */
	if (r == 0 && n > 0) {
		memcpy(vault->free_slots + vault->n_free_slots, slots,
		       n * sizeof(*slots));
		vault->n_free_slots += n;
	}
	pthread_mutex_unlock(&vault->lock);
	return r;
}
