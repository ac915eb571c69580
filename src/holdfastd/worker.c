/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/leisure.h"
#include "base/log.h"
#include "base/pipe.h"
#include "base/time.h"
#include "holdfastd/accept.h"
#include "holdfastd/crash.h"
#include "holdfastd/messages.h"
#include "holdfastd/recover.h"
#include "holdfastd/services/log.h"

/* ---- the loop ---- */

/*
 * Those of the last process, which has been away for long enough: whoever moved bytes
 * last is served first, and again whenever it wants to be, while the others have their
 * turn.
 */
static void take_up_some(struct worker *worker)
{
	struct connection *connection;
	unsigned n = 0;

	TAILQ_FOREACH(connection, &worker->unsettled, pipe_entry)
	{
		if (n++ == WORKER_TAKE_UP_MAX)
			break;
		worker_set_ready(worker, connection);
	}
}

/* A successor takes over what is settled. */
static void settle_all(struct worker *worker)
{
	struct connection *connection;

	while ((connection = TAILQ_FIRST(&worker->unsettled))) {
		connection_set_in_hand(connection, true);
		if (connection_settle(connection))
			worker_set_ready(worker, connection);
		connection_set_in_hand(connection, false);
	}
}

/* Gives up to n of a list their turn. Those that put themselves back are for the next
 * time, and so are all when the worker is to stop. */
static void run_list(struct worker *worker, struct connection_list *list, size_t n)
{
	const struct connection *last = TAILQ_LAST(list, connection_list);
	struct connection *connection;

	while (n-- > 0 && (connection = TAILQ_FIRST(list)) &&
	       !gate_is_closed(&worker->shared->gate)) {
		worker_clear_turn(connection);
		connection_advance(connection);
		if (connection == last)
			return;
	}
}

/*
 * What has just come goes before those that have used up a turn, of which one at a time
 * has another: so a message does not wait for all streams that there are, but for one, or
 * one of 32 where there are many (tests/bench/neighbours.py). Shorter turns instead would
 * cost the streams more CPU time.
 */
static void run_turns(struct worker *worker, int n_events)
{
	size_t n_busy = 1 + (size_t)n_events / WORKER_EVENTS_PER_BUSY_TURN;

	run_list(worker, &worker->ready, SIZE_MAX);
	run_list(worker, &worker->busy, n_busy);
}

/* A moment without pipes is nothing: the vault's next parcel may be under way. */
static void say_no_pipes(struct worker *worker)
{
	if (worker->now_usec - worker->pipes_since_usec < PIPE_SAY_USEC)
		return;
	worker_limit_reached(worker->shared, LIMIT_PIPES,
			     "No pipe can be made for a connection's bytes: they wait; see "
			     "LimitNOFILE= and FileDescriptorStoreMax=");
}

/* Each gets a try; the first that still finds no pipe ends the round. */
static void run_pipe_waiters(struct worker *worker)
{
	const struct connection *last =
		TAILQ_LAST(&worker->pipe_waiters, connection_list);
	struct connection *connection;
	bool again = last != NULL;

	while (again && (connection = TAILQ_FIRST(&worker->pipe_waiters))) {
		worker_clear_waiting(worker, connection);
		connection_advance(connection);
		again = connection != last && !connection->is_waiting_for_pipe;
	}
	if (!TAILQ_EMPTY(&worker->pipe_waiters))
		say_no_pipes(worker);
}

static void take_written(struct worker *worker)
{
	struct log_job *written;

	pthread_mutex_lock(&worker->lock);
	written = worker->written;
	worker->written = NULL;
	pthread_mutex_unlock(&worker->lock);
	log_jobs_written(written);
}

static void woken(struct worker *worker)
{
	eventfd_t n;

	/* Fails only when there is nothing to read */
	(void)eventfd_read(worker->wake_fd, &n);
	take_written(worker);
	packer_rotate_if_wanted(&worker->packer);
	if (!gate_is_closed(&worker->shared->gate) && TAILQ_EMPTY(&worker->unsettled))
		worker_do_request(worker);
	if (!worker->is_accepting &&
	    worker->shared->n_connections < worker->shared->connections_max)
		accept_resume(worker);
}

static bool is_listener(const struct worker *worker, const void *pointer)
{
	const int *listeners = worker->shared->listeners;

	return pointer >= (const void *)listeners &&
	       pointer < (const void *)(listeners + worker->shared->n_listeners);
}

/*
 * Both peers of a connection may have events in one batch: both are noted before the
 * connection advances.
 */
static void dispatch(struct worker *worker, const struct epoll_event *events, int n)
{
	int n_accepts = WORKER_ACCEPTS_MIN + n / WORKER_EVENTS_PER_ACCEPT;

	for (int i = 0; i < n; i++) {
		void *pointer = events[i].data.ptr;
		struct peer *peer = pointer;

		if (pointer == &worker->wake_fd || is_listener(worker, pointer) ||
		    peer->connection->state == CONNECTION_CLOSED)
			continue;
		connection_note_events(peer, events[i].events);
		worker_set_ready(worker, peer->connection);
	}
	run_turns(worker, n);
	for (int i = 0; i < n; i++) {
		void *pointer = events[i].data.ptr;

		if (pointer == &worker->wake_fd)
			woken(worker);
		else if (is_listener(worker, pointer))
			accept_some(worker, pointer, n_accepts);
	}
}

