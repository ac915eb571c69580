/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the last process held, given to the next one: as it was left by a SIGKILL, and
 * with damage of every kind.
 *
 * The law that all tests of damage check: a connection is either served by its own
 * sockets, or its peer is told by a reset. It never just ends, and it never hangs.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/pipe.h"
#include "house.h"

#define CLIENTS 3

struct client {
	int ours; /* -EBADF once only the store has it */
	int peer;
	ino_t inode; /* of ours */
	uint32_t slot;
};

/* Memory that a killed process shares with its test. */
struct scene {
	struct house *house;
	struct client clients[CLIENTS];
};

static ino_t inode_of(int fd)
{
	struct stat st;

	(void)must(fstat(fd, &st));
	return st.st_ino;
}

static int setup(void **state)
{
	struct scene *scene = mmap(NULL, sizeof(*scene), PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(scene != MAP_FAILED);
	scene->house = house_new(HOUSE_STORE_MAX, HOUSE_SLOTS);
	for (size_t i = 0; i < CLIENTS; i++)
		scene->clients[i].ours = scene->clients[i].peer = -EBADF;
	*state = scene;
	return 0;
}

static void close_clients(struct scene *scene)
{
	for (size_t i = 0; i < CLIENTS; i++) {
		scene->clients[i].ours = fd_close(scene->clients[i].ours);
		scene->clients[i].peer = fd_close(scene->clients[i].peer);
	}
}

static int teardown(void **state)
{
	struct scene *scene = *state;

	close_clients(scene);
	scene->house = house_free(scene->house);
	(void)munmap(scene, sizeof(*scene));
	return 0;
}

static void connect_clients(struct scene *scene)
{
	close_clients(scene);
	for (size_t i = 0; i < CLIENTS; i++) {
		struct client *client = &scene->clients[i];

		tcp_pair(&client->ours, &client->peer);
		client->inode = inode_of(client->ours);
	}
}

static void park_clients(struct scene *scene)
{
	for (size_t i = 0; i < CLIENTS; i++)
		scene->clients[i].slot =
			house_park(scene->house, &scene->clients[i].ours, 1);
}

static void start_and_park(void *userdata)
{
	struct scene *scene = userdata;

	house_start(scene->house);
	park_clients(scene);
}

/* From now on the store is all that holds our sockets. */
static void let_go(struct scene *scene)
{
	for (size_t i = 0; i < CLIENTS; i++)
		scene->clients[i].ours = fd_close(scene->clients[i].ours);
}

/* Clients of a process that was then killed. */
static void leave_clients(struct scene *scene)
{
	connect_clients(scene);
	run_killed(start_and_park, scene);
	let_go(scene);
}

static bool take(struct scene *scene, const struct client *client,
		 struct adopted_entry *ret)
{
	if (!adopt_take(scene->house->vault, client->slot, ret))
		return false;
	assert_int_equal(inode_of(ret->fds[0]), client->inode);
	assert_true(fcntl(ret->fds[0], F_GETFD) & FD_CLOEXEC);
	return true;
}

/* It is served: a byte that the peer sends can be read. */
static void expect_served(struct scene *scene, const struct client *client)
{
	struct adopted_entry entry;

	assert_true(take(scene, client, &entry));
	assert_int_equal(entry.n_fds, 1);
	write_exactly(client->peer, "x", 1);
	expect_text(entry.fds[0], "x");
	house_close_entry(&entry);
}

/* To be called when the adopt is over. */
static void expect_resets(const struct scene *scene)
{
	for (size_t i = 0; i < CLIENTS; i++)
		expect_reset(scene->clients[i].peer);
}

/* The law: see above. Takes what can be taken, ends the adopt, returns how many were
 * served. */
static unsigned expect_served_or_reset(struct scene *scene)
{
	struct adopted_entry entries[CLIENTS];
	bool served[CLIENTS];
	unsigned n = 0;

	for (size_t i = 0; i < CLIENTS; i++)
		n += served[i] = take(scene, &scene->clients[i], &entries[i]);
	house_finish_start(scene->house);
	for (size_t i = 0; i < CLIENTS; i++) {
		if (!served[i]) {
			expect_reset(scene->clients[i].peer);
			continue;
		}
		assert_int_equal(events_now(scene->clients[i].peer, POLLIN | POLLRDHUP),
				 0);
		house_close_entry(&entries[i]);
	}
	return n;
}

/* Nothing but a ledger and the spares of one worker, all of them empty. */
static void expect_clean_store(struct scene *scene)
{
	struct house *house = scene->house;

	house_settle(house);
	assert_int_equal(fake_manager_count(house->manager, STORE_NAME_LEDGER), 1);
	assert_int_equal(fake_manager_count(house->manager, NULL),
			 1 + vault_n_parcels(house->vault));
	assert_int_equal(vault_n_parcels(house->vault), house->vault->n_spares_wanted);
	house_leave(house);
	house_adopt(house);
	assert_int_equal(house->report.ledger, ADOPT_LEDGER_FOUND);
	assert_int_equal(house->report.n_entries, 0);
	assert_int_equal(house->report.n_damaged, 0);
	assert_int_equal(house->report.n_unknown_fds, 0);
	for (uint32_t i = 0; i < house->vault->parcels_end; i++)
		assert_int_equal(house->vault->parcels[i].n_entries, 0);
}

/* ---- nothing was damaged ---- */

static void what_the_last_process_offered_is_void(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	uint64_t offer;

	house_start(house);
	offer = ledger_offer(&house->vault->ledger);
	house_leave(house);
	house_start(house);
	assert_false(ledger_take_offer(&house->vault->ledger, offer));
	offer = ledger_offer(&house->vault->ledger);
	assert_true(ledger_take_offer(&house->vault->ledger, offer));
}

static void first_start_makes_and_stores_a_ledger(void **state)
{
	struct scene *scene = *state;
	struct ledger ledger;

	house_start(scene->house);
	assert_int_equal(scene->house->report.ledger, ADOPT_LEDGER_NONE);
	assert_int_equal(scene->house->report.ledger_version, LEDGER_VERSION);
	assert_int_equal(scene->house->report.n_starts, 1);
	assert_int_equal(scene->house->report.n_entries, 0);
	house_map_ledger(scene->house, &ledger);
	assert_int_equal(ledger.header->n_slots, HOUSE_SLOTS);
	ledger_done(&ledger);
	assert_int_equal(fake_manager_watched(scene->house->manager), 0);
	expect_clean_store(scene);
	assert_int_equal(scene->house->report.n_starts, 2);
}

static void live_entries_come_back_with_the_same_sockets(void **state)
{
	struct scene *scene = *state;

	leave_clients(scene);
	house_adopt(scene->house);
	assert_int_equal(scene->house->report.n_entries, CLIENTS);
	assert_int_equal(scene->house->report.n_damaged, 0);
	assert_int_equal(scene->house->report.n_without_fds, 0);
	assert_int_equal(scene->house->report.crash_signal, 0);
	for (size_t i = 0; i < CLIENTS; i++)
		expect_served(scene, &scene->clients[i]);
	assert_int_equal(adopt_done(scene->house->vault), 0);
}

static void what_was_taken_once_is_not_given_again(void **state)
{
	struct scene *scene = *state;
	struct adopted_entry entry;

	leave_clients(scene);
	house_adopt(scene->house);
	assert_true(take(scene, &scene->clients[0], &entry));
	house_close_entry(&entry);
	assert_false(take(scene, &scene->clients[0], &entry));
	assert_false(adopt_take(scene->house->vault, UINT32_MAX, &entry));
	assert_false(adopt_take(scene->house->vault, HOUSE_SLOTS - 1, &entry));
}

static void adopt_and_take_all(void *userdata)
{
	struct scene *scene = userdata;
	struct adopted_entry entry;

	house_adopt(scene->house);
	for (size_t i = 0; i < CLIENTS; i++)
		assert_true(take(scene, &scene->clients[i], &entry));
	house_finish_start(scene->house);
	house_settle(scene->house);
}

static void any_number_of_restarts_keeps_them(void **state)
{
	struct scene *scene = *state;

	leave_clients(scene);
	for (unsigned i = 0; i < 10; i++)
		run_killed(adopt_and_take_all, scene);
	house_adopt(scene->house);
	assert_int_equal(scene->house->report.n_starts, 12);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
	/* Each start makes spares, and drops those of the last one */
	house_settle(scene->house);
	assert_true(vault_n_parcels(scene->house->vault) <= 5);
}

static void adopt_halfway(void *userdata)
{
	struct scene *scene = userdata;
	struct adopted_entry entry;

	house_adopt(scene->house);
	assert_true(take(scene, &scene->clients[0], &entry));
}

static void death_during_adopt_changes_nothing(void **state)
{
	struct scene *scene = *state;

	leave_clients(scene);
	for (unsigned i = 0; i < 5; i++)
		run_killed(adopt_halfway, scene);
	house_adopt(scene->house);
	assert_int_equal(scene->house->report.n_entries, CLIENTS);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
}

/* vault.h: what is in the store stays there. */
static void freeing_the_vault_during_adopt_changes_nothing(void **state)
{
	struct scene *scene = *state;

	leave_clients(scene);
	house_adopt(scene->house);
	house_leave(scene->house);
	house_adopt(scene->house);
	assert_int_equal(scene->house->report.n_entries, CLIENTS);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
}

static void pair_of_sockets_comes_back_in_order(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	struct adopted_entry entry;
	uint32_t slot;
	int fds[2];

	connect_clients(scene);
	fds[0] = scene->clients[0].ours;
	fds[1] = scene->clients[1].ours;
	house_start(house);
	slot = house_park(house, fds, 2);
	house_leave(house);
	house_adopt(house);
	assert_true(adopt_take(house->vault, slot, &entry));
	assert_int_equal(entry.n_fds, 2);
	assert_int_equal(inode_of(entry.fds[0]), scene->clients[0].inode);
	assert_int_equal(inode_of(entry.fds[1]), scene->clients[1].inode);
	house_close_entry(&entry);
}

static void ended_slots_do_not_come_back(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	struct adopted_entry entry;

	connect_clients(scene);
	house_start(house);
	park_clients(scene);
	packer_free_slot(&house->packer, scene->clients[1].slot);
	house_leave(house);
	let_go(scene);
	house_adopt(house);
	assert_int_equal(house->report.n_entries, CLIENTS - 1);
	assert_int_equal(house->report.n_damaged, 0);
	assert_false(adopt_take(house->vault, scene->clients[1].slot, &entry));
	expect_served(scene, &scene->clients[0]);
	expect_served(scene, &scene->clients[2]);
}

static void slot_used_again_is_the_new_connection(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	uint32_t slot;

	connect_clients(scene);
	house_start(house);
	slot = house_park(house, &scene->clients[0].ours, 1);
	packer_free_slot(&house->packer, slot);
	assert_int_equal(house_park(house, &scene->clients[1].ours, 1), slot);
	house_leave(house);
	let_go(scene);
	house_adopt(house);
	assert_int_equal(house->report.n_entries, 1);
	scene->clients[1].slot = slot;
	expect_served(scene, &scene->clients[1]);
}

static void publish_without_put(void *userdata)
{
	struct house *house = userdata;
	uint32_t slot;

	house_start(house);
	assert_int_equal(packer_take_slot(&house->packer, &slot), 0);
	packer_publish(&house->packer, slot, SLOT_CONNECTION);
}

static void live_slot_without_fds_is_freed(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;

	run_killed(publish_without_put, house);
	house_adopt(house);
	assert_int_equal(house->report.n_without_fds, 1);
	assert_int_equal(house->report.n_damaged, 0);
	assert_int_equal(adopt_done(house->vault), 0);
	for (uint32_t slot = 0; slot < HOUSE_SLOTS; slot++)
		assert_int_equal(house->vault->ledger.slots[slot].state, SLOT_FREE);
}

static void what_nobody_takes_is_reset(void **state)
{
	struct scene *scene = *state;

	leave_clients(scene);
	house_adopt(scene->house);
	assert_int_equal(adopt_done(scene->house->vault), CLIENTS);
	expect_resets(scene);
	house_finish_start(scene->house);
	expect_clean_store(scene);
}

static void no_slot_is_given_out_twice_after_adopt(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	bool used[HOUSE_SLOTS] = {0};
	struct adopted_entry entries[CLIENTS];
	uint32_t slot, n = 0;

	leave_clients(scene);
	house_adopt(house);
	for (size_t i = 0; i < CLIENTS; i++) {
		assert_true(take(scene, &scene->clients[i], &entries[i]));
		used[scene->clients[i].slot] = true;
	}
	house_finish_start(house);
	/* One of them ends at once: its slot is free again, and once only */
	packer_free_slot(&house->packer, scene->clients[2].slot);
	used[scene->clients[2].slot] = false;
	while (packer_take_slot(&house->packer, &slot) == 0) {
		assert_true(slot < HOUSE_SLOTS && !used[slot]);
		used[slot] = true;
		n++;
	}
	assert_int_equal(n, HOUSE_SLOTS - CLIENTS + 1);
	for (size_t i = 0; i < CLIENTS; i++)
		house_close_entry(&entries[i]);
}

static void ledger_keeps_its_size_when_another_is_asked_for(void **state)
{
	struct scene *scene = *state;

	leave_clients(scene);
	scene->house->n_slots = 2 * HOUSE_SLOTS;
	house_adopt(scene->house);
	assert_int_equal(scene->house->vault->ledger.header->n_slots, HOUSE_SLOTS);
	assert_int_equal(scene->house->report.n_entries, CLIENTS);
}

/* ---- cut short ---- */

/* What a sweep does up to the instant before it drops the old parcel, whose number it
 * returns. */
static uint32_t move_clients(struct scene *scene, size_t n)
{
	struct house *house = scene->house;
	uint32_t from = (uint32_t)house->packer.current;
	struct parcel_pack pack = {.n_entries = 0};
	struct parcel_reader reader;

	assert_int_equal(parcel_rewind(house->vault->parcels[from].store_fd, 0), 0);
	parcel_reader_init(&reader, house->vault->parcels[from].store_fd);
	for (size_t i = 0; i < n; i++) {
		struct parcel_entry entry;

		assert_int_equal(parcel_peek(&reader, &entry), PARCEL_ENTRY);
		parcel_pack_add(&pack, &entry);
	}
	parcel_reader_done(&reader);
	assert_int_equal(packer_move(house->vault->packer, &pack, from), 0);
	parcel_pack_done(&pack);
	return from;
}

static void park_and_half_sweep(void *userdata)
{
	start_and_park(userdata);
	(void)move_clients(userdata, CLIENTS - 1);
}

static void park_and_sweep(void *userdata)
{
	struct scene *scene = userdata;

	start_and_park(scene);
	vault_drop_parcel(scene->house->vault, move_clients(scene, CLIENTS));
}

static void duplicates_of_a_sweep_cut_short_are_harmless(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;

	connect_clients(scene);
	run_killed(park_and_half_sweep, scene);
	let_go(scene);
	house_adopt(house);
	assert_int_equal(house->report.n_entries, CLIENTS);
	assert_int_equal(house->report.n_damaged, 0);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
	/* The sweeps of this process make one entry of two */
	house_settle(house);
	house_leave(house);
	house_adopt(house);
	assert_int_equal(house->report.n_entries, CLIENTS);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
}

/* The last act of a process is to put the client once more, with a second socket. */
static void park_and_reconnect_halfway(void *userdata)
{
	struct scene *scene = userdata;
	struct packer *packer = &scene->house->packer;
	struct label label = {
		.version = LABEL_VERSION,
		.kind = SLOT_CONNECTION,
		.n_fds = 2,
	};

	start_and_park(scene);
	label.slot = scene->clients[0].slot;
	label.generation = packer_next_generation(packer, label.slot);
	assert_int_equal(parcel_put(packer->vault->parcels[packer->current].send_fd,
				    &label, 1,
				    (int[]){scene->clients[0].ours,
					    scene->clients[2].ours}),
			 0);
}

static void reconnect_cut_short_leaves_the_old_sockets(void **state)
{
	struct scene *scene = *state;

	connect_clients(scene);
	run_killed(park_and_reconnect_halfway, scene);
	let_go(scene);
	house_adopt(scene->house);
	assert_int_equal(scene->house->report.n_entries, CLIENTS);
	assert_int_equal(scene->house->report.n_damaged, 0);
	expect_served(scene, &scene->clients[0]);
}

static void reconnect(struct scene *scene, const struct client *client, int upstream)
{
	struct packer *packer = &scene->house->packer;
	uint32_t generation = packer_next_generation(packer, client->slot);
	int fds[2] = {client->ours, upstream};

	assert_int_equal(packer_put(packer, client->slot, generation, fds, 2), 0);
}

static void park_and_reconnect(void *userdata)
{
	struct scene *scene = userdata;

	start_and_park(scene);
	reconnect(scene, &scene->clients[0], scene->clients[2].ours);
}

/* Its parcel is swept away at the very moment at which it is no longer the valid one. */
static void park_and_reconnect_while_swept(void *userdata)
{
	struct scene *scene = userdata;
	struct house *house = scene->house;

	start_and_park(scene);
	packer_free_slot(&house->packer, scene->clients[1].slot);
	packer_free_slot(&house->packer, scene->clients[2].slot);
	atomic_store(&house->packer.rotate, true);
	packer_rotate_if_wanted(&house->packer);
	reconnect(scene, &scene->clients[0], scene->clients[2].ours);
	house_settle(house);
}

static void reconnect_leaves_the_new_sockets(void **state)
{
	static void (*const processes[])(void *) = {
		park_and_reconnect,
		park_and_reconnect_while_swept,
	};
	struct scene *scene = *state;

	for (size_t i = 0; i < N_ELEMENTS(processes); i++) {
		struct adopted_entry entry;

		connect_clients(scene);
		run_killed(processes[i], scene);
		let_go(scene);
		house_adopt(scene->house);
		assert_int_equal(scene->house->report.n_damaged, 0);
		assert_true(take(scene, &scene->clients[0], &entry));
		assert_int_equal(entry.n_fds, 2);
		assert_int_equal(inode_of(entry.fds[1]), scene->clients[2].inode);
		house_close_entry(&entry);
		house_leave(scene->house);
	}
}

/* ---- a damaged ledger ---- */

struct header_damage {
	size_t offset;
	size_t size;
	uint64_t value;
	enum adopt_ledger expected;
};

#define DAMAGE(field, to, result)                                              \
	{                                                                      \
		offsetof(struct ledger_header, field),                         \
			sizeof(((struct ledger_header *)0)->field), to, result \
	}

static void damage_header(struct house *house, const struct header_damage *damage)
{
	struct ledger ledger;

	house_map_ledger(house, &ledger);
	/* little-endian or not: the low bytes of a word first, or last */
	if (damage->size == sizeof(uint32_t))
		memcpy((char *)ledger.header + damage->offset,
		       &(uint32_t){(uint32_t)damage->value}, sizeof(uint32_t));
	else
		memcpy((char *)ledger.header + damage->offset, &damage->value,
		       sizeof(uint64_t));
	ledger_done(&ledger);
}

static void damaged_header_costs_the_connections_and_cleans_the_store(void **state)
{
	static const struct header_damage damages[] = {
		DAMAGE(magic, 0, ADOPT_LEDGER_DAMAGED),
		DAMAGE(version, 0, ADOPT_LEDGER_DAMAGED),
		DAMAGE(min_reader, 0, ADOPT_LEDGER_DAMAGED),
		DAMAGE(min_reader, LEDGER_VERSION + 1, ADOPT_LEDGER_DAMAGED),
		DAMAGE(header_size, 0, ADOPT_LEDGER_DAMAGED),
		DAMAGE(header_size, 8192, ADOPT_LEDGER_DAMAGED),
		DAMAGE(slot_size, 0, ADOPT_LEDGER_DAMAGED),
		DAMAGE(slot_size, 64, ADOPT_LEDGER_DAMAGED),
		DAMAGE(n_slots, 0, ADOPT_LEDGER_DAMAGED),
		DAMAGE(n_slots, HOUSE_SLOTS - 1, ADOPT_LEDGER_DAMAGED),
		DAMAGE(n_slots, UINT32_MAX, ADOPT_LEDGER_DAMAGED),
		DAMAGE(n_slots_used, HOUSE_SLOTS + 1, ADOPT_LEDGER_DAMAGED),
		DAMAGE(n_slots_used, UINT32_MAX, ADOPT_LEDGER_DAMAGED),
		DAMAGE(next_id, 0, ADOPT_LEDGER_DAMAGED),
	};
	struct scene *scene = *state;
	struct house *house = scene->house;

	for (size_t i = 0; i < N_ELEMENTS(damages); i++) {
		leave_clients(scene);
		damage_header(house, &damages[i]);
		house_adopt(house);
		assert_int_equal(house->report.ledger, damages[i].expected);
		assert_int_equal(house->report.n_entries, 0);
		assert_int_equal(house->report.n_starts, 1);
		house_finish_start(house);
		expect_resets(scene);
		expect_clean_store(scene);
		house_leave(house);
	}
}

static void ledger_from_the_future_costs_the_connections_and_says_so(void **state)
{
	struct scene *scene = *state;
	struct ledger ledger;

	leave_clients(scene);
	house_map_ledger(scene->house, &ledger);
	ledger.header->version = LEDGER_VERSION + 2;
	ledger.header->min_reader = LEDGER_VERSION + 1;
	ledger_done(&ledger);
	house_adopt(scene->house);
	assert_int_equal(scene->house->report.ledger, ADOPT_LEDGER_INCOMPATIBLE);
	house_finish_start(scene->house);
	expect_resets(scene);
	expect_clean_store(scene);
}

static void newer_ledger_that_allows_it_is_adopted(void **state)
{
	struct scene *scene = *state;
	struct ledger ledger;

	leave_clients(scene);
	house_map_ledger(scene->house, &ledger);
	ledger.header->version = LEDGER_VERSION + 2;
	ledger_done(&ledger);
	house_adopt(scene->house);
	assert_int_equal(scene->house->report.ledger, ADOPT_LEDGER_FOUND);
	assert_int_equal(scene->house->report.ledger_version, LEDGER_VERSION + 2);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
}

/* A memfd of the stored ledger's first size bytes in its place. */
static void replace_ledger(struct house *house, off_t size, int seals)
{
	int copy = must(memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING));
	struct ledger ledger;

	house_map_ledger(house, &ledger);
	assert_int_equal(pwrite(copy, ledger.header, ledger.size, 0), ledger.size);
	if (size < 0)
		size += (off_t)ledger.size;
	ledger_done(&ledger);
	(void)must(ftruncate(copy, size));
	(void)must(fcntl(copy, F_ADD_SEALS, seals));
	fake_manager_remove(house->manager, STORE_NAME_LEDGER);
	fake_manager_put(house->manager, copy, STORE_NAME_LEDGER);
	(void)close(copy);
}

