/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A parcel: an AF_UNIX SOCK_SEQPACKET pair used as a queue of file descriptors that the
 * kernel holds.
 *
 * Each message is one entry: a label and the fds of one connection or of one pipe. The
 * receiving end lies in the fd store, so that one stored fd holds hundreds of
 * connections, and the queue outlives the sender. Nothing is ever received from it for
 * good: it is only peeked, which duplicates the fds and leaves the queue as it was
 * (tests/kernel/parcel-peek-keeps-message.c). An entry dies by its slot in the ledger,
 * not here; a parcel whose entries have all died or moved is dropped as a whole.
 *
 * After an adopt the sending end is gone: such a parcel is read and dropped, never added
 * to.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vault/ledger.h"

/*
 * Entries that one parcel takes. The default SO_SNDBUF has room for 278 of them
 * (tests/kernel/parcel-holds-256-messages.c); peeking far into a longer queue costs more.
 */
#define PARCEL_ENTRIES_MAX 256
#define PARCEL_FDS_MAX 2
#define LABEL_VERSION 1u

/* What an entry's message says. A stored format, like the ledger. */
struct label {
	uint32_t version;
	uint32_t kind; /* enum slot_state: SLOT_CONNECTION or SLOT_PIPE */
	uint32_t slot;
	uint32_t generation;
	uint32_t n_fds;
	uint32_t reserved;
};

static_assert(sizeof(struct label) == 24, "the stored format is fixed");

/* An entry as it was peeked: it owns its fds. */
struct parcel_entry {
	struct label label;
	int fds[PARCEL_FDS_MAX]; /* -EBADF where there is none */
	int n_fds;
};

enum parcel_peeked {
	PARCEL_END = 0,     /* there is no further entry */
	PARCEL_ENTRY = 1,   /* *ret_entry has been filled */
	PARCEL_DAMAGED = 2, /* a message that is no entry: *ret_entry has its fds, its
			     * label is all zeroes */
	PARCEL_CROWDED = 3, /* this process has no room for the fds: free some and peek
			     * again; *ret_entry has nothing */
};

/*
 * Makes a parcel's two ends, both non-blocking and CLOEXEC, given to the caller.
 * Returns 0 or a negative errno.
 */
int parcel_new_pair(int *ret_send_fd, int *ret_store_fd);

/*
 * Puts an entry with n_fds (1..PARCEL_FDS_MAX) borrowed fds. From the return on, the
 * kernel holds them. Returns 0, or a negative errno: -EAGAIN        the parcel is full
 *   -ETOOMANYREFS  this user has too many fds in flight (unix(7))
 *   -EPIPE, -ECONNREFUSED, -ECONNRESET  nobody holds the other end any more
 *   -ENOBUFS, -ENOMEM   the kernel has no memory
 */
int parcel_put(int send_fd, const struct label *label, const int *fds, int n_fds);

/*
 * Sets the peek offset, which belongs to the socket and not to the fd: a process that
 * adopts a parcel starts at 0. offset: in bytes of labels.
 */
int parcel_rewind(int store_fd, int offset);

/*
 * Peeks the entry at the peek offset and moves the offset behind it.
 * Returns enum parcel_peeked, -EBADMSG for a message without text (nothing behind it can
 * be reached), or another negative errno. The caller owns ret_entry's fds
 * (parcel_entry_done()).
 */
int parcel_peek(int store_fd, struct parcel_entry *ret_entry);

/*
 * Peeks only the label of that entry, which is cheaper, and moves the offset behind it.
 * Returns PARCEL_ENTRY, and label_is_sane() has to say more; PARCEL_DAMAGED, without a
 * label; or as parcel_peek().
 */
int parcel_peek_label(int store_fd, struct label *ret_label);

/* Moves the peek offset back to before the entry that parcel_peek_label() has found.
 * Returns 0 or a negative errno. */
int parcel_step_back(int store_fd);

/* Closes the fds that entry still owns. */
void parcel_entry_done(struct parcel_entry *entry);

/* Whether a label from the store is possible at all, within a ledger of n_slots. */
bool label_is_sane(const struct label *label, uint32_t n_slots);
