/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "load.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "cpu-clock.h"

#define EVENTS_MAX 64
/* Connections that are being opened at once: what any listener's queue takes, for a SYN
 * that it drops costs a second */
#define OPENING_MAX 64
#define BULK_SEND_SIZE (256 * 1024)
/* How long all connections together may take to be opened, or to be ended */
#define PATIENCE_USEC (60 * USEC_PER_SEC)

enum phase {
	PHASE_OPENING, /* each connection has its first message echoed */
	PHASE_WARMING,
	PHASE_MEASURING,
	PHASE_ENDING, /* all are half-closed and have to end */
	PHASE_DONE,
};

struct load_connection {
	int fd;
	uint64_t n_sent;   /* bulk: bytes, else messages */
	size_t n_received; /* of the answer that is awaited */
	bool is_ending;
	unsigned char answer[sizeof(uint64_t)]; /* bulk */
};

struct load {
	const struct load_options *options;
	char *complaint;
	enum phase phase;
	uint64_t phase_usec; /* when it began */
	int epoll_fd;
	struct load_connection *connections;
	uint32_t n_opened;
	uint32_t n_answered;      /* first messages */
	uint32_t n_ended;         /* for good */
	struct load_result count; /* since the start; usec and cpu_usec: clocks */
	struct load_result begin; /* as of the beginning of the window */
	struct load_result result;
};

static int complain(const struct load *load, const struct load_connection *connection,
		    int r, const char *what)
{
	(void)snprintf(load->complaint, LOAD_COMPLAINT_SIZE, "connection %td: %s (%s)",
		       connection - load->connections, what, strerror(-r));
	return r;
}

static int read_clocks(struct load *load)
{
	const struct load_options *options = load->options;
	int r = 0;

	load->count.usec = time_now_usec();
	load->count.cpu_usec = 0;
	for (uint32_t i = 0; i < options->n_pids && r == 0; i++)
		r = cpu_clock_add(options->pids[i], &load->count.cpu_usec);
	if (r < 0)
		(void)snprintf(load->complaint, LOAD_COMPLAINT_SIZE,
			       "the clock of a process can't be read: %s", strerror(-r));
	return r;
}

static void enter_phase(struct load *load, enum phase phase)
{
	load->phase = phase;
	load->phase_usec = time_now_usec();
}

/* Messages */

static void message_write(const struct load *load,
			  const struct load_connection *connection,
			  unsigned char *ret_message)
{
	size_t n = load->options->message_bytes;
	const uint64_t mark[] = {connection->n_sent,
				 (uint64_t)(connection - load->connections)};

	memset(ret_message, LOAD_BULK + 1, n);
	if (n > sizeof(mark))
		memcpy(ret_message + 1, mark, sizeof(mark));
}

static int send_message(struct load *load, struct load_connection *connection)
{
	unsigned char message[LOAD_MESSAGE_MAX];
	size_t n = load->options->message_bytes;

	connection->n_sent++;
	connection->n_received = 0;
	message_write(load, connection, message);
	/* With one under way at a time there is always room for it */
	if (send(connection->fd, message, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n)
		return complain(load, connection, -errno, "cannot send");
	return 0;
}

static int send_bulk(struct load *load, struct load_connection *connection)
{
	static unsigned char bytes[BULK_SEND_SIZE] = {LOAD_BULK};
	ssize_t n =
		send(connection->fd, bytes, sizeof(bytes), MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN)
		return complain(load, connection, -errno, "cannot send");
	if (n > 0) {
		connection->n_sent += (uint64_t)n;
		load->count.n_bytes += (uint64_t)n;
	}
	return 0;
}

/* Connections */

static int watch(const struct load *load, struct load_connection *connection,
		 int operation, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = connection};

	if (epoll_ctl(load->epoll_fd, operation, connection->fd, &event) < 0)
		return complain(load, connection, -errno, "cannot be watched");
	return 0;
}

static int open_connection(struct load *load, struct load_connection *connection)
{
	const struct load_options *options = load->options;
	const struct sockaddr *address = (const struct sockaddr *)&options->address;
	const int on = 1;
	int r;

	*connection = (struct load_connection){
		.fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0),
	};
	if (connection->fd < 0)
		return complain(load, connection, -errno, "no socket");
	(void)setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(connection->fd, address, options->address_bytes) < 0)
		return complain(load, connection, -errno, "cannot connect");
	if (options->mode == LOAD_MODE_BULK)
		return watch(load, connection, EPOLL_CTL_ADD, EPOLLIN | EPOLLOUT);
	r = watch(load, connection, EPOLL_CTL_ADD, EPOLLIN);
	return r < 0 ? r : send_message(load, connection);
}