static void truncated_or_unsealed_ledger_costs_the_connections(void **state)
{
	static const struct {
		off_t size; /* below zero: so many bytes are missing */
		int seals;
	} copies[] = {
		{0, F_SEAL_SHRINK | F_SEAL_GROW},
		{100, F_SEAL_SHRINK | F_SEAL_GROW},
		{LEDGER_HEADER_SIZE, F_SEAL_SHRINK | F_SEAL_GROW},
		{-1, F_SEAL_SHRINK | F_SEAL_GROW},
		{-4096, F_SEAL_SHRINK | F_SEAL_GROW},
		{LEDGER_HEADER_SIZE + HOUSE_SLOTS * sizeof(struct ledger_slot),
		 F_SEAL_GROW},
		{LEDGER_HEADER_SIZE + HOUSE_SLOTS * sizeof(struct ledger_slot), 0},
	};
	struct scene *scene = *state;
	struct house *house = scene->house;

	for (size_t i = 0; i < N_ELEMENTS(copies); i++) {
		leave_clients(scene);
		replace_ledger(house, copies[i].size, copies[i].seals);
		house_adopt(house);
		assert_int_equal(house->report.ledger, ADOPT_LEDGER_DAMAGED);
		house_finish_start(house);
		expect_resets(scene);
		expect_clean_store(scene);
		house_leave(house);
	}
}

