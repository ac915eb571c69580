/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A successor in a process of its own, of a house whose records these tests write as
 * workers would: what is between two looks of the successor is chosen here.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "holdfastd/handover.h"
#include "holdfastd/options.h"
#include "holdfastd/successor.h"
#include "holdfastd/worker.h"
#include "house.h"
#include "vault/give.h"

#define PATIENCE_USEC (UNIT_PATIENCE_MSEC * USEC_PER_MSEC)
/* What the child's status says if it does not serve. */
#define STATUS_FAILED 100
/* In a word of notes that has no other slot of these tests. */
#define OTHER_SLOT 64

struct client {
	int ours;
	int peer;
	uint32_t slot;
};

struct scene {
	struct house *house;
	struct client clients[2];
	int socket;
	pid_t child;
};

static int setup(void **state)
{
	struct scene *scene = calloc(1, sizeof(*scene));

	assert_non_null(scene);
	scene->house = house_new(HOUSE_STORE_MAX, HOUSE_SLOTS);
	scene->socket = -EBADF;
	house_start(scene->house);
	for (size_t i = 0; i < N_ELEMENTS(scene->clients); i++) {
		struct client *client = &scene->clients[i];

		unix_pair(&client->ours, &client->peer);
		client->slot = house_park(scene->house, &client->ours, 1);
		scene->house->vault->ledger.slots[client->slot].service = SERVICE_ECHO;
		assert_true(client->slot < OTHER_SLOT);
	}
	house_settle(scene->house);
	*state = scene;
	return 0;
}

static int teardown(void **state)
{
	struct scene *scene = *state;

	for (size_t i = 0; i < N_ELEMENTS(scene->clients); i++) {
		(void)fd_close(scene->clients[i].ours);
		(void)fd_close(scene->clients[i].peer);
	}
	(void)fd_close(scene->socket);
	if (scene->child > 0)
		(void)waitpid(scene->child, NULL, 0);
	scene->house = house_free(scene->house);
	free(scene);
	return 0;
}

/* ---- the two processes ---- */

/* The status is the number of connections that it has taken over. */
static int succeed(int socket)
{
	static const struct options options = {
		.service = SERVICE_ECHO,
		.idle_timeout_usec = USEC_INFINITY,
		.keepalive_idle_usec = USEC_INFINITY,
	};
	static struct worker worker;
	static struct shared shared = {
		.options = &options,
		.workers = &worker,
		.n_workers = 1,
	};
	struct successor *successor;

	gate_init(&shared.gate);
	gate_close(&shared.gate);
	if (vault_new(1, &shared.vault) < 0 ||
	    successor_new(socket, shared.vault, &successor) < 0 ||
	    worker_init(&worker, &shared, 0) < 0 ||
	    successor_take_over(successor, &shared) < 0)
		return STATUS_FAILED;
	return (int)successor_get_n_connections(successor);
}

static void tell(const struct scene *scene, struct handover message, const int *fds)
{
	assert_int_equal(handover_send(scene->socket, &message, fds), 0);
}

static void tell_parcels(const struct scene *scene)
{
	const struct vault_parcel *parcel;
	uint32_t index = 0;

	while ((parcel = give_next_parcel(scene->house->vault, &index))) {
		tell(scene,
		     (struct handover){.type = HANDOVER_PARCELS,
				       .n_fds = 2,
				       .n_parcels = 1,
				       .parcels = {index << 1 | 1}},
		     (int[]){parcel->store_fd, parcel->send_fd});
		give_note_passed(scene->house->vault, index++);
	}
}

static void hear(const struct scene *scene, enum handover_type expected)
{
	struct handover message;
	int fds[HANDOVER_FDS_MAX];

	assert_int_equal(handover_receive(scene->socket, time_now_usec() + PATIENCE_USEC,
					  &message, fds),
			 HANDOVER_MESSAGE);
	assert_int_equal(message.type, expected);
}

/* Starts the successor, and waits until it is ready. */
static void begin(struct scene *scene)
{
	struct vault *vault = scene->house->vault;
	int pair[2];

	assert_int_equal(give_begin(vault), 0);
	(void)must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
			      pair));
	scene->child = must(fork());
	if (scene->child == 0) {
		/* A test that fails leaves it alone */
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* Else cmocka would go on with the next test in this process */
		(void)signal(SIGSEGV, SIG_DFL);
		(void)signal(SIGABRT, SIG_DFL);
		(void)close(pair[0]);
		_exit(succeed(pair[1]));
	}
	(void)close(pair[1]);
	scene->socket = pair[0];
	tell(scene, (struct handover){.type = HANDOVER_BEGIN, .n_fds = 2},
	     (int[]){vault->ledger.fd, vault->changes.fd});
	tell(scene, (struct handover){.type = HANDOVER_LISTENERS, .n_fds = 1},
	     &scene->clients[0].ours);
	tell_parcels(scene);
	tell(scene, (struct handover){.type = HANDOVER_END_OF_STATE}, NULL);
	hear(scene, HANDOVER_READY);
}