static void run_once(struct worker *worker)
{
	struct epoll_event events[WORKER_EVENTS_MAX];
	bool sees_all = TAILQ_EMPTY(&worker->unsettled);
	uint64_t called_usec = worker->now_usec;
	uint64_t n_rounds;
	int n;

	take_up_some(worker);
	n = epoll_wait(worker->epoll_fd, events, WORKER_EVENTS_MAX,
		       worker_wait_msec(worker));
	worker->now_usec = time_now_usec();
	n_rounds = atomic_fetch_add_explicit(&worker->n_rounds, 1, memory_order_relaxed);
	/* Interrupted, as by SIGSTOP and SIGCONT, it has told of nothing that came */
	sees_all = sees_all && n >= 0;
	dispatch(worker, events, n > 0 ? n : 0);
	if (sees_all)
		worker_run_timers(worker);
	if (sees_all && n_rounds > 0) {
		worker_note_told(worker, n, called_usec);
		worker_run_idle(worker);
	}
	run_pipe_waiters(worker);
	worker_free_closed(worker);
}

/* What is logged twice would be read twice: entries under way are waited for. */
static void finish_log_entries(struct worker *worker)
{
	uint64_t until = time_now_usec() + WORKER_LOG_WAIT_USEC, now;

	while (worker->n_log_jobs > 0 && (now = time_now_usec()) < until) {
		struct pollfd p = {.fd = worker->wake_fd, .events = POLLIN};

		/* Interrupted or not: the clock and the count decide */
		(void)poll(&p, 1, (int)((until - now) / USEC_PER_MSEC) + 1);
		woken(worker);
	}
}

static void wait_at_gate(struct worker *worker)
{
	/* The process that comes after an end settles all anew */
	if (!worker->shared->is_ending)
		settle_all(worker);
	finish_log_entries(worker);
	gate_pass(&worker->shared->gate);
	worker->now_usec = time_now_usec();
	/* For the requests that had to wait */
	worker_wake(worker);
}

/* With this, the journal has the whole life of a connection, whoever served it. */
static void say_continued(const struct worker *worker)
{
	const struct connection *connection;

	if (!log_is_level_enabled(LOG_DEBUG))
		return;
	TAILQ_FOREACH(connection, &worker->all, all_entry)
	connection_log(connection, LOG_DEBUG, MESSAGE_CONTINUED,
		       "Connection %llu goes on",
		       (unsigned long long)connection->record->id);
}

static void *worker_thread(void *userdata)
{
	struct worker *worker = userdata;

	crash_set_worker(worker->index);
	/* Before the gate: behind it the peers wait */
	leisure_end();
	gate_pass(&worker->shared->gate);
	worker->now_usec = worker->begun_usec = time_now_usec();
	say_continued(worker);
	accept_watch(worker);
	for (;;) {
		if (gate_is_closed(&worker->shared->gate))
			wait_at_gate(worker);
		run_once(worker);
	}
	return NULL;
}

void worker_wake(struct worker *worker)
{
	/* Fails only when the counter is full, and then it is readable already */
	(void)eventfd_write(worker->wake_fd, 1);
}

static int make_scratch(struct worker *worker)
{
	int r;

	r = pipe_open_both_ends(&worker->scratch_fd);
	if (r < 0)
		return r;
	/* As many slots as the largest pool pipe; where there are less, flow_peek() asks
	 * for them again */
	(void)fcntl(worker->scratch_fd, F_SETPIPE_SZ, PIPES_LARGE_SIZE);
	return 0;
}

static int make_fds(struct worker *worker)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = &worker->wake_fd};

	worker->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (worker->epoll_fd < 0)
		return -errno;
	worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (worker->wake_fd < 0)
		return -errno;
	if (epoll_ctl(worker->epoll_fd, EPOLL_CTL_ADD, worker->wake_fd, &event) < 0)
		return -errno;
	return make_scratch(worker);
}

int worker_init(struct worker *worker, struct shared *shared, unsigned index)
{
	*worker = (struct worker){
		.shared = shared,
		.index = index,
		.epoll_fd = -EBADF,
		.wake_fd = -EBADF,
		.scratch_fd = -EBADF,
		.now_usec = time_now_usec(),
		.accept_again_usec = USEC_INFINITY,
	};
	pthread_mutex_init(&worker->lock, NULL);
	TAILQ_INIT(&worker->all);
	TAILQ_INIT(&worker->ready);
	TAILQ_INIT(&worker->busy);
	TAILQ_INIT(&worker->pipe_waiters);
	TAILQ_INIT(&worker->unsettled);
	TAILQ_INIT(&worker->connecting);
	TAILQ_INIT(&worker->soon);
	TAILQ_INIT(&worker->failing);
	TAILQ_INIT(&worker->idle);
	TAILQ_INIT(&worker->young);
	TAILQ_INIT(&worker->closed);
	STAILQ_INIT(&worker->requests);
	STAILQ_INIT(&worker->resting);
	packer_init(&worker->packer, shared->vault);
	pipe_pool_init(&worker->pipes, &worker->packer);
	return make_fds(worker);
}

int worker_start(struct worker *worker)
{
	char name[16];
	int r;

	r = pthread_create(&worker->thread, NULL, worker_thread, worker);
	if (r > 0)
		return -r;
	(void)snprintf(name, sizeof(name), "worker/%u", worker->index);
	(void)pthread_setname_np(worker->thread, name);
	return 0;
}