static void lost_ledger_costs_the_connections(void **state)
{
	struct scene *scene = *state;

	leave_clients(scene);
	fake_manager_remove(scene->house->manager, STORE_NAME_LEDGER);
	house_adopt(scene->house);
	assert_int_equal(scene->house->report.ledger, ADOPT_LEDGER_NONE);
	house_finish_start(scene->house);
	expect_resets(scene);
	expect_clean_store(scene);
}

static void good_ledger_is_found_beside_a_bad_one(void **state)
{
	struct scene *scene = *state;
	int token = token_new(1);

	leave_clients(scene);
	fake_manager_put(scene->house->manager, token, STORE_NAME_LEDGER);
	(void)close(token);
	house_adopt(scene->house);
	assert_int_equal(scene->house->report.ledger, ADOPT_LEDGER_FOUND);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
}

/*
 * Each bit of one slot's record, and each of the header's first bytes, turned over: the
 * other connections are served (unless the ledger as a whole is refused), and the one is
 * served or reset.
 */
static void adopt_with_bit_flipped(struct scene *scene, size_t offset, unsigned bit)
{
	struct house *house = scene->house;
	bool is_header = offset < LEDGER_HEADER_SIZE;
	struct ledger ledger;
	unsigned n;

	leave_clients(scene);
	if (!is_header)
		offset += scene->clients[1].slot * sizeof(struct ledger_slot);
	house_map_ledger(house, &ledger);
	((unsigned char *)ledger.header)[offset] ^= (unsigned char)(1u << bit);
	ledger_done(&ledger);
	house_adopt(house);
	n = expect_served_or_reset(scene);
	if (!is_header)
		assert_true(n >= CLIENTS - 1);
	/* For the next bit everything is made anew */
	house_leave(house);
	house->manager = fake_manager_free(house->manager);
	house->manager = fake_manager_new(HOUSE_STORE_MAX);
}

