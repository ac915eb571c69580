/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/vault.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/fd.h"
#include "base/time.h"
#include "vault/adopt.h"
#include "vault/packer.h"
#include "vault/proof.h"
#include "vault/sweep.h"

static int poll_add(struct vault *vault, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	return epoll_ctl(vault->poll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int make_fds(struct vault *vault)
{
	vault->poll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (vault->poll_fd < 0)
		return -errno;
	vault->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vault->event_fd < 0)
		return -errno;
	return poll_add(vault, vault->event_fd, EPOLLIN);
}

/* Anonymous memory is given by the page when touched: most slots are never used. */
static int make_locations(struct vault *vault)
{
	void *memory = mmap(NULL, sizeof(*vault->locations) * LEDGER_SLOTS_MAX,
			    PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return -errno;
	vault->locations = memory;
	return 0;
}

static uint64_t get_files_max(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) < 0 ? 0 : limit.rlim_cur;
}

int vault_new(unsigned n_packers, struct vault **ret_vault)
{
	struct vault *vault = calloc(1, sizeof(*vault));
	int r;

	if (!vault)
		return -ENOMEM;
	pthread_mutex_init(&vault->lock, NULL);
	vault->poll_fd = vault->event_fd = vault->ledger.fd = vault->changes.fd = -EBADF;
	vault->proof_fd = -EBADF;
	vault->probe = (struct store_probe){.barrier_fd = -EBADF, .probe_fd = -EBADF};
	/* One more for the main thread's packer, and one to hand out while others are
	 * made */
	vault->n_batch = vault->n_spares_wanted = n_packers + 2;
	vault->retry_delay_usec = VAULT_RETRY_USEC_MIN;
	vault->last_sealed = VAULT_PARCELS_MAX;
	vault->store_max = store_get_max();
	vault->n_packers = n_packers + 1;
	vault->files_max = get_files_max();

	r = make_fds(vault);
	if (r == 0)
		r = make_locations(vault);
	if (r == 0) {
		vault->packer = calloc(1, sizeof(*vault->packer));
		r = vault->packer ? 0 : -ENOMEM;
	}
	if (r < 0) {
		(void)vault_free(vault);
		return r;
	}
	packer_init(vault->packer, vault);
	*ret_vault = vault;
	return 0;
}

struct vault *vault_free(struct vault *vault)
{
	if (!vault)
		return NULL;
	adopt_forget(vault);
	for (uint32_t i = 0; i < vault->parcels_end; i++) {
		if (vault->parcels[i].state == PARCEL_NONE)
			continue;
		(void)fd_close(vault->parcels[i].send_fd);
		(void)fd_close(vault->parcels[i].store_fd);
	}
	(void)fd_close(vault->probe.barrier_fd);
	(void)fd_close(vault->probe.probe_fd);
	(void)fd_close(vault->proof_fd);
	(void)fd_close(vault->event_fd);
	(void)fd_close(vault->poll_fd);
	ledger_done(&vault->ledger);
	changes_done(&vault->changes);
	free(vault->notes);
	for (uint32_t i = 0; i < vault->n_early; i++)
		parcel_entry_done(&vault->early[i].entry);
	free(vault->early);
	if (vault->locations)
		(void)munmap(vault->locations,
			     sizeof(*vault->locations) * LEDGER_SLOTS_MAX);
	pthread_mutex_destroy(&vault->lock);
	free(vault->free_slots);
	free(vault->packer);
	free(vault);
	return NULL;
}

int vault_fd(const struct vault *vault)
{
	return vault->poll_fd;
}

bool vault_is_full(const struct vault *vault)
{
	return vault->full;
}

uint32_t vault_n_parcels(const struct vault *vault)
{
	return vault->n_parcels;
}

static void poke(struct vault *vault)
{
	/* Fails only when the counter is full, and then it is readable already */
	(void)eventfd_write(vault->event_fd, 1);
}

/* ---- parcels: made, taken, given out ---- */

static int upload_parcel(struct vault *vault, uint32_t index)
{
	struct vault_parcel *parcel = &vault->parcels[index];
	_cleanup_close_ int send_fd = -EBADF, store_fd = -EBADF;
	char name[STORE_NAME_SIZE];
	int r;

	r = parcel_new_pair(&send_fd, &store_fd);
	if (r < 0)
		return r;
	store_parcel_name(index, name);
	r = store_put(store_fd, name);
	if (r < 0)
		return r;
	parcel->send_fd = take_fd(&send_fd);
	parcel->store_fd = take_fd(&store_fd);
	parcel->n_entries = 0;
	parcel->n_messages = 0;
	parcel->n_dead = 0;
	parcel->n_moved = parcel->n_dead_at_tick = 0;
	parcel->owner = NULL;
	parcel->is_passed = false;
	parcel->state = PARCEL_UPLOADED;
	if (index >= vault->parcels_end)
		vault->parcels_end = index + 1;
	vault->n_parcels++;
	return 0;
}

void vault_drop_parcel(struct vault *vault, uint32_t index)
{
	struct vault_parcel *parcel = &vault->parcels[index];
	char name[STORE_NAME_SIZE];

	store_parcel_name(index, name);
	/* If this fails the manager is gone, and the store with it */
	(void)store_remove(name);
	parcel->send_fd = fd_close(parcel->send_fd);
	parcel->store_fd = fd_close(parcel->store_fd);
	parcel->state = PARCEL_NONE;
	vault->n_parcels--;
}

uint32_t vault_n_spares(struct vault *vault)
{
	uint32_t n;

	pthread_mutex_lock(&vault->lock);
	n = vault->n_spares;
	pthread_mutex_unlock(&vault->lock);
	return n;
}

/*
 * The store has refused a batch. A smaller one may still fit, and one parcel is enough to
 * sweep and so to make room; where not even that fits, it is tried again ever more
 * rarely, since the manager logs each refusal.
 */
static void note_refused(struct vault *vault)
{
	if (vault->n_batch > 1) {
		vault->n_batch /= 2;
		return;
	}
	if (proof_end(vault))
		return;
	vault->full = true;
	vault->retry_usec = time_now_usec() + vault->retry_delay_usec;
	if (vault->retry_delay_usec < VAULT_RETRY_USEC_MAX)
		vault->retry_delay_usec *= 2;
}

static void note_taken(struct vault *vault)
{
	vault->full = false;
	if (vault->n_batch < vault->n_spares_wanted)
		vault->n_batch *= 2;
	vault->retry_delay_usec = VAULT_RETRY_USEC_MIN;
}

/* Uploads n parcels; those that fail are missed by nobody. Returns the last error or 0. */
static int upload_parcels(struct vault *vault, uint32_t n)
{
	int r = -ENOSPC;

	for (uint32_t i = 0; i < VAULT_PARCELS_MAX && n > 0; i++) {
		if (vault->parcels[i].state != PARCEL_NONE)
			continue;
		r = upload_parcel(vault, i);
		if (r < 0)
			return r;
		n--;
	}
	return n > 0 ? r : 0;
}

static int probe_start(struct vault *vault)
{
	int r = store_probe_start(&vault->probe);

	if (r < 0)
		return r;
	/* The barrier shows as EPOLLHUP, which needs no event to be asked for */
	return poll_add(vault, vault->probe.barrier_fd, 0);
}

static void drop_uploaded(struct vault *vault)
{
	for (uint32_t i = 0; i < vault->parcels_end; i++)
		if (vault->parcels[i].state == PARCEL_UPLOADED)
			vault_drop_parcel(vault, i);
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* Parcels that the store has still room for, beside the ledger and the probe. */
static uint32_t room_in_store(const struct vault *vault)
{
	uint32_t n_used = vault->n_parcels + 2;

	if (vault->store_max == STORE_MAX_UNKNOWN)
		return UINT32_MAX;
	return vault->store_max > n_used ? vault->store_max - n_used : 0;
}

/* Begins to make spares where there are too few. Returns 0 or a negative errno. */
static int stock(struct vault *vault)
{
	uint32_t n = vault_n_spares(vault), room = room_in_store(vault);
	int r;

	if (vault->activity == VAULT_STILL || vault->probe.barrier_fd >= 0 ||
	    n >= vault->n_spares_wanted)
		return 0;
	if (time_now_usec() < vault->retry_usec)
		return 0;
	if (room == 0) {
		vault->n_batch = 1;
		note_refused(vault);
		return 0;
	}
	n = min_u32(vault->n_spares_wanted - n, min_u32(vault->n_batch, room));
	r = upload_parcels(vault, n);
	if (r == 0)
		r = probe_start(vault);
	if (r < 0) {
		/* Not the store's refusal but this process's or the socket's: no fds, no
		 * memory */
		drop_uploaded(vault);
		vault->retry_usec = time_now_usec() + VAULT_RETRY_USEC_MIN;
	}
	return r;
}

void vault_wake_packers(struct vault *vault)
{
	if (vault->wake_packers)
		vault->wake_packers(vault->userdata);
}

static void hand_out_uploaded(struct vault *vault)
{
	pthread_mutex_lock(&vault->lock);
	for (uint32_t i = 0; i < vault->parcels_end; i++) {
		if (vault->parcels[i].state != PARCEL_UPLOADED)
			continue;
		vault->parcels[i].state = PARCEL_SPARE;
		vault->spares[vault->n_spares++] = i;
	}
	pthread_mutex_unlock(&vault->lock);
	vault_wake_packers(vault);
}

static void probe_answered(struct vault *vault)
{
	(void)epoll_ctl(vault->poll_fd, EPOLL_CTL_DEL, vault->probe.barrier_fd, NULL);
	if (store_probe_finish(&vault->probe)) {
		note_taken(vault);
		hand_out_uploaded(vault);
	} else {
		drop_uploaded(vault);
		note_refused(vault);
	}
}

static bool is_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return fd >= 0 && poll(&p, 1, 0) > 0;
}

int vault_stock_wait(struct vault *vault, uint64_t timeout_usec)
{
	uint64_t until = time_now_usec() + timeout_usec;
	int r;

	for (;;) {
		struct pollfd p;

		r = stock(vault);
		if (r < 0)
			return r;
		if (vault->probe.barrier_fd < 0)
			return vault->full ? -ENOSPC : 0;
		p = (struct pollfd){.fd = vault->probe.barrier_fd};
		r = poll(&p, 1, VAULT_POLL_MSEC);
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0)
			probe_answered(vault);
		else if (time_now_usec() > until)
			return -ETIMEDOUT;
	}
}

