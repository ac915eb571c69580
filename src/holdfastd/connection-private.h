/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Between the files of the connection's room only: connection-open.c has its beginning,
 * connection-adopt.c that of one which another process has begun, connection.c its life,
 * connection-end.c its end, connection-log.c what is said of it.
 */
#pragma once

#include "holdfastd/connection.h"

/* The flow whose sink a peer is; NULL: none. */
struct flow *connection_flow_into(struct connection *connection, const struct peer *peer);

/*
 * All flows have ended, but one side is to be reset, or it was to be closed: waits until
 * what was sent has arrived.
 */
void connection_begin_to_linger(struct connection *connection);

/* Another look at one that lingers: is everything sent, or does nothing move any more? */
void connection_linger_on(struct connection *connection);
