/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A connection: a client and, in a relay, its upstream; the flows between them; its slot
 * in the ledger. One worker owns it from accept or adopt to its end.
 *
 * Events change state, actions do not: epoll's events are noted in the peers, then
 * connection_advance() moves what can be moved and sees what has come of it, and at last
 * what to wait for is computed anew.
 *
 * How it ends. In order: each flow has delivered its source's end, then both sockets are
 * closed. By a reset: a peer that failed is the end of the flow into it; the flow out of
 * it delivers what is pending, and once the other side's kernel has acknowledged that (or
 * it fails too, or has taken nothing for LINGER_USEC_MAX), the other side is reset. So a
 * reset never overtakes bytes, and an error never looks like an orderly end; but for an
 * AF_UNIX side, which can't be reset: it sees an end
 * (tests/kernel/unix-end-while-parked.c).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/time.h"
#include "holdfastd/flow.h"
#include "holdfastd/peer.h"
#include "holdfastd/service.h"
#include "holdfastd/upstream.h"
#include "vault/adopt.h"
#include "vault/packer.h"

struct worker;
struct log_entry;
struct log_job;

TAILQ_HEAD(connection_list, connection);

#define CONNECTION_PEERS 2
/* How long a reset waits for the other side to take anything of what comes before it. */
#define LINGER_USEC_MAX (60 * USEC_PER_SEC)

enum connection_state {
	CONNECTION_CONNECTING, /* relay: the upstream has not answered yet; no byte was
				  read */
	CONNECTION_OPEN,
	CONNECTION_LINGERING, /* to be reset or closed once what was sent has arrived */
	CONNECTION_CLOSED, /* everything is given back; only the memory is left, until the
			    * batch of events that may name it is over */
};

enum {
	PEER_CLIENT = 0,
	PEER_UPSTREAM = 1,
};

struct connection {
	struct worker *worker;
	enum connection_state state;
	enum service_kind service;
	uint32_t slot;
	struct ledger_slot *record;
	uint32_t generation; /* of the entry that it was made of, if it was */
	struct peer peers[CONNECTION_PEERS];
	struct flow flows[LEDGER_FLOWS];
	unsigned n_flows;

	/* relay, while connecting */
	struct upstream_list *addresses;
	size_t next_address;

	struct log_job *log_job; /* log: the entry in hand */

	uint64_t since_usec; /* of connecting, failing or lingering */
	size_t n_unsent;     /* lingering: as of the last look */
	uint64_t active_usec;
	uint64_t n_moved_noted; /* as of active_usec */

	bool failure_noted; /* that one of its sides has failed */
	bool is_closing;    /* connection_close() was called */
	bool is_unsettled;  /* adopted, and connection_settle() is still to come */
	uint64_t audit; /* the last audit of the worker's that saw it; see auditor.h */
	struct connection_list *turn_list; /* of the worker; NULL: waits for events */
	bool is_waiting_for_pipe;
	TAILQ_ENTRY(connection) turn_entry;
	TAILQ_ENTRY(connection) pipe_entry; /* of those that wait for one, or unsettled */
	struct connection_list *timer_list; /* of the worker, or NULL */
	TAILQ_ENTRY(connection) timer_entry;
	bool is_young;       /* in the worker's list of these, */
	uint64_t young_usec; /* since */
	TAILQ_ENTRY(connection) young_entry;
	TAILQ_ENTRY(connection) all_entry; /* all of the worker's, or the closed ones */
};

/*
 * Makes the memory of a connection whose slot is taken, without sockets yet. Returns NULL
 * without memory. For connection-adopt.c.
 */
struct connection *connection_new(struct worker *worker, uint32_t slot,
				  enum service_kind service);

/*
 * Serves a newly accepted client. Takes client_fd over in any case; what fails is logged.
 */
void connection_open(struct worker *worker, int client_fd);

/*
 * Goes on with a connection of the last process, which is unsettled: see
 * connection_settle(). pipes: of each flow, NULL if the ledger names none. active_usec:
 * when its last byte moved, for the idle timeout. Returns 0; or a negative errno where it
 * can't be continued exactly, and then it was reset; or -ENOMEM, when the fds of entry
 * and pipes are still the caller's: in all other cases they are taken over.
 */