/* Waits until the successor has looked at all that was noted before. */
static void wait_for_look(const struct scene *scene)
{
	struct vault *vault = scene->house->vault;
	uint32_t word = OTHER_SLOT / CHANGES_SLOTS_PER_WORD;

	/* Once it has begun a look, and once more when that is over */
	for (unsigned i = 0; i < 2; i++) {
		vault_note_change(vault, OTHER_SLOT);
		while (vault->changes.words[word] != 0)
			(void)sched_yield();
	}
}

static void expect_takeover(struct scene *scene, int n_expected)
{
	uint64_t offer = ledger_offer(&scene->house->vault->ledger);
	int status = 0;

	tell(scene, (struct handover){.type = HANDOVER_GO, .number = offer}, NULL);
	hear(scene, HANDOVER_SERVING);
	assert_false(ledger_withdraw_offer(&scene->house->vault->ledger, offer));
	(void)must(waitpid(scene->child, &status, 0));
	scene->child = 0;
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), n_expected);
}

/* ---- what the worker of the serving process does ---- */

static struct ledger_slot *record_of(const struct scene *scene, size_t i)
{
	return &scene->house->vault->ledger.slots[scene->clients[i].slot];
}

static struct pool_pipe *lend(const struct scene *scene, size_t i)
{
	struct pool_pipe *pipe;

	assert_int_equal(pipe_pool_borrow(&scene->house->pipes, &pipe), 0);
	write_exactly(pipe->fd, "pending", 7);
	record_of(scene, i)->flows[0].pipe = pipe->ref;
	return pipe;
}

static void note(const struct scene *scene, size_t i)
{
	vault_note_change(scene->house->vault, scene->clients[i].slot);
}

static void expect_both_live(const struct scene *scene)
{
	assert_int_equal(record_of(scene, 0)->state, SLOT_CONNECTION);
	assert_int_equal(record_of(scene, 1)->state, SLOT_CONNECTION);
	for (size_t i = 0; i < N_ELEMENTS(scene->clients); i++)
		assert_int_equal(events_now(scene->clients[i].peer, POLLIN | POLLRDHUP),
				 0);
}

/* ---- tests ---- */

static void connections_are_taken_over(void **state)
{
	struct scene *scene = *state;
	struct pool_pipe *pipe = lend(scene, 0);

	begin(scene);
	expect_takeover(scene, 2);
	expect_both_live(scene);
	assert_int_equal(record_of(scene, 0)->flows[0].pipe, pipe->ref);
	pipe_pool_return(&scene->house->pipes, pipe);
}

/* In a busy process a pipe is lent to another connection all the time. */
static void pipe_may_go_to_another_connection(void **state)
{
	struct scene *scene = *state;

	for (size_t from = 0; from < 2; from++) {
		struct pool_pipe *pipe = lend(scene, from);

		begin(scene);
		/* Within one advance of each, and so one look sees both */
		record_of(scene, from)->flows[0].pipe = 0;
		record_of(scene, 1 - from)->flows[0].pipe = pipe->ref;
		note(scene, from);
		note(scene, 1 - from);
		expect_takeover(scene, 2);
		expect_both_live(scene);
		record_of(scene, 1 - from)->flows[0].pipe = 0;
		pipe_pool_return(&scene->house->pipes, pipe);
		scene->socket = fd_close(scene->socket);
	}
}

static void pipe_may_go_to_another_connection_between_looks(void **state)
{
	struct scene *scene = *state;

	for (size_t from = 0; from < 2; from++) {
		struct pool_pipe *pipe = lend(scene, from);

		begin(scene);
		record_of(scene, from)->flows[0].pipe = 0;
		record_of(scene, 1 - from)->flows[0].pipe = pipe->ref;
		/* A look that has taken the notes of one too early sees half of it */
		note(scene, 1 - from);
		wait_for_look(scene);
		note(scene, from);
		expect_takeover(scene, 2);
		expect_both_live(scene);
		record_of(scene, 1 - from)->flows[0].pipe = 0;
		pipe_pool_return(&scene->house->pipes, pipe);
		scene->socket = fd_close(scene->socket);
	}
}