int vault_take_spare(struct vault *vault, struct packer *owner)
{
	int index = -EBUSY;

	pthread_mutex_lock(&vault->lock);
	if (vault->n_spares > (owner == vault->packer ? 0 : 1)) {
		index = (int)vault->spares[--vault->n_spares];
		vault->parcels[index].owner = owner;
		vault->parcels[index].state = PARCEL_CURRENT;
	}
	pthread_mutex_unlock(&vault->lock);
	/* The main thread itself knows when it has found none, and must not wake itself
	 * for it */
	if (index >= 0 || owner != vault->packer)
		poke(vault);
	return index;
}

/* ---- entries ---- */

void vault_entry_died(struct vault *vault, uint32_t location)
{
	struct vault_parcel *parcel = &vault->parcels[location - 1];
	uint32_t n_dead = atomic_fetch_add(&parcel->n_dead, 1) + 1;

	if (parcel->state != PARCEL_SEALED)
		return;
	/* Poke once when it becomes worth it, and once when nothing is left */
	if (n_dead == parcel->n_entries / 2 + 1 || n_dead == parcel->n_entries)
		poke(vault);
}

void vault_seal(struct vault *vault, uint32_t index)
{
	atomic_store(&vault->last_sealed, index);
	atomic_store(&vault->parcels[index].state, PARCEL_SEALED);
	poke(vault);
}

void vault_dispatch(struct vault *vault)
{
	eventfd_t n;

	/* Fails only when there is nothing to read */
	(void)eventfd_read(vault->event_fd, &n);
	if (is_readable(vault->probe.barrier_fd))
		probe_answered(vault);
	if (vault->activity == VAULT_ACTIVE)
		sweep_all(vault, false);
	(void)stock(vault); /* a failure is told by vault_is_full() */
}

void vault_go_on(struct vault *vault)
{
	vault->activity = VAULT_ACTIVE;
	vault_dispatch(vault);
}

void vault_tick(struct vault *vault)
{
	proof_look(vault);
	if (vault->activity == VAULT_ACTIVE) {
		sweep_all(vault, true);
		sweep_ask_for_rotation(vault);
	}
	(void)stock(vault); /* a failure is told by vault_is_full() */
}
