/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the serving process says to its successor. See successor.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/leisure.h"
#include "base/log.h"
#include "base/time.h"
#include "holdfastd/messages.h"
#include "holdfastd/successor-private.h"
#include "vault/follow.h"

int successor_find_socket(void)
{
	const char *text = getenv(HANDOVER_ENVIRONMENT);
	int fd = text ? atoi(text) : -1;

	if (unsetenv(HANDOVER_ENVIRONMENT) < 0 || fd <= STDERR_FILENO ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return -EBADF;
	leisure_learn(fd);
	return fd;
}

void successor_say_failure(int socket, const char *why)
{
	struct handover message = {.type = HANDOVER_FAILED};

	(void)snprintf(message.text, sizeof(message.text), "%s", why);
	/* Whoever does not hear it sees this process end */
	(void)handover_send(socket, &message, NULL);
}

int successor_fail(struct successor *successor, int r, const char *format, ...)
{
	char text[HANDOVER_TEXT_SIZE];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	log_line(LOG_ERR, MESSAGE_TAKEOVER_FAILED, "Can't take over: %s", text);
	successor_say_failure(successor->socket, text);
	return r;
}

/* ---- receiving ---- */

static int take_listeners(struct successor *successor, struct handover *message, int *fds)
{
	size_t n = successor->n_listeners + message->n_fds;
	int *larger = reallocarray(successor->listeners, n + 1, sizeof(*larger));

	if (!larger)
		return -ENOMEM;
	memcpy(larger + successor->n_listeners, fds, message->n_fds * sizeof(*fds));
	successor->listeners = larger;
	successor->n_listeners = n;
	message->n_fds = 0;
	return 0;
}

static int take_begin(struct successor *successor, struct handover *message, int *fds)
{
	int r;

	if (message->n_fds != 2 || successor->vault->ledger.header)
		return -EBADMSG;
	successor->old_pid = (unsigned long long)message->number;
	r = follow_begin(successor->vault, fds[0], fds[1]);
	if (r == 0)
		message->n_fds = 0;
	return r;
}

static int take_parcels(struct successor *successor, struct handover *message, int *fds)
{
	uint32_t n = 0;
	int r = 0;

	for (uint32_t i = 0; i < message->n_parcels && r == 0; i++) {
		bool grows = message->parcels[i] & 1;
		uint32_t n_wanted = grows ? 2 : 1;

		if (n + n_wanted > message->n_fds)
			r = -EBADMSG;
		else
			r = follow_add_parcel(successor->vault, message->parcels[i] >> 1,
					      grows ? fds[n + 1] : -EBADF, fds[n]);
		if (r == 0)
			n += n_wanted;
	}
	/* What is left is nobody's yet */
	memmove(fds, fds + n, (message->n_fds - n) * sizeof(*fds));
	message->n_fds -= n;
	return r;
}

static int take_control(struct successor *successor, struct handover *message, int *fds)
{
	if (message->n_fds != 1 || successor->control_fd >= 0)
		return -EBADMSG;
	successor->control_fd = fds[0];
	message->n_fds = 0;
	return 0;
}

static int take_state(struct successor *successor, struct handover *message, int *fds)
{
	bool has_ledger = successor->vault->ledger.header;

	switch ((enum handover_type)message->type) {
	case HANDOVER_BEGIN:
		return take_begin(successor, message, fds);
	case HANDOVER_CONTROL:
		return take_control(successor, message, fds);
	case HANDOVER_LISTENERS:
		return take_listeners(successor, message, fds);
	case HANDOVER_PARCELS:
		return has_ledger ? take_parcels(successor, message, fds) : -EBADMSG;
	case HANDOVER_END_OF_STATE:
		successor->has_state = true;
		return has_ledger ? 0 : -EBADMSG;
	case HANDOVER_READY:
	case HANDOVER_GO:
	case HANDOVER_SERVING:
	case HANDOVER_RELEASED:
	case HANDOVER_FAILED:
		break;
	}
	return -EBADMSG;
}

static const char *explain(int r)
{
	switch (r) {
	case -EPROTONOSUPPORT:
		return "its ledger is of a newer version, which this one can't read";
	case -EPROTO:
		return "it speaks another version of the handover";
	case -EMFILE:
		return "there is no room for its open files (LimitNOFILE=)";
	case -EBADMSG:
		return "what it has sent makes no sense";
	case -EPIPE:
		return "it has ended";
	case -EADDRNOTAVAIL:
		return "the name of the upstream can't be resolved";
	default:
		return strerror(-r);
	}
}

int successor_fail_state(struct successor *successor, int r)
{
	return successor_fail(successor, r,
			      "the state of the running process can't be used: %s",
			      explain(r));
}

int successor_receive(struct successor *successor, uint64_t until_usec,
		      struct handover *ret_message)
{
	int fds[HANDOVER_FDS_MAX], r;

	r = handover_receive(successor->socket, until_usec, ret_message, fds);
	if (r != HANDOVER_MESSAGE)
		return r;
	if (ret_message->type != HANDOVER_GO)
		r = take_state(successor, ret_message, fds);
	handover_close_fds(ret_message, fds);
	return r < 0 ? r : HANDOVER_MESSAGE;
}

int successor_receive_state(struct successor *successor)
{
	uint64_t until = time_now_usec() + SUCCESSOR_STATE_USEC_MAX;

	while (!successor->has_state) {
		struct handover message;
		int r = successor_receive(successor, until, &message);

		if (r == HANDOVER_GONE)
			r = -EPIPE;
		if (r < 0)
			return successor_fail_state(successor, r);
	}
	if (successor->n_listeners == 0)
		return successor_fail_state(successor, -EBADMSG);
	return 0;
}
