/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vault_adopt(): a store of any content. The input describes a ledger (its slots, then
 * patches to its bytes) and parcels of entries with labels of any content. Whatever they
 * are, adopt comes to an end, and no fd is left open.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/pipe.h"
#include "fuzz.h"
#include "vault/adopt.h"

#define N_SLOTS 16
#define N_PARCELS 3
#define ENTRIES_MAX 12

/* A service manager that forgets all that it is told: fds without room for them are
 * closed. */
static void *forget(void *userdata)
{
	int fd = *(int *)userdata;
	char text[4096];

	while (recv(fd, text, sizeof(text), 0) >= 0)
		;
	return NULL;
}

static void start_manager(void)
{
	static int fd;
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t length = sizeof(address.sun_family);
	char name[sizeof(address.sun_path) + 1];
	pthread_t thread;

	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	/* The kernel chooses an abstract name */
	if (bind(fd, (struct sockaddr *)&address, length) < 0)
		abort();
	length = sizeof(address);
	if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
		abort();
	(void)snprintf(name, sizeof(name), "@%s", address.sun_path + 1);
	(void)setenv("NOTIFY_SOCKET", name, 1);
	if (pthread_create(&thread, NULL, forget, &fd) != 0)
		abort();
	(void)pthread_detach(thread);
}

static int n_open_fds(void)
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

static int make_ledger(struct input *input)
{
	struct ledger ledger;
	uint8_t n_patches = input_byte(input);
	int fd;

	if (ledger_new(N_SLOTS, &ledger) < 0)
		abort();
	ledger.header->n_slots_used = N_SLOTS;
	for (uint32_t i = 0; i < N_SLOTS; i++)
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

static void put_entry(int send_fd, struct input *input)
{
	uint8_t what = input_byte(input);
	struct label label = {
		.version = what & 0x40 ? input_u32(input) : LABEL_VERSION,
		.kind = choose_state(what),
		.slot = what & 0x20 ? input_u32(input) : input_byte(input) % N_SLOTS,
		.generation = input_byte(input) % 4,
	};
	int fds[2] = {-EBADF, -EBADF}, n = what & 4 ? 2 : 1;

	if (what & 8) {
		if (pipe_open_both_ends(&fds[0]) < 0)
			abort();
		n = 1;
	} else if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0) {
		abort();
	}
	(void)parcel_put(send_fd, &label, fds, n);
	(void)fd_close(fds[0]);
	(void)fd_close(fds[1]);
}

static int make_parcel(struct input *input)
{
	uint8_t n = input_byte(input) % ENTRIES_MAX;
	int send_fd, store_fd;

	if (parcel_new_pair(&send_fd, &store_fd) < 0)
		abort();
	for (int i = 0; i < n; i++)
		put_entry(send_fd, input);
	if (input_byte(input) & 1)
		/* A message that is no entry */
		(void)send(send_fd, "?", 1, MSG_NOSIGNAL);
	(void)fd_close(send_fd);
	return store_fd;
}

static void adopt(const struct stored_fd *stored, size_t n)
{
	struct adopt_report report;
	struct vault *vault;

	if (vault_new(2, &vault) < 0)
		abort();
	if (vault_adopt(vault, stored, n, N_SLOTS, &report) == 0) {
		for (uint32_t slot = 0; slot < vault->n_adopted; slot += 2) {
			struct adopted_entry entry;

			if (!adopt_take(vault, slot, &entry))
				continue;
			for (int i = 0; i < entry.n_fds; i++)
				(void)fd_close(entry.fds[i]);
		}
		(void)adopt_done(vault);
		vault_tick(vault);
	}
	(void)vault_free(vault);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"ledger", "p0", "p1", "p7",
					    "probe",  "x",  "p01"};
	struct input input = {.data = data, .size = size};
	struct stored_fd stored[N_PARCELS + 1];
	int before;

	if (!getenv("NOTIFY_SOCKET"))
		start_manager();
	before = n_open_fds();
	stored[0] = (struct stored_fd){.fd = make_ledger(&input), .name = names[0]};
	for (size_t i = 1; i <= N_PARCELS; i++) {
		uint8_t name = input_byte(&input);

		stored[i] = (struct stored_fd){
			.fd = make_parcel(&input),
			.name = names[name & 0x80 ? name % 7 : i],
		};
	}
	adopt(stored, N_PARCELS + 1);
	if (n_open_fds() != before)
		abort();
	return 0;
}
