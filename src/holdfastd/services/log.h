/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log service: each read of a connection, or each line, becomes a journal entry.
 *
 * An entry's bytes are copied out of the pipe (tee), logged, and only then taken from it.
 * So a crash can repeat the last entry, never lose one; its offset in the stream shows a
 * repeat. One entry of a connection is on its way at a time, through the log thread: a
 * slow journal lets this connection wait, and nobody else.
 */
#pragma once

#include <stdbool.h>

struct connection;
struct log_job;

/*
 * The longest line that makes one entry; a longer one makes several. It is what fits into
 * a default pipe; the pipes of a user beyond fs.pipe-user-pages-soft are smaller, and so
 * are the pieces then.
 */
#define LOG_LINE_BYTES_MAX 49152

/* Returns 0 or -ENOMEM. */
int log_job_new(struct connection *connection, struct log_job **ret_job);

/* Must not be on its way. NULL is fine. */
void log_job_free(struct log_job *job);

/* Whether the entry is with the log thread: then the job must stay where it is. */
bool log_job_is_under_way(const struct log_job *job);

/* Makes the next entry, or reads what it needs for one. Returns enum flow_result. */
int log_advance(struct connection *connection);

/* Whether further bytes are wanted from the client now. */
bool log_wants_more(const struct connection *connection);

/*
 * The worker's part when entries have been written: takes the whole list, consumes their
 * bytes, and lets their connections go on.
 */
void log_jobs_written(struct log_job *list);