static int half_close(struct load *load, struct load_connection *connection)
{
	connection->is_ending = true;
	if (shutdown(connection->fd, SHUT_WR) < 0)
		return complain(load, connection, -errno, "cannot end");
	return 0;
}

/* Sends no more; load-server will say how much has arrived. */
static int stop_bulk(struct load *load, struct load_connection *connection)
{
	return watch(load, connection, EPOLL_CTL_MOD, EPOLLIN);
}

/* Its end has come. */
static int close_connection(struct load *load, struct load_connection *connection)
{
	if (!connection->is_ending)
		return complain(load, connection, -ECONNRESET, "it was ended");
	connection->fd = fd_close(connection->fd);
	if (load->options->mode == LOAD_MODE_CONNECT) {
		load->count.n_operations++;
		if (load->phase != PHASE_ENDING)
			return open_connection(load, connection);
	}
	load->n_ended++;
	return 0;
}

static int take_message(struct load *load, struct load_connection *connection)
{
	load->n_answered += load->phase == PHASE_OPENING;
	switch (load->options->mode) {
	case LOAD_MODE_CONNECT:
		return half_close(load, connection);
	case LOAD_MODE_ECHO:
		load->count.n_operations++;
		if (load->phase == PHASE_ENDING)
			return half_close(load, connection);
		/* Those that are open wait for the last one */
		return load->phase == PHASE_OPENING ? 0 : send_message(load, connection);
	case LOAD_MODE_HOLD:
	case LOAD_MODE_BULK:
		break;
	}
	return 0;
}

