/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The relay service: finding an upstream for a client. Once one has answered, the relay
 * is two flows, and there is nothing here for it any more.
 *
 * No byte of the client is read before. Each address of the list gets the connect
 * timeout; one that fails is followed by the next. Each new upstream socket is put into
 * the store together with the client, under a generation of its own, so that at every
 * instant the store has the client with at most one upstream that counts.
 */
#pragma once

struct connection;

/* Begins to connect a new client's upstream. Returns 0, or a negative errno after having
 * reset the connection. */
int relay_start(struct connection *connection);

/* Goes on with a connection that another process left connecting. */
void relay_take_up(struct connection *connection);

/* An event came for one that is connecting. It may be open or closed afterwards. */
void relay_advance(struct connection *connection);

/* For one that is open and no longer young: see worker_set_young(). */
void relay_keep_alive(const struct connection *connection);

/* The current address took too long, or is to be tried again. */
void relay_timeout(struct connection *connection);
