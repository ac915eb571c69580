/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "stored.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/pipe.h"
#include "vault/ledger.h"
#include "vault/parcel.h"

#define ENTRIES_MAX 12

int stored_n_open_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(directory))
		n++;
	(void)closedir(directory);
	return n;
}

static uint32_t choose_state(uint8_t byte)
{
	static const uint32_t states[] = {SLOT_FREE, SLOT_CONNECTION, SLOT_PIPE, 7};

	return states[byte % 4];
}

static void fill_slot(struct ledger_slot *slot, struct input *input)
{
	slot->state = choose_state(input_byte(input));
	slot->generation = input_byte(input) % 4;
	slot->last_generation = input_byte(input) % 4;
	slot->flags = input_byte(input);
	for (size_t i = 0; i < LEDGER_FLOWS; i++) {
		uint8_t lent = input_byte(input);

		if (lent & 1)
			slot->flows[i].pipe = slot_ref_make(lent >> 3, lent >> 1 & 3);
	}
}

int stored_ledger(struct input *input)
{
	struct ledger ledger;
	uint8_t n_patches = input_byte(input);
	int fd;

	if (ledger_new(STORED_SLOTS, &ledger) < 0)
		abort();
	ledger.header->n_slots_used = STORED_SLOTS;
	for (uint32_t i = 0; i < STORED_SLOTS; i++)
		fill_slot(&ledger.slots[i], input);
	for (int i = 0; i < n_patches % 16; i++) {
		uint16_t offset = (uint16_t)(input_byte(input) << 8 | input_byte(input));

		if (offset < ledger.size)
			((uint8_t *)ledger.header)[offset] = input_byte(input);
	}
	fd = fcntl(ledger.fd, F_DUPFD_CLOEXEC, 0);
	ledger_done(&ledger);
	return fd;
}

/* Adds an entry with a label of any content to the message that is to be put next. */
static void add_entry(struct parcel_pack *pack, struct input *input)
{
	uint8_t what = input_byte(input);
	struct parcel_entry entry = {
		.label =
			{
				.version = what & 0x40 ? input_u32(input) : LABEL_VERSION,
				.kind = choose_state(what),
				.slot = what & 0x20 ? input_u32(input)
						    : input_byte(input) % STORED_SLOTS,
				.generation = input_byte(input) % 4,
			},
		.fds = {-EBADF, -EBADF},
		.n_fds = what & 4 ? 2 : 1,
	};

	if (what & 8) {
		if (pipe_open_both_ends(&entry.fds[0]) < 0)
			abort();
		entry.n_fds = 1;
	} else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, entry.fds) < 0) {
		abort();
	} else if (entry.n_fds == 1) {
		entry.fds[1] = fd_close(entry.fds[1]);
	}
	entry.label.n_fds = (uint32_t)entry.n_fds;
	parcel_pack_add(pack, &entry);
}

static void put_pack(int send_fd, struct parcel_pack *pack)
{
	if (pack->n_entries > 0)
		(void)parcel_put(send_fd, pack->labels, pack->n_entries, pack->fds);
	parcel_pack_done(pack);
}

int stored_parcel(struct input *input, int *ret_send_fd)
{
	uint8_t byte = input_byte(input), n = byte % ENTRIES_MAX;
	unsigned n_packed = 1 + byte / 64; /* entries of a message */
	struct parcel_pack pack = {.n_entries = 0};
	int send_fd, store_fd;

	if (parcel_new_pair(&send_fd, &store_fd) < 0)
		abort();
	for (int i = 0; i < n; i++) {
		add_entry(&pack, input);
		if (pack.n_entries == n_packed)
			put_pack(send_fd, &pack);
	}
	put_pack(send_fd, &pack);
	if (input_byte(input) & 1)
		/* A message that is no entry */
		(void)send(send_fd, "?", 1, MSG_NOSIGNAL);
	if (ret_send_fd)
		*ret_send_fd = send_fd;
	else
		(void)fd_close(send_fd);
	return store_fd;
}
