/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A worker: one thread of the data plane, with an epoll, a packer and a pipe pool of its
 * own. It shares nothing with other workers but the counters in struct shared and what
 * the vault says is shared. It runs epoll itself: an event loop that does work for every
 * source at every event would not stay flat in the number of connections.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "holdfastd/audit.h"
#include "holdfastd/connection.h"
#include "holdfastd/gate.h"
#include "holdfastd/options.h"
#include "holdfastd/registry.h"
#include "holdfastd/upstream.h"
#include "holdfastd/worker-request.h"
#include "vault/packer.h"
#include "vault/pipes.h"

#define WORKER_EVENTS_MAX 256
/* Adopted connections that are taken up between two looks at what has come: some 200 us. */
#define WORKER_TAKE_UP_MAX 32
/*
 * Connections that are accepted between two looks at the others: few, since in a flood
 * they would be what all others wait for (tests/bench/neighbours.py); and one more for so
 * many events, since of a listener epoll tells only after all others that are ready.
 */
#define WORKER_ACCEPTS_MIN 4
#define WORKER_EVENTS_PER_ACCEPT 8
/*
 * Between two looks at what has come one busy connection has its turn, and one more for
 * so many events: about as much time as these take.
 */
#define WORKER_EVENTS_PER_BUSY_TURN 32
/* How long accepting rests after the kernel refused a resource. */
#define ACCEPT_RETRY_USEC (100 * USEC_PER_MSEC)
#define PIPE_RETRY_USEC (50 * USEC_PER_MSEC)
/* How long connections may wait for a pipe before that is said. */
#define PIPE_SAY_USEC (1 * USEC_PER_SEC)
#define LOOK_AGAIN_USEC (5 * USEC_PER_MSEC)
/* Sockets that are let go without a break, and the break; see worker_let_go_all(). */
#define LET_GO_STEP 16u
#define LET_GO_BREATH_USEC 50
#define LET_GO_USEC_MAX (300 * USEC_PER_MSEC)

/* How old a connection is when its upstream gets what only a longer life needs, and how
 * many get it between two looks at what has come. */
#define YOUNG_USEC (1 * USEC_PER_SEC)
#define WORKER_GROWN_MAX 32
/* How long it takes, at the most, for who had his connection accepted by the kernel to be
 * in the accept queue; see accept_some(). */
#define ACCEPT_SETTLE_USEC (1 * USEC_PER_SEC)

#define LIMIT_QUIET_USEC (10 * USEC_PER_SEC)
/*
 * How long a worker that is to stop waits for its log entries. A journal that is slower
 * than this may get one of each connection twice, from this process and its successor.
 */
#define WORKER_LOG_WAIT_USEC (100 * USEC_PER_MSEC)

/* What a limit is about. */
enum limit {
	LIMIT_CONNECTIONS,
	LIMIT_FILES,
	LIMIT_STORE,
	LIMIT_IN_FLIGHT,
	LIMIT_LEDGER,
	LIMIT_PIPES,
	LIMIT_MEMORY,
	LIMIT_MAX,
};

/* What workers share with each other and the main thread. Set before they start, or
 * atomic. */
struct shared {
	const struct options *options;
	struct vault *vault;
	struct upstream *upstream; /* NULL unless new connections are relayed */
	const int *listeners;
	size_t n_listeners;
	struct worker *workers;
	unsigned n_workers;
	unsigned connections_max;
	struct gate gate;
	struct registry registry;
	int control_fd; /* borrowed, for a successor; -EBADF: none */

	_Atomic unsigned n_connections;
	_Atomic unsigned n_accept_waiting; /* workers that wait for a connection to end */
	_Atomic bool leaving;              /* exiting for idleness: accept nothing more */
	_Atomic bool is_ending;            /* workers are halted for good */
	_Atomic uint64_t limit_usec[LIMIT_MAX]; /* when it was last reached */
	_Atomic uint64_t last_end_usec;

	pthread_mutex_t audited_lock; /* of: */
	struct audit_tally audited;   /* connections that were adopted and are settled */
	unsigned n_unsettled_workers; /* those that have others still */
};

struct worker {
	struct shared *shared;
	unsigned index;
	pthread_t thread;
	int epoll_fd;
	int wake_fd;
	int scratch_fd; /* see flow_peek() */
	struct packer packer;
	struct pipe_pool pipes;
	uint64_t now_usec;  /* as of this batch */
	uint64_t told_usec; /* epoll has told all that had come by then; see note_told() */
	uint64_t since_usec; /* since when it has not, and how many events at the most */
	size_t n_untold;

	bool is_accepting;          /* the listeners are in epoll */
	uint64_t begun_usec;        /* when it began to accept */
	uint64_t inheriting;        /* bit i: what listener i gives has its options */
	uint64_t accept_again_usec; /* USEC_INFINITY: when woken */

