/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/services/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "base/log.h"
#include "base/socket.h"
#include "holdfastd/connection.h"
#include "holdfastd/messages.h"
#include "holdfastd/worker.h"

/* What submit() gives to an entry: one less means that there was no memory. */
#define LOG_JOB_FIELDS 10

static_assert(LOG_JOB_FIELDS <= LOG_FIELDS_MAX, "an entry must take all its fields");

struct log_job {
	struct log_entry entry; /* while under way: the log thread's */
	struct connection *connection;
	struct log_job *next;
	bool is_under_way;
	size_t n_bytes;   /* of the stream that the entry stands for */
	size_t n_scanned; /* pending bytes in which there is no end of a line */
	char peer[SOCKET_NAME_SIZE];
	char listener[SOCKET_NAME_SIZE];
};

int log_job_new(struct connection *connection, struct log_job **ret_job)
{
	struct log_job *job = calloc(1, sizeof(*job));

	if (!job)
		return -ENOMEM;
	job->connection = connection;
	*ret_job = job;
	return 0;
}

void log_job_free(struct log_job *job)
{
	free(job);
}

bool log_job_is_under_way(const struct log_job *job)
{
	return job && job->is_under_way;
}

static const struct options *options_of(const struct connection *connection)
{
	return connection->worker->shared->options;
}

/* ---- the text of an entry ---- */

/* "[49 50 51 52 10 0 0 0]": the whole buffer; what the read has not filled is zero. */
static char *format_buffer(const unsigned char *bytes, size_t n, size_t buffer_bytes)
{
	size_t size = 4 * buffer_bytes + 3;
	char *text = malloc(size), *end = text;

	if (!text)
		return NULL;
	*end++ = '[';
	for (size_t i = 0; i < buffer_bytes; i++)
		end += snprintf(end, size - (size_t)(end - text), "%s%u",
				i > 0 ? " " : "", i < n ? bytes[i] : 0u);
	*end++ = ']';
	*end = '\0';
	return text;
}

/* Whether a character may stand in a journal line as it is. */
static bool is_plain(wchar_t c)
{
	return c == L'\t' ||
	       (c >= 0x20 && c != 0x7f && !(c >= 0x80 && c < 0xa0) && c != L'\\');
}

/* The line without its end; what is no printable UTF-8 becomes \xNN, so that nobody can
 * forge a terminal's codes or another line. */
static char *format_line(const char *bytes, size_t n)
{
	char *text = malloc(4 * n + 1), *end = text;
	mbstate_t state = {0};

	if (!text)
		return NULL;
	if (n > 0 && bytes[n - 1] == '\n')
		n--;
	for (size_t i = 0; i < n;) {
		wchar_t c;
		size_t length = mbrtowc(&c, bytes + i, n - i, &state);

		if (length > 0 && length <= n - i && is_plain(c)) {
			memcpy(end, bytes + i, length);
			end += length;
			i += length;
		} else {
			end += sprintf(end, "\\x%02x", (unsigned char)bytes[i]);
			i++;
			state = (mbstate_t){0};
		}
	}
	*end = '\0';
	return text;
}

static void entry_done(struct log_entry *entry)
{
	struct log_job *job = (struct log_job *)(void *)entry;
	struct worker *worker = job->connection->worker;
	bool wake;

	pthread_mutex_lock(&worker->lock);
	wake = !worker->written;
	job->next = worker->written;
	worker->written = job;
	pthread_mutex_unlock(&worker->lock);
	if (wake)
		worker_wake(worker);
}