/* Whether byte i is one of the field's; such a field has a test of its own. */
#define IS_OF(type, field, i)            \
	((i) >= offsetof(type, field) && \
	 (i) < offsetof(type, field) + sizeof(((type *)0)->field))

static void any_bit_of_a_slot_costs_its_connection_at_most(void **state)
{
	for (size_t i = 0; i < sizeof(struct ledger_slot); i++)
		for (unsigned bit = 0; bit < 8; bit += 3)
			if (!IS_OF(struct ledger_slot, generation, i))
				adopt_with_bit_flipped(*state, LEDGER_HEADER_SIZE + i,
						       (bit + (unsigned)i) % 8);
}

static void damaged_generation_of_a_slot_costs_its_connection_at_most(void **state)
{
	for (unsigned bit = 0; bit < 8; bit++)
		adopt_with_bit_flipped(*state,
				       LEDGER_HEADER_SIZE +
					       offsetof(struct ledger_slot, generation),
				       bit);
}

static void any_bit_of_the_header_leaves_no_connection_hanging(void **state)
{
	for (size_t i = 0; i < offsetof(struct ledger_header, in_hand); i++)
		for (unsigned bit = 0; bit < 8; bit += 2)
			if (!IS_OF(struct ledger_header, n_slots_used, i))
				adopt_with_bit_flipped(*state, i,
						       (bit + (unsigned)i % 2) % 8);
}

