/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A parcel: an AF_UNIX SOCK_SEQPACKET pair used as a queue of file descriptors that the
 * kernel holds.
 *
 * Each message is some entries: a label and the fds of one connection, or of one pipe,
 * for each of them. The receiving end lies in the fd store, so that one stored fd holds
 * hundreds of connections, and the queue outlives the sender. Nothing is ever received
 * from it for good: it is only peeked, which duplicates the fds and leaves the queue as
 * it was (tests/kernel/parcel-peek-keeps-message.c). An entry dies by its slot in the
 * ledger, not here; a parcel whose entries have all died or moved is dropped as a whole.
 *
 * What is put when it comes into being is a message of its own; what sweeping moves is
 * packed, many entries to a message. A message costs the kernel some 4 KiB, and its peek
 * some 3 us, whether it has the fds of one connection or of many.
 *
 * After an adopt the sending end is gone: such a parcel is read and dropped, never added
 * to.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vault/ledger.h"

/*
 * Entries that one parcel takes. The default SO_SNDBUF has room for 278 of them
 * (tests/kernel/parcel-holds-256-messages.c); peeking far into a longer queue costs more.
 */
#define PARCEL_ENTRIES_MAX 256
#define PARCEL_FDS_MAX 2
/*
 * Entries that are put as one message. More of them would save next to nothing, and one
 * peek would keep the CPU longer, and need more fds at once.
 */
#define PARCEL_PACK_MAX 32
#define PARCEL_PACK_FDS_MAX (PARCEL_PACK_MAX * PARCEL_FDS_MAX)
#define LABEL_VERSION 1u

/*
 * What a message says of an entry. A stored format, like the ledger. The message is the
 * labels of its entries, and its fds are theirs in the same order.
 */
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

/* Entries of one message; it owns their fds. */
struct parcel_pack {
	struct label labels[PARCEL_PACK_MAX];
	int fds[PARCEL_PACK_FDS_MAX];
	uint32_t n_entries;
	uint32_t n_fds;
};

/* One who peeks a parcel, with what it has yet to give of the message it is at. */
struct parcel_reader {
	int store_fd; /* borrowed */
	struct parcel_pack pack;
	uint32_t next_entry;
	uint32_t next_fd;
	uint32_t n_messages; /* peeked so far */
};

enum parcel_peeked {
	PARCEL_END = 0,     /* there is no further entry */
	PARCEL_ENTRY = 1,   /* *ret_entry has been filled */
	PARCEL_DAMAGED = 2, /* of a message that has no entries: *ret_entry has some of
			     * its fds, its label's version is zero */
	PARCEL_CROWDED =
		3, /* this process has no room for the fds: free some (at most
		    * PARCEL_PACK_FDS_MAX) and peek again; *ret_entry has nothing */
};

/*
 * Makes a parcel's two ends, both non-blocking and CLOEXEC, given to the caller.
 * Returns 0 or a negative errno.
 */
int parcel_new_pair(int *ret_send_fd, int *ret_store_fd);

/*
 * Puts n_labels entries (1..PARCEL_PACK_MAX), each with as many of the borrowed fds as
 * its label says (1..PARCEL_FDS_MAX), as one message. From the return on, the kernel
 * holds them: all, or none if it fails. Returns 0, or a negative errno:
 *   -EAGAIN        the parcel is full
 *   -ETOOMANYREFS  this user has too many fds in flight (unix(7))
 *   -EPIPE, -ECONNREFUSED, -ECONNRESET  nobody holds the other end any more
 *   -ENOBUFS, -ENOMEM   the kernel has no memory
 */
int parcel_put(int send_fd, const struct label *labels, size_t n_labels, const int *fds);

/*
 * Sets the peek offset, which belongs to the socket and not to the fd: a process that
 * adopts a parcel starts at 0. offset: in bytes of labels.
 */
int parcel_rewind(int store_fd, int offset);

/* A reader of what is at the parcel's peek offset and behind it. */
void parcel_reader_init(struct parcel_reader *reader, int store_fd);

/*
 * Gives the next entry; where it is the first of a message, that is peeked, and the peek
 * offset moves behind it. Returns enum parcel_peeked, -EBADMSG for a message without text
 * (nothing behind it can be reached), or another negative errno. The caller owns
 * ret_entry's fds (parcel_entry_done()).
 */
int parcel_peek(struct parcel_reader *reader, struct parcel_entry *ret_entry);

/* Whether the message that was peeked last has more entries to give. */
bool parcel_has_more(const struct parcel_reader *reader);

/* Closes the fds of what was peeked and not given. */
void parcel_reader_done(struct parcel_reader *reader);

/*
 * Peeks only the labels of the message at the peek offset, which is cheaper, and moves
 * the offset behind it. ret_labels: room for PARCEL_PACK_MAX. Returns PARCEL_ENTRY, and
 * label_is_sane() has to say more; PARCEL_DAMAGED, without labels; or as parcel_peek().
 */
int parcel_peek_labels(int store_fd, struct label *ret_labels, size_t *ret_n);

/* Moves the peek offset back to before the n labels that parcel_peek_labels() has found.
 * Returns 0 or a negative errno. */
int parcel_step_back(int store_fd, size_t n);

/* Adds an entry to the pack, which takes its fds over. Not to one of PARCEL_PACK_MAX. */
void parcel_pack_add(struct parcel_pack *pack, struct parcel_entry *entry);

/* Closes the fds that the pack owns, and leaves it empty. */
void parcel_pack_done(struct parcel_pack *pack);

/* Closes the fds that entry still owns. */
void parcel_entry_done(struct parcel_entry *entry);

/* Whether a label from the store is possible at all, within a ledger of n_slots. */
bool label_is_sane(const struct label *label, uint32_t n_slots);
