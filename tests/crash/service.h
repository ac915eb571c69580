/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A service under the keeper, all of whose processes are traced from their first system
 * call on, and what is to happen at chosen ones of these calls: the process dies before
 * or after it, or the call is not made and fails.
 *
 * Nothing moves but in service_pump(), and the scenario goes on only when the service is
 * at rest: so the calls are nearly the same ones in each run, and a point names the same
 * one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tracer.h"

#define SERVICE_POINTS_MAX 4
#define SERVICE_THREADS_MAX 16

enum point_kind {
	POINT_BEFORE, /* die, and the call is not made */
	POINT_AFTER,  /* die when it has returned */
	POINT_FAIL,   /* the call is not made and returns an error */
};

/* Kinds of calls: SYS_*, and one that has errors which the others of its number have not.
 */
#define CALL_EPOLL_CTL_ADD 1000
#define CALL_KINDS 1001
#define CALL_ANY (-1)

/*
 * A call: the number-th of a thread of a process, or the number-th of one kind. Processes
 * are counted from 1 in the order of their starts, threads from 0 (the main thread),
 * calls from 1, which is the first after execve(2).
 */
struct point {
	unsigned process;
	unsigned thread;
	long call_kind; /* or CALL_ANY */
	unsigned call;
	enum point_kind kind;
	int error;       /* of POINT_FAIL */
	bool is_reached; /* what follows is known */
	long reached_kind;
	bool is_unprotected; /* a connection was accepted and not yet put */
};

struct service_thread {
	pid_t tid;
	unsigned n_calls;
	unsigned n_calls_of[CALL_KINDS];
	long call; /* the kind of the one that it is in, or -1 */
	bool is_unprotected;
	struct point *at; /* the point that is to come when the call returns */
};

struct service {
	struct tracer tracer;
	pid_t keeper;
	int said_fd; /* a file: what the keeper and the service say; not to be moved in */
	uint64_t deadline_usec;

	struct point points[SERVICE_POINTS_MAX];
	size_t n_points;

	/* Of the present process. */
	bool is_running; /* its first call has been seen */
	struct service_thread threads[SERVICE_THREADS_MAX];
	unsigned n_threads;

	unsigned n_processes; /* that were started */
	unsigned n_kills;     /* that any of the processes has died of */
	unsigned n_unprotected_kills;
	unsigned n_calls; /* of all processes */
	bool is_shown;    /* print each call */
};

/*
 * Starts command under the keeper and traces what it starts. Returns 0 or a negative
 * errno; service_stop() is to be called in any case.
 */
int service_start(struct service *service, const char *keeper, const char *listen,
		  char *const command[], uint64_t timeout_usec);

/* Ends the keeper and the service. */
void service_stop(struct service *service);

/*
 * Lets the service go on until it has nothing to do but to wait. Returns 0; -ETIMEDOUT:
 * the time of service_start() is over; -ECHILD: the keeper has ended.
 */
int service_settle(struct service *service);

/* Prints where the threads are, each line behind a bar. */
void service_show(const struct service *service);

/* Kills the present process, which is at rest. As service_settle(). */
int service_kill(struct service *service);

/* The name of a kind of calls, or a number. */
const char *call_name(long kind);

/* The kind of that name, or -1. */
long call_find(const char *name);