static void adopt_by_the_law(void *userdata)
{
	struct scene *scene = userdata;

	house_adopt(scene->house);
	assert_int_equal(scene->house->report.ledger, ADOPT_LEDGER_FOUND);
	(void)expect_served_or_reset(scene);
}

/* A number that is too small can't be seen in the header alone. */
static void live_slots_beyond_those_in_use_cost_their_connections_at_most(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	struct ledger ledger;
	uint32_t n_used;

	leave_clients(scene);
	house_map_ledger(house, &ledger);
	n_used = ledger.header->n_slots_used;
	ledger_done(&ledger);
	for (uint32_t n = 0; n <= n_used; n += n < n_used - 4 ? n_used - 4 : 1) {
		leave_clients(scene);
		house_map_ledger(house, &ledger);
		ledger.header->n_slots_used = n;
		ledger_done(&ledger);
		/* In a process of its own: memory is at stake */
		run_killed(adopt_by_the_law, scene);
		house->manager = fake_manager_free(house->manager);
		house->manager = fake_manager_new(HOUSE_STORE_MAX);
	}
}

/* ---- damaged claims on pipes ---- */

static slot_ref park_pipe(struct house *house, const char *text)
{
	struct pool_pipe *pipe;
	slot_ref ref;

	assert_int_equal(pipe_pool_borrow(&house->pipes, &pipe), 0);
	write_exactly(pipe->fd, text, strlen(text));
	ref = pipe->ref;
	(void)close(pipe->fd);
	free(pipe);
	return ref;
}