/* Takes what has come; the whole message must be as it was sent. */
static int receive_message(struct load *load, struct load_connection *connection)
{
	unsigned char wanted[LOAD_MESSAGE_MAX], bytes[LOAD_MESSAGE_MAX];
	size_t size = load->options->message_bytes;
	ssize_t n = recv(connection->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

	if (n <= 0)
		return n < 0 && errno == EAGAIN ? 0
		       : n < 0 ? complain(load, connection, -errno, "cannot receive")
			       : close_connection(load, connection);
	message_write(load, connection, wanted);
	if ((size_t)n > size - connection->n_received ||
	    memcmp(bytes, wanted + connection->n_received, (size_t)n) != 0)
		return complain(load, connection, -EPROTO,
				"other than what was sent has returned");
	connection->n_received += (size_t)n;
	return connection->n_received < size ? 0 : take_message(load, connection);
}

static int take_count(struct load *load, struct load_connection *connection)
{
	uint64_t n_bytes;

	memcpy(&n_bytes, connection->answer, sizeof(n_bytes));
	connection->n_received = 0;
	if (n_bytes > connection->n_sent)
		return complain(load, connection, -EPROTO,
				"more has arrived than was sent");
	if (load->phase != PHASE_ENDING || n_bytes < connection->n_sent)
		return 0; /* more is under way; what is not is missed at the end */
	return half_close(load, connection);
}

static int receive_count(struct load *load, struct load_connection *connection)
{
	size_t n_received = connection->n_received;
	ssize_t n = recv(connection->fd, connection->answer + n_received,
			 sizeof(connection->answer) - n_received, MSG_DONTWAIT);

	if (n <= 0)
		return n < 0 && errno == EAGAIN ? 0
		       : n < 0 ? complain(load, connection, -errno, "cannot receive")
			       : close_connection(load, connection);
	connection->n_received += (size_t)n;
	return connection->n_received < sizeof(connection->answer)
		       ? 0
		       : take_count(load, connection);
}

static int handle_event(struct load *load, struct load_connection *connection,
			uint32_t events)
{
	if (load->options->mode != LOAD_MODE_BULK)
		return receive_message(load, connection);
	if (events & ~(uint32_t)EPOLLOUT)
		return receive_count(load, connection);
	return load->phase == PHASE_ENDING ? 0 : send_bulk(load, connection);
}

/* Phases */

static int for_each_open(struct load *load,
			 int (*function)(struct load *load,
					 struct load_connection *connection))
{
	int r = 0;

	for (uint32_t i = 0; i < load->n_opened && r >= 0; i++)
		if (load->connections[i].fd >= 0)
			r = function(load, &load->connections[i]);
	return r;
}

static int advance_opening(struct load *load)
{
	const struct load_options *options = load->options;
	bool has_messages = options->mode != LOAD_MODE_BULK;

	while (load->n_opened < options->n_connections &&
	       (!has_messages || load->n_opened - load->n_answered < OPENING_MAX)) {
		int r = open_connection(load, &load->connections[load->n_opened++]);

		if (r < 0)
			return r;
	}
	if (load->n_opened < options->n_connections)
		return 0;
	if (has_messages && load->n_answered < load->n_opened)
		return 0;
	enter_phase(load, PHASE_WARMING);
	return options->mode == LOAD_MODE_ECHO ? for_each_open(load, send_message) : 0;
}

/* Nothing happens meanwhile, so nothing is missed by not asking epoll. */
static int hold(struct load *load)
{
	char ignored[64];

	(void)puts("held");
	(void)fflush(stdout);
	while (read(STDIN_FILENO, ignored, sizeof(ignored)) > 0)
		;
	enter_phase(load, PHASE_ENDING);
	return for_each_open(load, half_close);
}

static int advance_warming(struct load *load)
{
	int r;

	if (load->options->mode == LOAD_MODE_HOLD)
		return hold(load);
	if (time_now_usec() - load->phase_usec < load->options->warm_up_usec)
		return 0;
	r = read_clocks(load);
	load->begin = load->count;
	enter_phase(load, PHASE_MEASURING);
	return r;
}

static int advance_measuring(struct load *load)
{
	int r;

	if (time_now_usec() - load->phase_usec < load->options->window_usec)
		return 0;
	r = read_clocks(load);
	load->result = (struct load_result){
		.usec = load->count.usec - load->begin.usec,
		.cpu_usec = load->count.cpu_usec - load->begin.cpu_usec,
		.n_bytes = load->count.n_bytes - load->begin.n_bytes,
		.n_operations = load->count.n_operations - load->begin.n_operations,
	};
	enter_phase(load, PHASE_ENDING);
	/* The others end when their answer has come */
	if (r == 0 && load->options->mode == LOAD_MODE_BULK)
		return for_each_open(load, stop_bulk);
	return r;
}

static int advance_phase(struct load *load)
{
	switch (load->phase) {
	case PHASE_OPENING:
		return advance_opening(load);
	case PHASE_WARMING:
		return advance_warming(load);
	case PHASE_MEASURING:
		return advance_measuring(load);
	case PHASE_ENDING:
		if (load->n_ended == load->n_opened)
			enter_phase(load, PHASE_DONE);
		break;
	case PHASE_DONE:
		break;
	}
	return 0;
}

/* Does what the state allows. To be called after each change of it. */
static int advance(struct load *load)
{
	enum phase old;
	int r;

	do {
		old = load->phase;
		r = advance_phase(load);
	} while (r >= 0 && load->phase != old);
	return r;
}

/* How long the present phase may last, or is to. */
static uint64_t phase_length_usec(const struct load *load)
{
	switch (load->phase) {
	case PHASE_WARMING:
		return load->options->warm_up_usec;
	case PHASE_MEASURING:
		return load->options->window_usec;
	case PHASE_OPENING:
	case PHASE_ENDING:
	case PHASE_DONE:
		break;
	}
	return PATIENCE_USEC;
}

static int wait_msec(const struct load *load)
{
	uint64_t end_usec = load->phase_usec + phase_length_usec(load);
	uint64_t now_usec = time_now_usec();

	return now_usec >= end_usec ? 0 : (int)((end_usec - now_usec) / 1000) + 1;
}

static int check_patience(const struct load *load)
{
	if (time_now_usec() - load->phase_usec <= PATIENCE_USEC ||
	    (load->phase != PHASE_OPENING && load->phase != PHASE_ENDING))
		return 0;
	(void)snprintf(load->complaint, LOAD_COMPLAINT_SIZE,
		       "too long: of %" PRIu32 " connections %" PRIu32
		       " have answered, %" PRIu32 " have ended",
		       load->n_opened, load->n_answered, load->n_ended);
	return -ETIMEDOUT;
}

static int run(struct load *load)
{
	struct epoll_event events[EVENTS_MAX];
	int r = advance(load);

	while (r >= 0 && load->phase != PHASE_DONE) {
		int n = epoll_wait(load->epoll_fd, events, EVENTS_MAX, wait_msec(load));

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n && r >= 0; i++)
			r = handle_event(load, events[i].data.ptr, events[i].events);
		if (r >= 0)
			r = advance(load);
		if (r >= 0)
			r = check_patience(load);
	}
	return r;
}

int load_run(const struct load_options *options, struct load_result *ret_result,
	     char ret_complaint[LOAD_COMPLAINT_SIZE])
{
	struct load load = {.options = options, .complaint = ret_complaint};
	int r = -ENOMEM;

	load.connections = calloc(options->n_connections, sizeof(*load.connections));
	load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	enter_phase(&load, PHASE_OPENING);
	if (load.connections && load.epoll_fd >= 0)
		r = run(&load);
	if (r >= 0)
		*ret_result = load.result;
	for (uint32_t i = 0; i < load.n_opened; i++)
		(void)fd_close(load.connections[i].fd);
	free(load.connections);
	(void)fd_close(load.epoll_fd);
	return r;
}