static void add_fields(struct log_job *job, const char *bytes, size_t n)
{
	struct connection *connection = job->connection;
	const struct flow *flow = &connection->flows[0];
	uint64_t n_read = connection->record->flows[0].n_read;
	struct log_entry *entry = &job->entry;

	if (job->peer[0] == '\0') {
		int fd = connection->peers[PEER_CLIENT].fd;

		socket_format_peer(fd, job->peer, sizeof(job->peer));
		socket_format_local(fd, job->listener, sizeof(job->listener));
	}
	log_entry_add(entry, "MESSAGE_ID=" MESSAGE_READ);
	log_entry_add(entry, "HOLDFAST_CONNECTION=%llu",
		      (unsigned long long)connection->record->id);
	log_entry_add(entry, "HOLDFAST_SERVICE=%s", service_name(connection->service));
	log_entry_add(entry, "HOLDFAST_PEER=%s", job->peer);
	log_entry_add(entry, "HOLDFAST_LISTENER=%s", job->listener);
	log_entry_add(entry, "HOLDFAST_BYTES=%zu", n);
	log_entry_add(entry, "HOLDFAST_OFFSET=%llu",
		      (unsigned long long)(n_read - flow->pending));
	log_entry_add_data(entry, "HOLDFAST_DATA", bytes, n);
}

/* Sends the first n pending bytes on their way, or tries again soon if there is no
 * memory. */
static void submit(struct connection *connection, const char *bytes, size_t n)
{
	struct log_job *job = connection->log_job;
	bool is_line = options_of(connection)->frame == FRAME_LINE;
	char *text = is_line ? format_line(bytes, n)
			     : format_buffer((const unsigned char *)bytes, n,
					     options_of(connection)->buffer_bytes);

	if (!text) {
		worker_set_ready(connection->worker, connection);
		return;
	}
	log_entry_init(&job->entry, LOG_INFO);
	job->entry.done = entry_done;
	add_fields(job, bytes, n);
	log_entry_add(&job->entry, "MESSAGE=pid: %d, conn read %zu bytes, %s: %s",
		      getpid(), n, is_line ? "line" : "val", text);
	free(text);
	if (job->entry.n_fields != LOG_JOB_FIELDS) {
		/* An entry with a field missing for lack of memory would lose what is in
		 * it */
		log_entry_done(&job->entry);
		worker_set_ready(connection->worker, connection);
		return;
	}
	job->n_bytes = n;
	job->n_scanned = 0;
	job->is_under_way = true;
	connection->worker->n_log_jobs++;
	log_entry_submit(&job->entry);
}

/* ---- which bytes make the next entry ---- */

/* Whether nothing more fits into the pipe, though it may hold few bytes. */
static bool is_pipe_full(const struct flow *flow)
{
	struct pollfd p = {.fd = flow->pipe->fd, .events = POLLOUT};

	return poll(&p, 1, 0) == 0;
}

/*
 * How many of the first n pending bytes make an entry; 0: not enough of them yet. n is
 * less than there are if that is what could be peeked.
 */
static size_t entry_size(struct connection *connection, const char *bytes, size_t n)
{
	struct worker *worker = connection->worker;
	struct flow *flow = &connection->flows[0];
	const char *newline;

	if (options_of(connection)->frame == FRAME_READ)
		return n;
	newline = memchr(bytes, '\n', n);
	if (newline)
		return (size_t)(newline - bytes) + 1;
	if (flow->state == FLOW_ENDING || flow->pending >= LOG_LINE_BYTES_MAX ||
	    n < flow->pending)
		return n;
	/*
	 * Crumbs may have filled the slots of the pipe. Where packing them does not help,
	 * a piece of the line goes out as it is
	 */
	if (is_pipe_full(flow) &&
	    (flow_repack(flow, &worker->pipes, worker->scratch_fd) < 0 ||
	     is_pipe_full(flow)))
		return n;
	return 0;
}

static size_t entry_bytes_max(const struct connection *connection)
{
	return options_of(connection)->frame == FRAME_READ
		       ? options_of(connection)->buffer_bytes
		       : LOG_LINE_BYTES_MAX;
}

/* Looks at the pending bytes. Returns whether there is nothing else to do now: an entry
 * of them is under way, or they will be looked at again for want of memory. */