static struct ledger_flow *flow_of(const struct scene *scene, size_t client, size_t index)
{
	uint32_t slot = scene->clients[client].slot;

	return &scene->house->vault->ledger.slots[slot].flows[index];
}

static void lent_pipe_comes_back_with_its_bytes(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	struct adopted_entry entry;
	size_t pending;
	slot_ref ref;

	connect_clients(scene);
	house_start(house);
	park_clients(scene);
	ref = park_pipe(house, "pending");
	flow_of(scene, 0, 0)->pipe = ref;
	house_leave(house);
	house_adopt(house);
	assert_int_equal(flow_of(scene, 0, 0)->pipe, ref);
	assert_int_equal(house->report.n_entries, CLIENTS + 1);
	assert_true(adopt_take(house->vault, slot_ref_slot(ref), &entry));
	assert_int_equal(entry.n_fds, 1);
	assert_int_equal(pipe_get_pending(entry.fds[0], &pending), 0);
	assert_int_equal(pending, strlen("pending"));
	expect_text(entry.fds[0], "pending");
	house_close_entry(&entry);
}

static void pipe_claimed_twice_is_nobodys(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	struct adopted_entry entry;
	slot_ref ref, good;

	connect_clients(scene);
	house_start(house);
	park_clients(scene);
	ref = park_pipe(house, "whose?");
	good = park_pipe(house, "mine");
	flow_of(scene, 0, 0)->pipe = flow_of(scene, 1, 1)->pipe = ref;
	flow_of(scene, 2, 0)->pipe = good;
	house_leave(house);
	house_adopt(house);
	assert_false(adopt_take(house->vault, slot_ref_slot(ref), &entry));
	assert_true(adopt_take(house->vault, slot_ref_slot(good), &entry));
	expect_text(entry.fds[0], "mine");
	house_close_entry(&entry);
	/* That the two flows can't go on is for their owner to see */
	let_go(scene);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
}

/* Damage in one record must not cost another connection its life without a reset. */
static void connection_claimed_as_a_pipe_is_served_or_reset(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	slot_ref ref;

	connect_clients(scene);
	house_start(house);
	park_clients(scene);
	ref = slot_ref_make(scene->clients[2].slot, 1);
	flow_of(scene, 0, 0)->pipe = flow_of(scene, 0, 1)->pipe = ref;
	house_leave(house);
	let_go(scene);
	house_adopt(house);
	assert_true(expect_served_or_reset(scene) >= CLIENTS - 1);
	house_settle(house);
	house_leave(house);
}

/* ---- what else may lie in the store ---- */

static void unknown_names_are_removed_and_closed(void **state)
{
	static const char *const names[] = {"stored", "connection", "p99999", "p01", "p"};
	struct scene *scene = *state;
	struct house *house = scene->house;

	leave_clients(scene);
	for (size_t i = 0; i < N_ELEMENTS(names); i++) {
		int token = token_new(i);

		fake_manager_put(house->manager, token, names[i]);
		(void)close(token);
	}
	house_adopt(house);
	assert_int_equal(house->report.n_unknown_fds, N_ELEMENTS(names));
	assert_int_equal(house->report.n_entries, CLIENTS);
	fake_manager_sync(house->manager);
	for (size_t i = 0; i < N_ELEMENTS(names); i++)
		assert_int_equal(fake_manager_count(house->manager, names[i]), 0);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
}

static void probes_that_were_left_are_removed_without_a_word(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int probe = token_new(1), proof = token_new(2);

	leave_clients(scene);
	fake_manager_put(house->manager, probe, STORE_NAME_PROBE);
	fake_manager_put(house->manager, proof, STORE_NAME_PROOF);
	(void)close(probe);
	(void)close(proof);
	house_adopt(house);
	assert_int_equal(house->report.n_unknown_fds, 0);
	fake_manager_sync(house->manager);
	assert_int_equal(fake_manager_count(house->manager, STORE_NAME_PROBE), 0);
	assert_int_equal(fake_manager_count(house->manager, STORE_NAME_PROOF), 0);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
}

/* The name of the parcel that has the clients. */
static void name_of_full_parcel(const struct house *house, char *ret_name)
{
	uint32_t i = 0;

	while (house->vault->parcels[i].n_entries == 0)
		i++;
	store_parcel_name(i, ret_name);
}

static void second_fd_of_a_parcels_name_does_no_harm(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	char name[STORE_NAME_SIZE];
	int token = token_new(1);

	leave_clients(scene);
	house_adopt(house);
	name_of_full_parcel(house, name);
	(void)expect_served_or_reset(scene);
	house_leave(house);
	house_receive(house);
	house->given.fds[house->given.n++] =
		(struct stored_fd){.fd = token, .name = name};
	house_adopt_received(house);
	assert_int_equal(house->report.n_unknown_fds, 1);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
	fake_manager_sync(house->manager);
	assert_int_equal(fake_manager_count(house->manager, name), 1);
}

static void things_that_are_no_parcels_are_dropped(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	int token = token_new(1), sockets[2], pipes[2];

	house_start(house);
	house_leave(house);
	unix_pair(&sockets[0], &sockets[1]);
	(void)must(pipe2(pipes, O_CLOEXEC));
	write_exactly(sockets[1], "not a label, and longer than one is", 35);
	fake_manager_put(house->manager, token, "p100");
	fake_manager_put(house->manager, sockets[0], "p101");
	fake_manager_put(house->manager, pipes[0], "p102");
	for (size_t i = 0; i < 2; i++) {
		(void)close(sockets[i]);
		(void)close(pipes[i]);
	}
	(void)close(token);
	house_start(house);
	expect_clean_store(scene);
}