	struct connection_list all;
	struct connection_list ready; /* those with something to do */
	struct connection_list busy; /* those that have used up a turn: see run_turns() */
	struct connection_list pipe_waiters;
	uint64_t pipes_since_usec;         /* since when there are any */
	struct connection_list unsettled;  /* the most recently active first */
	struct audit_tally audited;        /* of those that were in it */
	struct connection_list connecting; /* by since_usec */
	struct connection_list soon;       /* to be looked at every LOOK_AGAIN_USEC */
	uint64_t soon_usec;                /* when next */
	struct connection_list failing;    /* one side has failed: by since_usec */
	struct connection_list idle;  /* by active_usec; kept only with an idle timeout */
	struct connection_list young; /* by young_usec: see worker_set_young() */
	struct connection_list closed;

	unsigned n_log_jobs; /* log entries that are under way */

	struct worker_requests resting; /* those that are patient */
	uint64_t rested_usec;           /* until when */

	_Atomic uint64_t n_rounds;      /* progress, for the watchdog */
	_Atomic uint64_t n_bytes_moved; /* delivered by this process */

	pthread_mutex_t lock;            /* of: */
	struct log_job *written;         /* log entries whose turn is over */
	struct worker_requests requests; /* of the main thread */
};

/* Prepares a worker; adopting into it is possible then. Returns 0 or a negative errno. */
int worker_init(struct worker *worker, struct shared *shared, unsigned index);

/* Starts its thread, which waits at shared->gate first. Returns 0 or a negative errno. */
int worker_start(struct worker *worker);

/* Makes it look around: at what it waits for, its packer, the log. Any thread. */
void worker_wake(struct worker *worker);

/*
 * Has all workers wait at the closed gate, for good. Returns whether they do, at the
 * latest at until_usec.
 */
bool worker_halt_all(struct shared *shared, uint64_t until_usec);

/* The same for a while; if they don't, the gate is open again. */
bool worker_stop_all(struct shared *shared, uint64_t until_usec);

/* Has all workers run on these CPUs only, where that can be. */
void worker_set_cpus_all(struct shared *shared, const cpu_set_t *cpus);

/*
 * Closes this process's copies of all connections' sockets, for good: the workers wait at
 * the gate, and another process serves. Slowly, so that it and its peers have the CPUs:
 * at the end of a process the kernel closes at once, which is what comes of those that
 * are left at until_usec (CLOCK_MONOTONIC).
 */
void worker_let_go_all(struct shared *shared, uint64_t until_usec);

/* ---- for its connections, in its thread (or before that runs) ---- */

void worker_add(struct worker *worker, struct connection *connection);
void worker_remove(struct worker *worker, struct connection *connection);
void worker_set_ready(struct worker *worker, struct connection *connection);
void worker_set_busy(struct worker *worker, struct connection *connection);
void worker_clear_turn(struct connection *connection);
void worker_set_unsettled(struct worker *worker, struct connection *connection);
void worker_clear_unsettled(struct worker *worker, struct connection *connection);
void worker_wait_for_pipe(struct worker *worker, struct connection *connection);
void worker_clear_waiting(struct worker *worker, struct connection *connection);
void worker_set_connecting(struct worker *worker, struct connection *connection);
void worker_set_failing(struct worker *worker, struct connection *connection);
void worker_set_soon(struct worker *worker, struct connection *connection);
void worker_set_idle(struct worker *worker, struct connection *connection);
/* Puts a relay's open connection among those whose upstream has no keepalive yet: it gets
 * it after YOUNG_USEC, unless it has ended. */
void worker_set_young(struct worker *worker, struct connection *connection);
void worker_clear_young(struct worker *worker, struct connection *connection);
void worker_clear_timer(struct worker *worker, struct connection *connection);

/* Puts those with an idle timer in the order of their times, which it depends on. Returns
 * 0 or -ENOMEM. */
int worker_sort_idle(struct worker *worker);

/* Puts one into its place there. */
void worker_place_idle(struct worker *worker, struct connection *connection);

/* How long epoll may wait, in milliseconds, rounded up: an early wake-up would be one too
 * many. -1: for ever. */
int worker_wait_msec(const struct worker *worker);

/* Does what is due, but for the idle ones. */
void worker_run_timers(struct worker *worker);

/*
 * Notes that epoll, called at called_usec or later, has told n events: all that had come
 * by then, since the process may be stopped between epoll's return and its next look at
 * the clock. Where that was not all, it tells the rest before it tells any again
 * (tests/kernel/epoll-tells-by-turns.c).
 */
void worker_note_told(struct worker *worker, int n, uint64_t called_usec);

/* Ends the idle: who was so when all was told, since what came while no process was there
 * counts. */
void worker_run_idle(struct worker *worker);

/* Frees the memory of the closed ones, which no event names any more. */
void worker_free_closed(struct worker *worker);

/* Wakes those that wait for the number of connections to fall. Any thread. */
void worker_wake_accept_waiters(struct shared *shared);

/*
 * Says that a limit was reached (format: what it means, what to do): once, and again only
 * after it was not reached for LIMIT_QUIET_USEC. Any thread.
 */
__attribute__((format(printf, 3, 4))) void worker_limit_reached(struct shared *shared,
								enum limit limit,
								const char *format, ...);
