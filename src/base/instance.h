/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a holdfastd and its holdfastctl call things over the control socket. It is spoken
 * peer to peer, without a bus, so no name of D-Bus is owned by anybody: an object that
 * changes in an incompatible way gets another interface.
 */
#pragma once

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