/* ---- damaged entries ---- */

struct sender {
	int send_fd;
	int store_fd;
};

/* A parcel of our own making in the store, to which anything may be added. */
static struct sender store_parcel(struct house *house, const char *name)
{
	struct sender sender;

	assert_int_equal(parcel_new_pair(&sender.send_fd, &sender.store_fd), 0);
	fake_manager_put(house->manager, sender.store_fd, name);
	return sender;
}

static void sender_close(struct sender *sender)
{
	(void)close(sender->send_fd);
	(void)close(sender->store_fd);
}

static void put_label(const struct sender *sender, struct label label, int fd)
{
	label.n_fds = 1;
	assert_int_equal(parcel_put(sender->send_fd, &label, 1, &fd), 0);
}

/* Entries that no process of ours wrote: each is reset, and nothing else is. */
static void entries_that_can_not_be_are_reset(void **state)
{
	struct label label, labels[5];
	struct scene *scene = *state;
	struct house *house = scene->house;
	struct sender sender;

	leave_clients(scene);
	label = (struct label){
		.version = LABEL_VERSION,
		.kind = SLOT_CONNECTION,
		.slot = scene->clients[0].slot,
		.generation = 1,
	};
	for (size_t i = 0; i < N_ELEMENTS(labels); i++)
		labels[i] = label;
	labels[0].version++;
	labels[1].kind ^= 1;
	labels[2].slot = HOUSE_SLOTS;
	labels[3].kind = SLOT_PIPE;  /* and the slot is a connection */
	labels[4].generation = 5000; /* that was never given out */
	sender = store_parcel(house, "p50");
	for (size_t i = 0; i < N_ELEMENTS(labels); i++) {
		int ours, peer;

		tcp_pair(&ours, &peer);
		put_label(&sender, labels[i], ours);
		(void)close(ours);
		house_adopt(house);
		assert_int_equal(house->report.n_damaged, i + 1);
		assert_int_equal(house->report.n_entries, CLIENTS);
		expect_reset(peer);
		(void)close(peer);
		assert_int_equal(expect_served_or_reset(scene), CLIENTS);
		/* Not through a sweep: the next round has this parcel again */
		house_leave(house);
	}
	sender_close(&sender);
}

static void generation_of_a_damaged_entry_is_never_used_again(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	struct label label = {.version = LABEL_VERSION,
			      .kind = SLOT_CONNECTION,
			      .generation = 77};
	struct sender sender;
	int token = token_new(1);
	uint32_t slot;

	house_start(house);
	assert_int_equal(packer_take_slot(&house->packer, &slot), 0);
	house_leave(house);
	sender = store_parcel(house, "p50");
	put_label(&sender, label, token);
	(void)close(token);
	house_start(house);
	assert_int_equal(house->report.n_damaged, 1);
	while (packer_take_slot(&house->packer, &slot) == 0)
		if (slot == 0)
			assert_true(house->vault->ledger.slots[slot].generation > 77);
	sender_close(&sender);
}

static void empty_message_ends_its_parcel_only(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	struct sender sender;

	leave_clients(scene);
	sender = store_parcel(house, "p50");
	assert_int_equal(send(sender.send_fd, "", 0, 0), 0);
	house_adopt(house);
	assert_int_equal(house->report.n_entries, CLIENTS);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
	sender_close(&sender);
}

/* ---- no room for the fds ---- */

/* Fds that a vault opens, and those that adopt keeps in reserve. */
#define ADOPT_FDS (2 + PARCEL_PACK_FDS_MAX)

static void connections_without_room_are_reset(void **state)
{
	struct scene *scene = *state;

	for (unsigned room = 0; room <= CLIENTS; room++) {
		rlim_t before;

		leave_clients(scene);
		house_receive(scene->house);
		before = leave_room_for(ADOPT_FDS + room);
		house_adopt_received(scene->house);
		restore_room(before);
		assert_int_equal(scene->house->report.n_entries, room);
		assert_int_equal(expect_served_or_reset(scene), room);
		house_leave(scene->house);
		fake_manager_free(scene->house->manager);
		scene->house->manager = fake_manager_new(HOUSE_STORE_MAX);
	}
}

/* The fds of one message come together or not at all. */
static void packed_connections_without_room_are_reset(void **state)
{
	struct scene *scene = *state;

	for (unsigned room = 0; room <= CLIENTS; room++) {
		unsigned n = room == CLIENTS ? CLIENTS : 0;
		rlim_t before;

		connect_clients(scene);
		run_killed(park_and_sweep, scene);
		let_go(scene);
		house_receive(scene->house);
		before = leave_room_for(ADOPT_FDS + room);
		house_adopt_received(scene->house);
		restore_room(before);
		assert_int_equal(scene->house->report.n_entries, n);
		assert_int_equal(scene->house->report.n_damaged, CLIENTS - n);
		assert_int_equal(expect_served_or_reset(scene), n);
		house_leave(scene->house);
		fake_manager_free(scene->house->manager);
		scene->house->manager = fake_manager_new(HOUSE_STORE_MAX);
	}
}

/* The second entry of a connection that has been adopted is no reason to reset it. */
static void duplicate_without_room_does_not_reset_its_connection(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	rlim_t before;

	connect_clients(scene);
	run_killed(park_and_half_sweep, scene);
	let_go(scene);
	house_receive(house);
	before = leave_room_for(ADOPT_FDS + CLIENTS);
	house_adopt_received(house);
	restore_room(before);
	assert_int_equal(house->report.n_entries, CLIENTS);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
}

/* ---- crashes ---- */

