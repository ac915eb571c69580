/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper/message.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "keeper/fdname.h"

/* The value if assignment is one to name (which ends in '='), else NULL. */
static const char *value_of(const char *assignment, const char *name)
{
	size_t size = strlen(name);

	return strncmp(assignment, name, size) == 0 ? assignment + size : NULL;
}

static bool is_number(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number)
{
	unsigned long long number;

	/* strtoull() would take blanks, signs and nothing at all */
	if (!*text || text[strspn(text, "0123456789")])
		return false;
	errno = 0;
	number = strtoull(text, NULL, 10);
	if (errno || number < min || number > max)
		return false;
	*ret_number = number;
	return true;
}

static bool is_value_taken(struct message *message, const char *assignment)
{
	const char *value;
	uint64_t number;

	if ((value = value_of(assignment, "FDNAME="))) {
		if (!fd_name_is_valid(value))
			return false;
		if (!message->fd_name)
			message->fd_name = value;
	} else if ((value = value_of(assignment, "STATUS="))) {
		if (!message->status)
			message->status = value;
	} else if ((value = value_of(assignment, "MAINPID="))) {
		if (!is_number(value, 1, INT32_MAX, &number))
			return false;
		if (!message->main_pid)
			message->main_pid = (pid_t)number;
	} else if ((value = value_of(assignment, "WATCHDOG_USEC="))) {
		if (!is_number(value, 0, UINT64_MAX, &number))
			return false;
		if (!message->has_watchdog_usec)
			message->watchdog_usec = number;
		message->has_watchdog_usec = true;
	}
	return true;
}

static void assignment_apply(struct message *message, const char *assignment)
{
	if (strcmp(assignment, "BARRIER=1") == 0)
		message->is_barrier = true;
	else if (strcmp(assignment, "FDSTORE=1") == 0)
		message->is_store = true;
	else if (strcmp(assignment, "FDSTOREREMOVE=1") == 0)
		message->is_store_remove = true;
	else if (strcmp(assignment, "FDPOLL=0") == 0)
		message->is_poll_off = true;
	else if (strcmp(assignment, "READY=1") == 0)
		message->is_ready = true;
	else if (strcmp(assignment, "STOPPING=1") == 0)
		message->is_stopping = true;
	else if (strcmp(assignment, "WATCHDOG=1") == 0)
		message->watchdog = MESSAGE_WATCHDOG_ALIVE;
	else if (strcmp(assignment, "WATCHDOG=trigger") == 0)
		message->watchdog = MESSAGE_WATCHDOG_TRIGGER;
	else if (!is_value_taken(message, assignment))
		message->malformed = assignment;
}

int message_parse(char *text, size_t size, struct message *ret_message)
{
	struct message message = {.n_assignments = 0};
	char *rest = text, *assignment;

	if (size > 0 && text[size - 1] == '\0')
		size--;
	if (size == 0 || memchr(text, '\0', size))
		return -EBADMSG;
	text[size] = '\0';
	while ((assignment = strsep(&rest, "\n"))) {
		if (!*assignment)
			continue;
		message.n_assignments++;
		assignment_apply(&message, assignment);
	}
	*ret_message = message;
	return 0;
}