int connection_adopt(struct worker *worker, uint32_t slot, struct adopted_entry *entry,
		     struct pool_pipe *pipes[LEDGER_FLOWS], uint64_t active_usec);

/*
 * Makes good what the last process has left half done, and audits it: before anything
 * else is done to its sockets. Returns whether it goes on; else it was reset.
 */
bool connection_settle(struct connection *connection);

/*
 * The part of connection_adopt() that changes nothing outside of this process, and so may
 * be done to a connection that another process still serves (a takeover). Takes the fds
 * of entry and pipes over on success only. Returns 0; -ENOMEM; or -EBADMSG, -ECONNABORTED
 * or -EIO where the record can't be continued exactly.
 */
int connection_prepare(struct worker *worker, uint32_t slot, struct adopted_entry *entry,
		       struct pool_pipe *pipes[LEDGER_FLOWS], uint64_t active_usec,
		       struct connection **ret_connection);

/*
 * The opposite: gives back the entry, and the pipes (NULL where there is none),
 * and lets the connection go. Its slot and its sockets stay as they are.
 */
void connection_unprepare(struct connection *connection, struct adopted_entry *entry,
			  struct pool_pipe *ret_pipes[LEDGER_FLOWS]);

/*
 * Resets the sockets of an adopted entry that is not to be served, and frees its slot and
 * its pipes (NULL where there is none).
 */
void connection_refuse(struct worker *worker, uint32_t slot, struct adopted_entry *entry,
		       struct pool_pipe *pipes[LEDGER_FLOWS]);

/*
 * Whether its worker is handling it: the ledger tells the next process if this one
 * crashes meanwhile.
 */
void connection_set_in_hand(struct connection *connection, bool in_hand);

/* Does all that can be done now, and computes what to wait for. */
void connection_advance(struct connection *connection);

/* Makes epoll wait for what its state asks for. Returns 0 or the errors of peer_watch(). */
int connection_watch(struct connection *connection);

/* Takes note of events of one of its peers; to be followed by connection_advance(). */
void connection_note_events(struct peer *peer, uint32_t events);

/* Closes both sides in order and frees the slot: there is nothing more to deliver. */
void connection_end(struct connection *connection);

/* Resets both sides at once and frees the slot; why is for the log. */
void connection_abort(struct connection *connection, const char *why);

/*
 * Ends it in order, though neither peer has: takes nothing more from them, delivers what
 * is pending, waits until both kernels have acknowledged it, and closes. A peer that
 * takes nothing for LINGER_USEC_MAX is reset. The ledger does not have it: the next
 * process, if there is one before that, goes on with what is left. In its worker's
 * thread; it may be closed afterwards.
 */
void connection_close(struct connection *connection);

/* Resets both sides at once, because somebody wants it. As above. */
void connection_reset(struct connection *connection);

/* Puts its sockets into the store under generation (packer_put()); logs what fails. */
int connection_put(struct connection *connection, uint32_t generation);

/* A timer of the worker is due: connecting took too long, or a look at a lingering one. */
void connection_timeout(struct connection *connection);

/* Closes this process's copies of its sockets, which are another's to serve now. */
void connection_let_go(struct connection *connection);

/* Frees the memory of a closed connection. Returns NULL. */
struct connection *connection_free(struct connection *connection);

/* Lets it be ended when nothing moves for too long: idle, or with one side failed. */
void connection_set_timer(struct connection *connection);

/* Whether one of its sides has ended in an error. */
bool connection_has_failed(const struct connection *connection);

/* The bytes of it that are in pipes. */
uint64_t connection_pending(const struct connection *connection);

/*
 * Logs about a connection, with the fields that all its lines have: HOLDFAST_CONNECTION,
 * HOLDFAST_PEER, HOLDFAST_LISTENER, HOLDFAST_SERVICE.
 */
__attribute__((format(printf, 4, 5))) void connection_log(
	const struct connection *connection, int level, const char *message_id,
	const char *format, ...);

/* The same with fields of its own, for log_line_send(). NULL is a line that is not
 * logged. */
struct log_entry *connection_log_new(const struct connection *connection, int level,
				     const char *message_id);
