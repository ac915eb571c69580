/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which slots have changed: one bit for each slot of the ledger, in a memfd that the
 * serving process and its successor share during a takeover.
 *
 * It is the dirty bitmap of a live migration. The serving process notes a slot after it
 * has changed it; the successor takes the bits away, and then looks at the slots. What
 * changes while it looks is noted again, so once the serving process has stopped, one
 * more look finds the successor up to date, at a cost that depends on what has changed
 * since the look before and not on how many connections there are.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define CHANGES_SLOTS_PER_WORD 64u

struct changes {
	int fd;
	uint32_t n_words;
	_Atomic uint64_t *words;
};

/* Makes one for n_slots slots, none of them noted. Returns 0 or a negative errno. */
int changes_new(uint32_t n_slots, struct changes *ret_changes);

/*
 * Maps the one that fd refers to, which must be for n_slots slots. Takes fd over on
 * success only. Returns 0, -EBADMSG if it is no such thing, or another negative errno.
 */
int changes_map(int fd, uint32_t n_slots, struct changes *ret_changes);

/* Unmaps and closes. */
void changes_done(struct changes *changes);

/* To be called after the change. Any thread. */
static inline void changes_note(struct changes *changes, uint32_t slot)
{
	atomic_fetch_or(&changes->words[slot / CHANGES_SLOTS_PER_WORD],
			UINT64_C(1) << slot % CHANGES_SLOTS_PER_WORD);
}

/* Takes the notes of 64 slots, from word * 64 on: bit i is slot word * 64 + i. */
static inline uint64_t changes_take(struct changes *changes, uint32_t word)
{
	/* The plain load first: most words are empty, and need not be written */
	if (atomic_load_explicit(&changes->words[word], memory_order_relaxed) == 0)
		return 0;
	return atomic_exchange(&changes->words[word], 0);
}
