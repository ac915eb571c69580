/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "peers.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/fd.h"

#define CHUNK_BYTES 4096u
#define PLACE_BITS 6

uint8_t end_byte(const struct end *source, uint64_t position)
{
	/* Constants that mix well; nothing else depends on them */
	uint32_t mixed = ((uint32_t)position * 2 + source->is_far + 1) * 2654435761u;

	mixed ^= mixed >> 15;
	mixed *= 2246822519u;
	return (uint8_t)(source->connection << PLACE_BITS | mixed >> (32 - PLACE_BITS));
}

unsigned end_byte_connection(uint8_t byte)
{
	return byte >> PLACE_BITS;
}

bool end_send(struct end *end)
{
	bool has_sent = false;

	while ((end->state == END_OPEN || end->state == END_EOF) && !end->has_failed &&
	       end->n_sent < end->n_wanted) {
		uint8_t bytes[CHUNK_BYTES];
		uint64_t n = end->n_wanted - end->n_sent;
		bool is_urgent = end->urgent_at == end->n_sent + 1;
		ssize_t sent;

		if (is_urgent)
			n = 1;
		else if (end->urgent_at > end->n_sent &&
			 end->urgent_at - 1 < end->n_wanted)
			n = end->urgent_at - 1 - end->n_sent;
		if (n > CHUNK_BYTES)
			n = CHUNK_BYTES;
		for (uint64_t i = 0; i < n; i++)
			bytes[i] = end_byte(end, end->n_sent + i);
		sent = send(end->fd, bytes, n,
			    MSG_NOSIGNAL | MSG_DONTWAIT | (is_urgent ? MSG_OOB : 0));
		if (sent < 0) {
			/* A reset is told once: who receives is told an end then */
			end->has_failed = errno != EAGAIN;
			break;
		}
		end->n_sent += (uint64_t)sent;
		has_sent = true;
	}
	return has_sent;
}

static int end_check(struct end *end, const uint8_t *bytes, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		if (bytes[i] != end_byte(end->source, end->n_received + i))
			return -EBADMSG;
	return end->n_received + n > end->source->n_sent ? -EBADMSG : 0;
}

int end_receive(struct end *end)
{
	uint8_t bytes[4 * CHUNK_BYTES];
	int has_received = 0;

	while (end->state == END_OPEN && end->fd >= 0) {
		ssize_t n = recv(end->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN)
			break;
		has_received = 1;
		if (n <= 0) {
			end->state = n == 0 ? END_EOF : END_RESET;
			break;
		}
		if (end_check(end, bytes, (uint64_t)n) < 0)
			return -EBADMSG;
		end->n_received += (uint64_t)n;
	}
	return has_received;
}

int end_take(struct end *end, const uint8_t *bytes, uint64_t n)
{
	int r = end_check(end, bytes, n);

	if (r < 0 && n == end->last_size) {
		end->n_received -= n;
		r = end_check(end, bytes, n);
		end->n_repeated += r == 0;
	}
	if (r < 0)
		return r;
	end->n_received += n;
	end->last_size = n;
	return 0;
}

void end_abort(struct end *end)
{
	const struct linger linger = {.l_onoff = 1};

	if (end->fd < 0)
		return;
	(void)setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	end->is_aborted = true;
	end_close(end);
}

void end_close(struct end *end)
{
	end->fd = fd_close(end->fd);
	end->state = END_CLOSED;
}

void end_shut(struct end *end)
{
	(void)shutdown(end->fd, SHUT_WR); /* fails if it was reset, which reading tells */
	end->is_shut = true;
}
