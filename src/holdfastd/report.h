/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is told over the control socket about a connection, and about the whole. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/instance.h"
#include "base/socket.h"

struct connection;
struct shared;

struct connection_report {
	uint64_t id; /* 0: it has ended meanwhile */
	const char *service;
	char peer[SOCKET_NAME_SIZE]; /* the names are printable ASCII */
	char listener[SOCKET_NAME_SIZE];
	char upstream[SOCKET_NAME_SIZE]; /* empty: none */
	uint64_t age_usec;
	uint64_t idle_usec;    /* since the last byte moved */
	uint64_t received;     /* bytes taken from the client */
	uint64_t sent;         /* bytes given to the client */
	uint64_t pending_from; /* bytes of the client's that are in a pipe */
	uint64_t pending_to;   /* bytes for the client that are in a pipe */
	uint32_t n_restarts;   /* survived */
	uint32_t worker;
	const char *state; /* connecting, open, half-closed, closing or resetting */
};

/* Fills a report about a connection, in its worker's thread. Never waits. */
void report_connection(const struct connection *connection,
		       struct connection_report *ret_report);

/* Fills what is to be known of the workers and the vault, in the main thread. */
void report_instance(const struct shared *shared, struct instance_report *ret_report);