static bool submit_pending(struct connection *connection)
{
	struct log_job *job = connection->log_job;
	struct flow *flow = &connection->flows[0];
	size_t max = entry_bytes_max(connection), size;
	char *bytes;
	ssize_t n;

	if (flow->pending == job->n_scanned && flow->state == FLOW_OPEN)
		return false;
	bytes = malloc(max);
	if (!bytes) {
		worker_set_ready(connection->worker, connection);
		return true;
	}
	n = flow_peek(flow, connection->worker->scratch_fd, bytes, max);
	if (n < 0) {
		free(bytes);
		worker_set_ready(connection->worker, connection);
		return true;
	}
	size = n > 0 ? entry_size(connection, bytes, (size_t)n) : 0;
	if (size > 0)
		submit(connection, bytes, size);
	else
		job->n_scanned = flow->pending;
	free(bytes);
	return size > 0;
}

bool log_wants_more(const struct connection *connection)
{
	return !connection->log_job->is_under_way &&
	       connection->flows[0].state == FLOW_OPEN;
}

int log_advance(struct connection *connection)
{
	struct flow *flow = &connection->flows[0];
	struct peer *client = flow->source;

	if (connection->log_job->is_under_way || flow->state == FLOW_ENDED)
		return FLOW_WAITS;
	/* No further entry while the worker is to stop: it waits for those under way */
	if (gate_is_closed(&connection->worker->shared->gate)) {
		worker_set_ready(connection->worker, connection);
		return FLOW_WAITS;
	}
	for (;;) {
		size_t max = entry_bytes_max(connection);
		ssize_t n;

		if (flow->pending > 0 && submit_pending(connection))
			return FLOW_WAITS;
		if (flow->state == FLOW_ENDING && flow->pending == 0) {
			flow->state = FLOW_ENDED;
			return FLOW_WAITS;
		}
		if (flow->state != FLOW_OPEN || !client->readable)
			return FLOW_WAITS;
		n = flow_fill(flow, &connection->worker->pipes, max - flow->pending);
		if (n == -EBUSY)
			return FLOW_NEEDS_PIPE;
		if (n == -EAGAIN) {
			client->readable = client->hung;
			return client->hung ? FLOW_HAS_MORE : FLOW_WAITS;
		}
	}
}

/* ---- what was written ---- */

/* Takes n bytes, which have been logged, from the pipe: in one call, so that a crash
 * finds all of them there or none. */
static bool consume(const struct flow *flow, size_t n)
{
	struct ledger_flow *journal = &flow->record->flows[FLOW_JOURNAL];
	char *bytes = malloc(n);
	ssize_t r;

	if (!bytes)
		return false;
	atomic_store(&journal->n_in_hand, n);
	do
		r = read(flow->pipe->fd, bytes, n);
	while (r < 0 && errno == EINTR);
	free(bytes);
	if (r < 0 || (size_t)r != n)
		return false;
	atomic_fetch_add(&journal->n_read, n);
	atomic_store(&journal->n_in_hand, 0);
	return true;
}

static void job_written(struct log_job *job)
{
	struct connection *connection = job->connection;
	struct flow *flow = &connection->flows[0];

	log_entry_done(&job->entry);
	job->is_under_way = false;
	connection->worker->n_log_jobs--;
	if (connection->state == CONNECTION_CLOSED)
		return;
	connection_set_in_hand(connection, true);
	if (!consume(flow, job->n_bytes)) {
		/* Without memory, or with another reader, it can't be continued exactly */
		connection_abort(connection,
				 "what was logged could not be taken from its pipe");
		connection_set_in_hand(connection, false);
		return;
	}
	flow_note_drained(flow, &connection->worker->pipes, job->n_bytes);
	connection_advance(connection);
}

/* The list is newest first; each connection has one entry in it at the most. */
void log_jobs_written(struct log_job *list)
{
	while (list) {
		struct log_job *job = list;

		list = job->next;
		job_written(job);
	}
}
