/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is told over the control socket about a connection, and about the whole. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

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

/*
 * Every field is a property of the instance: its D-Bus type, its name there, the field.
 * LastAdoptKind: how this process has come to its connections (none, restart, takeover).
 * LastAdoptPauseUSec: for how long nobody served them, as far as this process knows; of a
 * restart, that is since it was started.
 */
#define INSTANCE_PROPERTIES(X)                            \
	X(s, "Service", service)                          \
	X(t, "UptimeUSec", uptime_usec)                   \
	X(u, "NConnections", n_connections)               \
	X(u, "ConnectionsMax", connections_max)           \
	X(t, "NAccepted", n_accepted)                     \
	X(t, "BytesMoved", bytes_moved)                   \
	X(u, "NRestarts", n_restarts)                     \
	X(u, "NWorkers", n_workers)                       \
	X(u, "NParcels", n_parcels)                       \
	X(b, "StoreIsFull", store_is_full)                \
	X(u, "LedgerVersion", ledger_version)             \
	X(u, "LedgerSlots", ledger_slots)                 \
	X(u, "LedgerSlotsUsed", ledger_slots_used)        \
	X(u, "NPipes", n_pipes)                           \
	X(s, "LastAdoptKind", adopt_kind)                 \
	X(u, "LastAdoptConnections", adopt_n_connections) \
	X(u, "LastAdoptRefused", adopt_n_refused)         \
	X(t, "LastAdoptPendingBytes", adopt_pending)      \
	X(t, "LastAdoptPauseUSec", adopt_pause_usec)

/* The C types of D-Bus's; as sd_bus_message_append_basic(3) takes them. */
#define REPORT_TYPE_s const char *
#define REPORT_TYPE_t uint64_t
#define REPORT_TYPE_u uint32_t
#define REPORT_TYPE_b int

struct instance_report {
#define REPORT_FIELD(type, name, field) REPORT_TYPE_##type field;
	INSTANCE_PROPERTIES(REPORT_FIELD)
#undef REPORT_FIELD
};

/* Fills what is to be known of the workers and the vault, in the main thread. */
void report_instance(const struct shared *shared, struct instance_report *ret_report);
