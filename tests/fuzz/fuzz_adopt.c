/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vault_adopt(): a store of any content. The input describes a ledger (its slots, then
 * patches to its bytes) and parcels of entries with labels of any content. Whatever they
 * are, adopt comes to an end, and no fd is left open.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuzz.h"
#include "stored.h"
#include "vault/adopt.h"

#define N_PARCELS 3

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

static void adopt(const struct stored_fd *stored, size_t n)
{
	struct adopt_report report;
	struct vault *vault;

	if (vault_new(2, &vault) < 0)
		abort();
	if (vault_adopt(vault, stored, n, STORED_SLOTS, &report) == 0) {
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
	before = stored_n_open_fds();
	stored[0] = (struct stored_fd){.fd = stored_ledger(&input), .name = names[0]};
	for (size_t i = 1; i <= N_PARCELS; i++) {
		uint8_t name = input_byte(&input);

		stored[i] = (struct stored_fd){
			.fd = stored_parcel(&input, NULL),
			.name = names[name & 0x80 ? name % 7 : i],
		};
	}
	adopt(stored, N_PARCELS + 1);
	if (stored_n_open_fds() != before)
		abort();
	return 0;
}
