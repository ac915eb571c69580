/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sd_journal_sendv() itself: entries are built elsewhere than they are sent */
#define SD_JOURNAL_SUPPRESS_LOCATION

#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <systemd/sd-journal.h>

#include "base/leisure.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"
/* How long the thread rests before it tries a tracked entry again. */
#define RETRY_MSEC 100

enum log_target {
	LOG_TARGET_STDERR,
	LOG_TARGET_JOURNAL,
};

static struct {
	enum log_target target;
	int max_level;
	bool prefixed;
	bool threaded;

	pthread_mutex_t lock;
	pthread_cond_t filled;
	pthread_cond_t emptied;
	struct log_entry *first;
	struct log_entry **last;
	size_t n_queued;
	size_t n_dropped;
	bool writing;
} logger = {
	.max_level = LOG_INFO,
	.prefixed = true,
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.filled = PTHREAD_COND_INITIALIZER,
	.emptied = PTHREAD_COND_INITIALIZER,
	.last = &logger.first,
};

static void entry_add_owned(struct log_entry *entry, char *text, size_t size)
{
	if (entry->n_fields == LOG_FIELDS_MAX) {
		free(text);
		return;
	}
	entry->fields[entry->n_fields++] =
		(struct iovec){.iov_base = text, .iov_len = size};
}

__attribute__((format(printf, 2, 0))) static void entry_add_format(
	struct log_entry *entry, const char *format, va_list arguments)
{
	char *text;
	int r = vasprintf(&text, format, arguments);

	if (r >= 0)
		entry_add_owned(entry, text, (size_t)r);
}

void log_entry_add(struct log_entry *entry, const char *format, ...)
{
	va_list arguments;

	if (!entry)
		return;
	va_start(arguments, format);
	entry_add_format(entry, format, arguments);
	va_end(arguments);
}

void log_entry_add_data(struct log_entry *entry, const char *name, const void *value,
			size_t size)
{
	size_t name_length = strlen(name);
	char *text = malloc(name_length + 1 + size);

	if (!text)
		return;
	memcpy(text, name, name_length);
	text[name_length] = '=';
	memcpy(text + name_length + 1, value, size);
	entry_add_owned(entry, text, name_length + 1 + size);
}

void log_entry_init(struct log_entry *entry, int level)
{
	*entry = (struct log_entry){.level = level};
	log_entry_add(entry, "PRIORITY=%i", level);
}

void log_entry_done(struct log_entry *entry)
{
	for (size_t i = 0; i < entry->n_fields; i++)
		free(entry->fields[i].iov_base);
	entry->n_fields = 0;
}

static void entry_free(struct log_entry *entry)
{
	log_entry_done(entry);
	free(entry);
}

static const struct iovec *entry_message(const struct log_entry *entry)
{
	static char empty[] = "MESSAGE=";
	static const struct iovec none = {.iov_base = empty, .iov_len = 8};

	for (size_t i = 0; i < entry->n_fields; i++)
		if (entry->fields[i].iov_len >= 8 &&
		    memcmp(entry->fields[i].iov_base, "MESSAGE=", 8) == 0)
			return &entry->fields[i];
	return &none;
}

/* Waits where standard error does not block, which is not ours to choose: a line that is
 * given up half way could only be begun again. */
static int write_all(int fd, const char *text, size_t size)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	while (size > 0) {
		ssize_t n = write(fd, text, size);

		if (n < 0 && errno == EAGAIN)
			(void)poll(&p, 1, -1);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0)
			return -errno;
		text += n;
		size -= (size_t)n;
	}
	return 0;
}

/* One write for one line, so that the lines of several processes do not mix. */
static int entry_write_stderr(const struct log_entry *entry)
{
	const struct iovec *message = entry_message(entry);
	size_t text_size = message->iov_len - 8;
	char *line = malloc(text_size + 5);
	size_t size = 0;
	int r;

	if (!line)
		return -ENOMEM;
	if (logger.prefixed) {
		line[size++] = '<';
		line[size++] = (char)('0' + entry->level);
		line[size++] = '>';
	}
	for (size_t i = 0; i < text_size; i++) {
		char c = ((const char *)message->iov_base)[8 + i];

		line[size++] = c == '\n' ? ' ' : c;
	}
	line[size++] = '\n';
	r = write_all(STDERR_FILENO, line, size);
	free(line);
	return r;
}

static int entry_write(const struct log_entry *entry)
{
	if (logger.target == LOG_TARGET_STDERR)
		return entry_write_stderr(entry);

	/*
	 * sd_journal_sendv() returns success where there is no journal socket at all,
	 * which would lose a tracked entry
	 */
	if (entry->done && access(JOURNAL_SOCKET, F_OK) < 0)
		return -errno;
	return sd_journal_sendv(entry->fields, (int)entry->n_fields);
}

static void rest(void)
{
	struct timespec t = {.tv_nsec = RETRY_MSEC * 1000000L};

	(void)nanosleep(&t, NULL);
}

/* Writes entry; a tracked one until it is written. Gives it back to its owner. */
static void entry_finish(struct log_entry *entry)
{
	int r = entry_write(entry);

	while (r < 0 && entry->done) {
		rest();
		r = entry_write(entry);
	}
	/* A line that can't be written has nowhere to be reported */
	if (entry->done)
		entry->done(entry);
	else
		entry_free(entry);
}

