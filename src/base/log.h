/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Logging: to the journal with structured fields where there is one, else to stderr with
 * the <n> prefixes of sd-daemon(3).
 *
 * The journal may be slow or stopped, and bytes must go on moving meanwhile. So once
 * log_start() has run, entries go through a thread of their own and a bounded queue: a
 * line that finds the queue full is dropped, counted, and the count is said later.
 * Tracked entries (struct log_entry with a done callback) are never dropped: they are
 * tried until they are written, and their owner waits for the callback.
 *
 * Before log_start(), and in programs that never call it, entries are written at once by
 * the calling thread.
 *
 * Rooms are silent: only the edges (main.c, server.c, the services) log.
 */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>
#include <syslog.h>

/* Lines that may wait for a slow journal before further ones are dropped and counted. */
#define LOG_QUEUE_MAX 4096
#define LOG_FIELDS_MAX 16

/*
 * One journal entry: fields of the form NAME=value, each owned by the entry.
 * done, where set, is called exactly once, in the log thread, when the entry has been
 * written; from then on the entry is its callee's again.
 */
struct log_entry {
	struct log_entry *next;
	int level;
	size_t n_fields;
	struct iovec fields[LOG_FIELDS_MAX];
	void (*done)(struct log_entry *entry);
};

/* Resets entry to one with no fields but PRIORITY=level (LOG_EMERG..LOG_DEBUG). */
void log_entry_init(struct log_entry *entry, int level);

/* Frees the fields of entry, not entry itself. */
void log_entry_done(struct log_entry *entry);

/*
 * Adds a field from a format, "NAME=%s". A field beyond LOG_FIELDS_MAX, or one for which
 * there is no memory, is left out: a shorter line is better than none. entry may be NULL,
 * as log_line_new() returns it for a line that is not to be logged.
 */
__attribute__((format(printf, 2, 3))) void log_entry_add(struct log_entry *entry,
							 const char *format, ...);

/* Adds a field whose value is binary: copies value. name has no '='. */
void log_entry_add_data(struct log_entry *entry, const char *name, const void *value,
			size_t size);

/*
 * Queues entry, which stays the caller's memory: it must live until entry->done was
 * called. Never dropped, never blocks once the thread runs.
 */
void log_entry_submit(struct log_entry *entry);

/*
 * Logs a line with fields already in entry (heap memory, given away) and the text as
 * MESSAGE=. Lines less important than the maximum level are freed and forgotten.
 */
__attribute__((format(printf, 2, 0))) void log_line_submit(struct log_entry *entry,
							   const char *format,
							   va_list arguments);

/* A new heap entry for log_line_submit(); NULL without memory or if level is not logged. */
struct log_entry *log_line_new(int level, const char *message_id);

/* The same for a line written in place. entry may be NULL. */
__attribute__((format(printf, 2, 3))) void log_line_send(struct log_entry *entry,
							 const char *format, ...);

/* Logs one line with no fields of its own. message_id may be NULL. */
__attribute__((format(printf, 3, 4))) void log_line(int level, const char *message_id,
						    const char *format, ...);

#define log_error(...) log_line(LOG_ERR, NULL, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, NULL, __VA_ARGS__)
#define log_notice(...) log_line(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, NULL, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, NULL, __VA_ARGS__)

/* Sets the least important level that is still logged (LOG_INFO at first). */
void log_set_max_level(int level);
bool log_is_level_enabled(int level);

/*
 * Parses emerg, alert, crit, err, warning, notice, info, debug or 0..7.
 * Returns the level, or -EINVAL.
 */
int log_level_from_string(const char *text);

/*
 * Chooses the target (the journal if this process's stderr is connected to it, that is if
 * $JOURNAL_STREAM names stderr's device and inode; see systemd.exec(5)), without a thread.
 */
void log_init(void);

/* Starts the log thread. Returns 0 or a negative errno. */
int log_start(void);

/* Waits until the queue is empty, at most timeout_usec microseconds. */
void log_flush(unsigned long long timeout_usec);
