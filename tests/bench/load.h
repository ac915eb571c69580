/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The load of load-client: as many operations on a relay as it takes, closed loop, and
 * what it has used of the CPUs meanwhile. Closed loop because the CPU time of an
 * operation is asked for, and how many there can be; pause-client asks for latencies.
 *
 * Nothing is taken on trust: each message has to return as it was sent, and the count of
 * the bytes that came through has to be that of those sent.
 *
 * One thread, and it blocks only in epoll_wait() and in connect(), which a listener on
 * loopback answers at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

/* First byte of a connection that load-server reads and does not echo. */
#define LOAD_BULK 'b'

#define LOAD_PIDS_MAX 16
#define LOAD_MESSAGE_MAX 4096
#define LOAD_COMPLAINT_SIZE 160

enum load_mode {
	LOAD_MODE_BULK,    /* each connection sends all that goes */
	LOAD_MODE_ECHO,    /* each has one message under way at all times */
	LOAD_MODE_CONNECT, /* the same, with a new connection for each message */
	LOAD_MODE_HOLD,    /* each has had one message, and stays open */
};

struct load_options {
	enum load_mode mode;
	uint32_t n_connections;
	uint32_t message_bytes; /* 1..LOAD_MESSAGE_MAX */
	uint64_t warm_up_usec;
	uint64_t window_usec;
	pid_t pids[LOAD_PIDS_MAX]; /* the processes whose CPU time is wanted */
	uint32_t n_pids;
	struct sockaddr_storage address;
	socklen_t address_bytes;
};

struct load_result {
	uint64_t usec; /* the window as it was */
	uint64_t cpu_usec;
	uint64_t n_bytes;      /* bulk: sent */
	uint64_t n_operations; /* messages answered; connect: connections ended */
};

/*
 * Opens the connections, warms up, measures one window, ends the connections in order.
 * With LOAD_MODE_HOLD there is no window: prints "held", and ends them at the end of
 * stdin. Returns 0, or a negative errno with what is wrong in ret_complaint.
 */
int load_run(const struct load_options *options, struct load_result *ret_result,
	     char ret_complaint[LOAD_COMPLAINT_SIZE]);
