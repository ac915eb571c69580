/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ledger_map() and ledger_slot_is_sane(): a file of any content. The input is a size,
 * seals, and patches (offset, value) to a valid ledger, since random bytes would hardly
 * get past the magic.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "fuzz.h"
#include "vault/ledger.h"

#define N_SLOTS 16

static void patch(int fd, struct input *input)
{
	while (input->size > 0) {
		uint16_t offset = (uint16_t)(input_byte(input) << 8 | input_byte(input));
		uint8_t value = input_byte(input);

		if (pwrite(fd, &value, 1, offset) < 0)
			return;
	}
}

static int make_file(struct input *input)
{
	struct ledger ledger;
	uint32_t size = input_byte(input) & 1 ? input_u32(input) % 70000 : 0;
	uint8_t seals = input_byte(input);
	int fd;

	if (ledger_new(N_SLOTS, &ledger) < 0)
		abort();
	ledger.header->n_slots_used = N_SLOTS;
	if (size == 0) {
		fd = fcntl(ledger.fd, F_DUPFD_CLOEXEC, 0);
	} else {
		fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		if (write(fd, ledger.header, ledger.size) < 0 || ftruncate(fd, size) < 0)
			abort();
	}
	ledger_done(&ledger);
	patch(fd, input);
	(void)fcntl(fd, F_ADD_SEALS,
		    (seals & 1 ? F_SEAL_SHRINK : 0) | (seals & 2 ? F_SEAL_GROW : 0));
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {.data = data, .size = size};
	_cleanup_close_ int fd = make_file(&input);
	struct ledger ledger;

	if (ledger_map(fd, &ledger) < 0)
		return 0;
	(void)take_fd(&fd);
	for (uint32_t slot = 0; slot < ledger.header->n_slots_used; slot++)
		(void)ledger_slot_is_sane(&ledger, slot);
	ledger_done(&ledger);
	return 0;
}
