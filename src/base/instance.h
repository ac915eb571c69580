/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a holdfastd and its holdfastctl call things over the control socket. It is spoken
 * peer to peer, without a bus, so no name of D-Bus is owned by anybody: an object that
 * changes in an incompatible way gets another interface.
 */
#pragma once

#include <stdint.h>

#define INSTANCE_OBJECT "/holdfast"
#define INSTANCE_INTERFACE "holdfast.Instance1"
#define INSTANCE_TAKEOVER "Takeover"
#define INSTANCE_LIST "ListConnections"
#define INSTANCE_GET "GetConnection"
#define INSTANCE_CLOSE "CloseConnection"

/* The most connections that one answer of INSTANCE_LIST has. */
#define INSTANCE_PAGE_MAX 256u

/*
 * One connection: id, service, peer, listener, upstream (empty: none); age and idle time
 * in microseconds; bytes received from the client and sent to it; bytes pending in the
 * direction from it and to it; restarts survived, worker, state.
 */
#define INSTANCE_CONNECTION "tssssttttttuus"

/*
 * What the instance tells of itself as a whole, beside Version and PID: the D-Bus type of
 * each property, its name there, and its field in struct instance_report.
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

/* The C types of these, as sd_bus_message_append_basic(3) and its opposite take them. */
#define INSTANCE_TYPE_s const char *
#define INSTANCE_TYPE_t uint64_t
#define INSTANCE_TYPE_u uint32_t
#define INSTANCE_TYPE_b int

struct instance_report {
#define INSTANCE_FIELD(type, name, field) INSTANCE_TYPE_##type field;
	INSTANCE_PROPERTIES(INSTANCE_FIELD)
#undef INSTANCE_FIELD
};

#define INSTANCE_AUDIT "Audit"

/*
 * One direction of a connection, audited: id, service, peer; where it comes from, the
 * verdict, the reason (empty: right); bytes consumed, recorded, pending, delivered.
 */
#define INSTANCE_AUDITED "tsssssxxxx"
