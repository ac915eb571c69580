/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * successor_receive_state() and follow_look(): whatever a serving process says to its
 * successor, and whatever it shares with it. The input is messages, in order or out of
 * it, with the right fds or others. The successor takes or refuses them; it comes to an
 * end, and no fd is left open.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/pipe.h"
#include "fuzz.h"
#include "holdfastd/successor-private.h"
#include "stored.h"
#include "vault/changes.h"
#include "vault/follow.h"

#define MESSAGES_MAX 16
#define PARCELS_PER_MESSAGE 4
#define FDS_MAX (2 * PARCELS_PER_MESSAGE)

static int make_changes(struct input *input)
{
	struct changes changes;
	uint8_t what = input_byte(input);
	int fd;

	if (changes_new(what & 1 ? 1024 : STORED_SLOTS, &changes) < 0)
		abort();
	for (uint32_t slot = 0; slot < STORED_SLOTS; slot++)
		if (what & 2 << slot % 7)
			changes_note(&changes, slot);
	fd = changes.fd;
	changes.fd = -EBADF;
	changes_done(&changes);
	return fd;
}

static int make_other(void)
{
	int fd;

	if (pipe_open_both_ends(&fd) < 0)
		abort();
	return fd;
}

static uint32_t add_parcels(struct handover *message, struct input *input, int *fds)
{
	uint32_t n = 0;

	message->n_parcels = input_byte(input) % (PARCELS_PER_MESSAGE + 1);
	for (uint32_t i = 0; i < message->n_parcels; i++) {
		uint8_t what = input_byte(input);
		int send_fd;

		message->parcels[i] = what & 0x80 ? input_u32(input) : what;
		fds[n++] = stored_parcel(input, &send_fd);
		if (what & 1)
			fds[n++] = send_fd;
		else
			(void)fd_close(send_fd);
	}
	return n;
}

/* The fds that belong to a message of this type; with others of any kind instead. */
static uint32_t add_fds(struct handover *message, struct input *input, int *fds)
{
	uint32_t n = 0;

	switch (message->type) {
	case HANDOVER_BEGIN:
		fds[n++] = stored_ledger(input);
		fds[n++] = make_changes(input);
		break;
	case HANDOVER_PARCELS:
		n = add_parcels(message, input, fds);
		break;
	case HANDOVER_CONTROL:
	case HANDOVER_LISTENERS:
		fds[n++] = make_other();
		break;
	default:
		break;
	}
	return n;
}

/* What no serving process says: another version, a lie, half a message. */
static void say_nonsense(int socket, struct handover *message, struct input *input)
{
	uint8_t what = input_byte(input);
	size_t size = sizeof(*message);

	message->version = what & 1 ? input_byte(input) : HANDOVER_VERSION;
	if (what & 2)
		message->n_fds = input_byte(input);
	if (what & 4)
		message->n_parcels = input_u32(input);
	if (what & 8)
		size = input_byte(input);
	(void)send(socket, message, size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void say(int socket, struct input *input)
{
	uint8_t what = input_byte(input);
	struct handover message = {.type = what % 12};
	int fds[FDS_MAX] = {0};
	uint32_t n;

	if (what & 0x80) {
		say_nonsense(socket, &message, input);
		return;
	}
	n = add_fds(&message, input, fds);
	message.n_fds = n;
	if (what & 0x40 && n > 0)
		message.n_fds--;
	(void)handover_send(socket, &message, fds);
	for (uint32_t i = 0; i < n; i++)
		(void)fd_close(fds[i]);
}

/* ---- the successor ---- */

static void drop(void *userdata, uint32_t slot)
{
	(void)userdata;
	(void)slot;
}

static int take(void *userdata, uint32_t slot)
{
	struct adopted_entry entry;

	if (adopt_take(userdata, slot, &entry))
		for (int i = 0; i < entry.n_fds; i++)
			(void)fd_close(entry.fds[i]);
	return 0;
}

static void look(struct successor *successor)
{
	static const struct follower follower = {.drop = drop, .take = take};
	struct handover message;

	if (successor_receive_state(successor) < 0)
		return;
	do
		if (follow_look(successor->vault, &follower, successor->vault) < 0)
			return;
	while (successor_receive(successor, 0, &message) == HANDOVER_MESSAGE);
	follow_go_on(successor->vault);
	(void)follow_done(successor->vault, successor->vault->n_adopted);
}

static void follow(int socket)
{
	struct successor successor = {.socket = socket, .control_fd = -EBADF};

	if (vault_new(1, &successor.vault) < 0)
		abort();
	look(&successor);
	for (size_t i = 0; i < successor.n_listeners; i++)
		(void)fd_close(successor.listeners[i]);
	free(successor.listeners);
	(void)fd_close(successor.control_fd);
	(void)vault_free(successor.vault);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {.data = data, .size = size};
	int before = stored_n_open_fds(), sockets[2];

	log_set_max_level(LOG_EMERG);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		abort();
	for (int i = 0; i < MESSAGES_MAX && input.size > 0; i++)
		say(sockets[0], &input);
	/* Nothing more will come: the successor need not wait */
	(void)fd_close(sockets[0]);
	follow(sockets[1]);
	(void)fd_close(sockets[1]);
	if (stored_n_open_fds() != before)
		abort();
	return 0;
}
