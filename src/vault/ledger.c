/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/ledger.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/fd.h"

#define LEDGER_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

static size_t ledger_size(uint32_t n_slots)
{
	return LEDGER_HEADER_SIZE + (size_t)n_slots * sizeof(struct ledger_slot);
}

static int map(int fd, size_t size, struct ledger *ret_ledger)
{
	uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		return -errno;
	*ret_ledger = (struct ledger){
		.fd = -EBADF,
		.size = size,
		.header = (struct ledger_header *)(void *)memory,
		.slots = (struct ledger_slot *)(void *)(memory + LEDGER_HEADER_SIZE),
	};
	return 0;
}

int ledger_new(uint32_t n_slots, struct ledger *ret_ledger)
{
	_cleanup_close_ int fd = -EBADF;
	size_t size = ledger_size(n_slots);
	int r;

	assert(n_slots > 0 && n_slots <= LEDGER_SLOTS_MAX);

	fd = memfd_create("holdfast-ledger", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0)
		return -errno;
	if (fcntl(fd, F_ADD_SEALS, LEDGER_SEALS) < 0)
		return -errno;
	r = map(fd, size, ret_ledger);
	if (r < 0)
		return r;

	*ret_ledger->header = (struct ledger_header){
		.magic = LEDGER_MAGIC,
		.version = LEDGER_VERSION,
		.min_reader = LEDGER_VERSION_MIN_READER,
		.header_size = LEDGER_HEADER_SIZE,
		.slot_size = sizeof(struct ledger_slot),
		.n_slots = n_slots,
		.next_id = 1,
	};
	ret_ledger->fd = take_fd(&fd);
	return 0;
}

static int check_file(int fd, size_t *ret_size)
{
	struct stat st;
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -EBADMSG;
	if ((seals & LEDGER_SEALS) != LEDGER_SEALS)
		return -EPERM;
	if (st.st_size < (off_t)LEDGER_HEADER_SIZE ||
	    st.st_size > (off_t)ledger_size(LEDGER_SLOTS_MAX))
		return -EBADMSG;
	*ret_size = (size_t)st.st_size;
	return 0;
}

/* A newer version that can still be read keeps the sizes; what it added is in reserved. */
static int check_header(const struct ledger_header *header, size_t size)
{
	if (header->magic != LEDGER_MAGIC || header->version == 0 ||
	    header->min_reader == 0 || header->min_reader > header->version)
		return -EBADMSG;
	if (header->min_reader > LEDGER_VERSION)
		return -EPROTONOSUPPORT;
	if (header->header_size != LEDGER_HEADER_SIZE ||
	    header->slot_size != sizeof(struct ledger_slot))
		return -EBADMSG;
	if (header->n_slots == 0 || header->n_slots > LEDGER_SLOTS_MAX ||
	    ledger_size(header->n_slots) != size)
		return -EBADMSG;
	if (header->n_slots_used > header->n_slots || header->next_id == 0)
		return -EBADMSG;
	return 0;
}

int ledger_map(int fd, struct ledger *ret_ledger)
{
	struct ledger ledger;
	size_t size;
	int r;

	r = check_file(fd, &size);
	if (r < 0)
		return r;
	r = map(fd, size, &ledger);
	if (r < 0)
		return r;
	/* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): errno is above 0 */
	r = check_header(ledger.header, size);
	if (r < 0) {
		ledger_done(&ledger);
		return r;
	}
	*ret_ledger = ledger;
	ret_ledger->fd = fd;
	return 0;
}

void ledger_done(struct ledger *ledger)
{
	if (ledger->header)
		(void)munmap(ledger->header, ledger->size);
	ledger->header = NULL;
	ledger->slots = NULL;
	ledger->fd = fd_close(ledger->fd);
}

static bool ref_is_sane(const struct ledger *ledger, slot_ref ref)
{
	return ref == 0 ||
	       ((uint32_t)ref != 0 && slot_ref_slot(ref) < ledger->header->n_slots);
}

bool ledger_slot_is_sane(const struct ledger *ledger, uint32_t slot)
{
	const struct ledger_slot *record = &ledger->slots[slot];
	uint32_t state = record->state;

	if (state != SLOT_FREE && state != SLOT_CONNECTION && state != SLOT_PIPE)
		return false;
	if (record->flags & ~(uint32_t)SLOT_FLAGS_ALL)
		return false;
	for (size_t i = 0; i < LEDGER_FLOWS; i++)
		if (!ref_is_sane(ledger, record->flows[i].pipe))
			return false;
	return true;
}

void ledger_slot_clear(struct ledger_slot *slot)
{
	atomic_store(&slot->state, SLOT_FREE);
	slot->id = 0;
	slot->service = 0;
	slot->flags = 0;
	slot->n_crashes = 0;
	slot->opened_by = 0;
	slot->accepted_usec = 0;
	slot->active_usec = 0;
	slot->connect_usec = 0;
	slot->reserved = 0;
	for (size_t i = 0; i < LEDGER_FLOWS; i++) {
		slot->flows[i].pipe = 0;
		slot->flows[i].n_read = 0;
		slot->flows[i].urgent_at = 0;
		slot->flows[i].urgent_pending = 0;
	}
}

/* An offer is even and its being taken odd; the next offer is another number. */
uint64_t ledger_offer(struct ledger *ledger)
{
	uint64_t offer = (ledger->header->handover | 1) + 1;

	atomic_store(&ledger->header->handover, offer);
	return offer;
}

bool ledger_take_offer(struct ledger *ledger, uint64_t offer)
{
	return atomic_compare_exchange_strong(&ledger->header->handover, &offer,
					      offer + 1);
}

bool ledger_withdraw_offer(struct ledger *ledger, uint64_t offer)
{
	/* Any later number will do, as the offer is void when the word is not it */
	return atomic_compare_exchange_strong(&ledger->header->handover, &offer,
					      offer + 2);
}

void ledger_withdraw_any_offer(struct ledger *ledger)
{
	atomic_fetch_add(&ledger->header->handover, 2);
}