static void what_can_not_be_continued_is_reset(void **state)
{
	struct scene *scene = *state;

	/* A pipe of which nobody knows, in the ledger and beyond it */
	for (uint32_t i = 0; i < 2; i++)
		record_of(scene, i)->flows[0].pipe =
			slot_ref_make(i == 0 ? OTHER_SLOT : LEDGER_SLOTS_MAX * 1000, 1);
	begin(scene);
	expect_takeover(scene, 0);
	for (size_t i = 0; i < N_ELEMENTS(scene->clients); i++) {
		assert_int_equal(record_of(scene, i)->state, SLOT_FREE);
		expect_end(scene->clients[i].peer);
	}
}

static void half_of_a_change_is_made_good(void **state)
{
	struct scene *scene = *state;
	struct pool_pipe *pipe = lend(scene, 0);

	record_of(scene, 0)->flows[0].pipe = pipe->ref + 1;
	begin(scene);
	record_of(scene, 0)->flows[0].pipe = pipe->ref;
	note(scene, 0);
	expect_takeover(scene, 2);
	expect_both_live(scene);
	pipe_pool_return(&scene->house->pipes, pipe);
}

static void successor_ends_with_the_process_it_follows(void **state)
{
	struct scene *scene = *state;
	int status = 0;

	begin(scene);
	scene->socket = fd_close(scene->socket);
	(void)must(waitpid(scene->child, &status, 0));
	scene->child = 0;
	assert_int_equal(WEXITSTATUS(status), STATUS_FAILED);
	expect_both_live(scene);
}

static void offer_that_was_withdrawn_is_not_taken(void **state)
{
	struct scene *scene = *state;
	struct ledger *ledger = &scene->house->vault->ledger;
	uint64_t offer;
	int status = 0;

	begin(scene);
	offer = ledger_offer(ledger);
	assert_true(ledger_withdraw_offer(ledger, offer));
	tell(scene, (struct handover){.type = HANDOVER_GO, .number = offer}, NULL);
	hear(scene, HANDOVER_FAILED);
	(void)must(waitpid(scene->child, &status, 0));
	scene->child = 0;
	assert_int_equal(WEXITSTATUS(status), STATUS_FAILED);
	expect_both_live(scene);
}

/* What is looked at again comes at the list's end, out of the order in which they end. */
static void idle_ones_are_in_the_order_of_their_times(void **state)
{
	static const struct options options = {.idle_timeout_usec = USEC_PER_SEC};
	static struct shared shared = {.options = &options};
	static struct worker worker = {.shared = &shared};
	static struct connection connections[] = {
		{.state = CONNECTION_OPEN, .active_usec = 30},
		{.state = CONNECTION_OPEN, .active_usec = 10},
		{.state = CONNECTION_OPEN, .active_usec = 20},
	};
	static const uint64_t times[] = {5, 15, 20, 30, 40};
	static struct connection late = {.state = CONNECTION_OPEN};
	static struct connection lingering = {.state = CONNECTION_LINGERING};
	const struct connection *connection;

	(void)state;
	TAILQ_INIT(&worker.idle);
	for (size_t i = 0; i < N_ELEMENTS(connections); i++)
		worker_set_idle(&worker, &connections[i]);
	assert_int_equal(worker_sort_idle(&worker), 0);
	worker_place_idle(&worker, &lingering);
	for (size_t i = 0; i < N_ELEMENTS(times); i++) {
		uint64_t before = 0;
		size_t n = 0;

		late.active_usec = times[i];
		worker_set_idle(&worker, &late);
		worker_place_idle(&worker, &late);
		TAILQ_FOREACH(connection, &worker.idle, timer_entry)
		{
			assert_true(connection->active_usec >= before);
			before = connection->active_usec;
			n++;
		}
		assert_int_equal(n, N_ELEMENTS(connections) + 1);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(connections_are_taken_over),
		TEST(pipe_may_go_to_another_connection),
		TEST(pipe_may_go_to_another_connection_between_looks),
		TEST(what_can_not_be_continued_is_reset),
		TEST(half_of_a_change_is_made_good),
		TEST(successor_ends_with_the_process_it_follows),
		TEST(offer_that_was_withdrawn_is_not_taken),
		cmocka_unit_test(idle_ones_are_in_the_order_of_their_times),
	};

	return UNIT_RUN("successor", tests);
}