static void crash_with(struct house *house, uint32_t slot, unsigned worker)
{
	struct ledger ledger;

	house_map_ledger(house, &ledger);
	ledger.header->crash_signal = SIGSEGV;
	ledger.header->crash_worker = worker + 1;
	ledger.header->in_hand[worker] =
		slot_ref_make(slot, ledger.slots[slot].generation);
	ledger_done(&ledger);
}

static void slot_in_hand_at_three_crashes_is_quarantined(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	uint32_t bad;

	leave_clients(scene);
	bad = scene->clients[1].slot;
	for (unsigned i = 1; i <= ADOPT_QUARANTINE_CRASHES; i++) {
		crash_with(house, bad, i);
		house_adopt(house);
		assert_int_equal(house->report.crash_signal, SIGSEGV);
		assert_int_equal(house->report.n_crashes_in_row, i);
		assert_int_equal(adopt_is_quarantined(house->vault, bad),
				 i == ADOPT_QUARANTINE_CRASHES);
		assert_false(adopt_is_quarantined(house->vault, scene->clients[0].slot));
		assert_int_equal(expect_served_or_reset(scene), CLIENTS);
		house_leave(house);
	}
}

static void other_crash_or_none_in_between_clears_the_count(void **state)
{
	struct scene *scene = *state;
	struct house *house = scene->house;
	struct ledger_slot *slots;

	leave_clients(scene);
	crash_with(house, scene->clients[1].slot, 0);
	house_adopt(house);
	slots = house->vault->ledger.slots;
	assert_int_equal(slots[scene->clients[1].slot].n_crashes, 1);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
	house_leave(house);
	/* A kill is nobody's fault, and no row of crashes any more */
	house_adopt(house);
	slots = house->vault->ledger.slots;
	assert_int_equal(slots[scene->clients[1].slot].n_crashes, 1);
	assert_int_equal(house->report.n_crashes_in_row, 0);
	assert_int_equal(house->report.crash_signal, 0);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
	house_leave(house);
	crash_with(house, scene->clients[0].slot, 0);
	house_adopt(house);
	slots = house->vault->ledger.slots;
	assert_int_equal(slots[scene->clients[0].slot].n_crashes, 1);
	assert_int_equal(slots[scene->clients[1].slot].n_crashes, 0);
	assert_int_equal(expect_served_or_reset(scene), CLIENTS);
}

/* ---- no manager ---- */

static void without_a_manager_there_is_no_vault(void **state)
{
	struct vault *vault = NULL;
	struct adopt_report report = {.n_starts = 42};
	unsigned n_fds = count_fds();
	char *before = strdup(getenv("NOTIFY_SOCKET"));

	(void)state;
	(void)unsetenv("NOTIFY_SOCKET");
	assert_int_equal(vault_new(1, &vault), 0);
	assert_int_equal(vault_adopt(vault, NULL, 0, HOUSE_SLOTS, &report), -ENOTCONN);
	assert_int_equal(report.n_starts, 42);
	(void)vault_free(vault);
	assert_int_equal(count_fds(), n_fds);
	(void)setenv("NOTIFY_SOCKET", before, 1);
	free(before);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(what_the_last_process_offered_is_void),
		TEST(first_start_makes_and_stores_a_ledger),
		TEST(live_entries_come_back_with_the_same_sockets),
		TEST(what_was_taken_once_is_not_given_again),
		TEST(any_number_of_restarts_keeps_them),
		TEST(death_during_adopt_changes_nothing),
		TEST(freeing_the_vault_during_adopt_changes_nothing),
		TEST(pair_of_sockets_comes_back_in_order),
		TEST(ended_slots_do_not_come_back),
		TEST(slot_used_again_is_the_new_connection),
		TEST(live_slot_without_fds_is_freed),
		TEST(what_nobody_takes_is_reset),
		TEST(no_slot_is_given_out_twice_after_adopt),
		TEST(ledger_keeps_its_size_when_another_is_asked_for),
		TEST(duplicates_of_a_sweep_cut_short_are_harmless),
		TEST(reconnect_cut_short_leaves_the_old_sockets),
		TEST(reconnect_leaves_the_new_sockets),
		TEST(damaged_header_costs_the_connections_and_cleans_the_store),
		TEST(ledger_from_the_future_costs_the_connections_and_says_so),
		TEST(newer_ledger_that_allows_it_is_adopted),
		TEST(truncated_or_unsealed_ledger_costs_the_connections),
		TEST(lost_ledger_costs_the_connections),
		TEST(good_ledger_is_found_beside_a_bad_one),
		TEST(any_bit_of_a_slot_costs_its_connection_at_most),
		TEST(damaged_generation_of_a_slot_costs_its_connection_at_most),
		TEST(any_bit_of_the_header_leaves_no_connection_hanging),
		TEST(live_slots_beyond_those_in_use_cost_their_connections_at_most),
		TEST(lent_pipe_comes_back_with_its_bytes),
		TEST(pipe_claimed_twice_is_nobodys),
		TEST(connection_claimed_as_a_pipe_is_served_or_reset),
		TEST(unknown_names_are_removed_and_closed),
		TEST(probes_that_were_left_are_removed_without_a_word),
		TEST(second_fd_of_a_parcels_name_does_no_harm),
		TEST(things_that_are_no_parcels_are_dropped),
		TEST(entries_that_can_not_be_are_reset),
		TEST(generation_of_a_damaged_entry_is_never_used_again),
		TEST(empty_message_ends_its_parcel_only),
		TEST(connections_without_room_are_reset),
		TEST(packed_connections_without_room_are_reset),
		TEST(duplicate_without_room_does_not_reset_its_connection),
		TEST(slot_in_hand_at_three_crashes_is_quarantined),
		TEST(other_crash_or_none_in_between_clears_the_count),
		TEST(without_a_manager_there_is_no_vault),
	};

	return UNIT_RUN("adopt", tests);
}