static void queue_push(struct log_entry *entry)
{
	bool dropped = false;

	entry->next = NULL;
	pthread_mutex_lock(&logger.lock);
	if (!entry->done && logger.n_queued >= LOG_QUEUE_MAX) {
		logger.n_dropped++;
		dropped = true;
	} else {
		*logger.last = entry;
		logger.last = &entry->next;
		logger.n_queued++;
		pthread_cond_signal(&logger.filled);
	}
	pthread_mutex_unlock(&logger.lock);
	if (dropped)
		entry_free(entry);
}

static struct log_entry *queue_pop(size_t *ret_n_dropped)
{
	struct log_entry *entry;

	pthread_mutex_lock(&logger.lock);
	logger.writing = false;
	while (!logger.first) {
		pthread_cond_broadcast(&logger.emptied);
		pthread_cond_wait(&logger.filled, &logger.lock);
	}
	entry = logger.first;
	logger.first = entry->next;
	if (!logger.first)
		logger.last = &logger.first;
	logger.n_queued--;
	logger.writing = true;
	/* Said when there is room again, so that saying it is not dropped as well */
	*ret_n_dropped = logger.n_queued < LOG_QUEUE_MAX / 2 ? logger.n_dropped : 0;
	if (*ret_n_dropped > 0)
		logger.n_dropped = 0;
	pthread_mutex_unlock(&logger.lock);
	return entry;
}

static void *log_thread(void *unused)
{
	(void)unused;
	/* It may have been started within a takeover */
	leisure_end();
	for (;;) {
		size_t n_dropped;
		struct log_entry *entry = queue_pop(&n_dropped);

		entry_finish(entry);
		if (n_dropped > 0)
			log_warning("The journal was too slow: %zu log lines were dropped "
				    "(no data was)",
				    n_dropped);
	}
	return NULL;
}

void log_entry_submit(struct log_entry *entry)
{
	if (logger.threaded)
		queue_push(entry);
	else
		entry_finish(entry);
}

struct log_entry *log_line_new(int level, const char *message_id)
{
	struct log_entry *entry;

	if (!log_is_level_enabled(level))
		return NULL;
	entry = malloc(sizeof(*entry));
	if (!entry)
		return NULL;
	log_entry_init(entry, level);
	if (message_id)
		log_entry_add(entry, "MESSAGE_ID=%s", message_id);
	return entry;
}

void log_line_submit(struct log_entry *entry, const char *format, va_list arguments)
{
	char *text;

	if (!entry)
		return;
	if (vasprintf(&text, format, arguments) < 0) {
		entry_free(entry);
		return;
	}
	log_entry_add(entry, "MESSAGE=%s", text);
	free(text);
	log_entry_submit(entry);
}

void log_line_send(struct log_entry *entry, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	log_line_submit(entry, format, arguments);
	va_end(arguments);
}

void log_line(int level, const char *message_id, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	log_line_submit(log_line_new(level, message_id), format, arguments);
	va_end(arguments);
}

void log_set_max_level(int level)
{
	logger.max_level = level;
}

bool log_is_level_enabled(int level)
{
	return level <= logger.max_level;
}

int log_level_from_string(const char *text)
{
	static const char *const names[] = {
		[LOG_EMERG] = "emerg", [LOG_ALERT] = "alert",     [LOG_CRIT] = "crit",
		[LOG_ERR] = "err",     [LOG_WARNING] = "warning", [LOG_NOTICE] = "notice",
		[LOG_INFO] = "info",   [LOG_DEBUG] = "debug",
	};

	for (int level = LOG_EMERG; level <= LOG_DEBUG; level++)
		if (strcmp(text, names[level]) == 0 ||
		    (text[0] == '0' + level && text[1] == '\0'))
			return level;
	return -EINVAL;
}

/* As systemd.exec(5) says of $JOURNAL_STREAM: compare it with what stderr really is. */
static bool stderr_is_journal(void)
{
	const char *text = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat st;

	if (!text || sscanf(text, "%llu:%llu", &device, &inode) != 2)
		return false;
	return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device &&
	       st.st_ino == inode;
}

void log_init(void)
{
	logger.target = stderr_is_journal() ? LOG_TARGET_JOURNAL : LOG_TARGET_STDERR;
	/* The prefix is for a log reader; a person at a terminal can do without */
	logger.prefixed = !isatty(STDERR_FILENO);
}

int log_start(void)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int r;

	r = pthread_attr_init(&attributes);
	if (r > 0)
		return -r;
	(void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	r = pthread_create(&thread, &attributes, log_thread, NULL);
	pthread_attr_destroy(&attributes);
	if (r > 0)
		return -r;
	(void)pthread_setname_np(thread, "log");
	logger.threaded = true;
	return 0;
}

void log_flush(unsigned long long timeout_usec)
{
	struct timespec until;

	if (!logger.threaded)
		return;
	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += (time_t)(timeout_usec / 1000000);
	until.tv_nsec += (long)(timeout_usec % 1000000) * 1000;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	pthread_mutex_lock(&logger.lock);
	while (logger.first || logger.writing)
		if (pthread_cond_timedwait(&logger.emptied, &logger.lock, &until) != 0)
			break;
	pthread_mutex_unlock(&logger.lock);
}
