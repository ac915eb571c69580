/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The control socket: what holdfastctl asks the running process by. D-Bus peer to peer
 * over a stream socket, so there is no bus daemon to depend on, and
 *   busctl --address=unix:path=PATH introspect holdfast.Instance1 /holdfast
 * shows what can be asked (the first name has to be a name, and means nothing here).
 *
 * Everything runs in the main thread's event loop, and nothing waits for a client: sd-bus
 * reads and writes without blocking, a client that leaves CONTROL_REPLIES_MAX replies
 * unread is closed, and so is one that says nothing for the idle limit, be it in the
 * middle of its authentication or of a message. Only root and our own user get in: by the
 * socket's mode, and by SO_PEERCRED, in case somebody changes the mode. So what sd-bus
 * itself allows a peer (messages of up to 128 MiB) is not bounded further.
 *
 * Not known here: what a takeover is, or a connection. The handlers answer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <systemd/sd-event.h>

#include "base/time.h"
#include "holdfastd/report.h"

#define CONTROL_CLIENTS_MAX 16 /* at once; further ones are closed */
/* That a client leaves unread, beyond what its socket holds. */
#define CONTROL_REPLIES_MAX 64
#define CONTROL_IDLE_USEC (30 * USEC_PER_SEC)
#define CONTROL_ERROR_SIZE 256
/* Below everything else of the main thread: the vault and the watchdog come first. */
#define CONTROL_PRIORITY (SD_EVENT_PRIORITY_NORMAL + 10)

struct audit_result;
struct control;

/*
 * A call that is answered later. Whom it is given to owns it until one of
 * control_call_*() is called, which has to be done once; it may outlive the client and
 * even the control, and the answer then goes nowhere. NULL is a call that nobody waits
 * for.
 */
struct control_call;

struct control_handlers {
	/*
	 * Begins a takeover by command_line (borrowed, ends in NULL; how long it may be
	 * is execve(2)'s to say), or by the command line that this process was started
	 * with if it is NULL. Returns 0 and owns call from then on, even if it has
	 * answered already. Or returns a negative errno, after writing the reason, one
	 * line of UTF-8 for a person, to ret_error[error_size]; call is not its then.
	 */
	int (*takeover)(void *userdata, char *const *command_line,
			struct control_call *call, char *ret_error, size_t error_size);

	/* What is asked of connections: each as inspection.h says. */
	int (*list)(void *userdata, uint32_t after, uint32_t max,
		    struct control_call *call);
	int (*get)(void *userdata, uint64_t id, struct control_call *call);
	int (*close)(void *userdata, uint64_t id, bool reset, struct control_call *call);

	/* Fills in what the properties say. */
	void (*report)(void *userdata, struct instance_report *ret_report);

	/*
	 * Begins an audit (auditor.h), to be answered by control_call_audited(). Returns
	 * 0 and owns call from then on; or -EBUSY or another negative errno.
	 */
	int (*audit)(void *userdata, bool all, struct control_call *call);
};

/*
 * Makes the listening socket: mode 0600, CLOEXEC, non-blocking, the caller's. A socket
 * file that nobody listens on any more (of a process that was killed) is replaced.
 * Nothing removes the file at the end: stopping is crashing. One process at a time may do
 * this for one path.
 *
 * Returns 0, -ENAMETOOLONG, -EADDRINUSE where somebody listens, -EEXIST where path is no
 * socket, or another negative errno.
 */
int control_listen(const char *path, int *ret_fd);

/* Whether fd is a listening socket at path, as control_listen() makes them. */
bool control_is_listening_at(int fd, const char *path);

/* What an error of control_listen() means, for a person. */
const char *control_listen_strerror(int error);

/*
 * Accepts clients at listen_fd in event's loop. listen_fd: taken over, unless this fails.
 * event: a reference is held. handlers: borrowed. Returns 0 or a negative errno.
 */
int control_new(sd_event *event, int listen_fd, const struct control_handlers *handlers,
		void *userdata, struct control **ret_control);

/*
 * Closes the listening socket and all clients; their calls stay their handlers'. Not from
 * within a handler. Takes NULL and returns NULL.
 */
struct control *control_free(struct control *control);

/* The listening socket, borrowed: for the process that takes over. -EBADF for NULL. */
int control_listen_fd(const struct control *control);

/* How long the clients that come from now on may be idle (CONTROL_IDLE_USEC at first). A
 * call that is not yet answered is no idleness. */
void control_set_idle(struct control *control, uint64_t usec);

/*
 * Before the process ends: accepts no more clients and no more calls, and waits at most
 * usec microseconds until all replies are written. What is written by then reaches the
 * client whatever becomes of us. Not from within a handler. Takes NULL.
 */
void control_flush(struct control *control, uint64_t usec);

/* Answers a takeover: process pid serves from now on. Consumes call, which may be NULL. */
void control_call_succeed(struct control_call *call, pid_t pid);

/* Answers with those of n connections that have an id, and where the next page begins (0:
 * this is the last one). Consumes call. */
void control_call_list(struct control_call *call, uint32_t next,
		       const struct connection_report *reports, uint32_t n);

/* Answers with one connection, or with nothing but that it is done. Consumes call. */
void control_call_report(struct control_call *call,
			 const struct connection_report *report);
void control_call_done(struct control_call *call);

/* Answers an audit. Consumes call. */
void control_call_audited(struct control_call *call, const struct audit_result *result);

/*
 * Answers that it has failed: error is a negative errno, text one line of UTF-8 for a
 * person. Consumes call, which may be NULL.
 */
void control_call_fail(struct control_call *call, int error, const char *text);
