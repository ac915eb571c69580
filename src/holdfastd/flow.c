/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/flow.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/pipe.h"
#include "base/socket.h"

/* Signals do not come so often that more calls than these would be in vain. */
#define URGENT_ATTEMPTS_MAX 1000

void flow_init(struct flow *flow, struct peer *source, struct peer *sink,
	       struct ledger_slot *record, unsigned index)
{
	*flow = (struct flow){
		.source = source,
		.sink = sink,
		.state = FLOW_OPEN,
		.record = record,
		.index = index,
	};
}

static uint32_t urgent_flag(const struct flow *flow)
{
	return flow->index == 0 ? SLOT_URGENT_0 : SLOT_URGENT_1;
}

static struct ledger_flow *flow_record(const struct flow *flow)
{
	return &flow->record->flows[flow->index];
}

static int borrow_pipe(struct flow *flow, struct pipe_pool *pool)
{
	if (flow->pipe)
		return 0;
	if (pipe_pool_borrow(pool, &flow->pipe) < 0)
		return -EBUSY;
	atomic_store(&flow_record(flow)->pipe, flow->pipe->ref);
	return 0;
}

static void return_pipe_if_empty(struct flow *flow, struct pipe_pool *pool)
{
	struct pool_pipe *pipe = flow->pipe;

	if (!pipe || flow->pending > 0)
		return;
	atomic_store(&flow_record(flow)->pipe, 0);
	flow->pipe = NULL;
	pipe_pool_return(pool, pipe);
}

/*
 * Takes a byte from the urgent mark, where it is known to be. There the kernel says
 * EAGAIN to who has a signal to take, be it a SIGSTOP or a tracer's; the next call comes
 * after it (tests/kernel/tcp-urgent-waits-for-signal.c).
 */
static void take_urgent(struct flow *flow)
{
	ssize_t n;
	char byte;

	for (int i = 0; i < URGENT_ATTEMPTS_MAX; i++) {
		n = recv(flow->source->fd, &byte, 1, MSG_DONTWAIT);
		if (n >= 0 || (errno != EAGAIN && errno != EINTR))
			return;
	}
}

/* Whether a result of splice or recv is more than a matter of time. */
static bool is_error(ssize_t n)
{
	return n < 0 && n != -EAGAIN && n != -ENOMEM && n != -ENOBUFS;
}

/*
 * Looks at the source's next byte. Unlike splice, recv does not take an urgent byte for
 * the end. Returns 1, 0 at the end, -EAGAIN, or the error, with which the source fails.
 */
static ssize_t peek_byte(struct flow *flow, char *ret_byte)
{
	ssize_t n = recv(flow->source->fd, ret_byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n >= 0)
		return n;
	n = -errno;
	if (is_error(n))
		peer_fail(flow->source);
	return n;
}

/*
 * Carries the byte at the urgent mark into the pipe by hand. The ledger says first that
 * it is in hand, where it is in the stream, and how much the pipe held: so flow_settle()
 * can tell whether it is in the pipe, and whether it is still in the socket as well.
 * Returns 1, 0 where the stream has ended, -EAGAIN, or the error of the source.
 */
static ssize_t pass_urgent(struct flow *flow)
{
	struct ledger_flow *record = flow_record(flow);
	struct socket_counts counts;
	ssize_t n;
	char byte;

	flow->source->urgent = false;
	n = peek_byte(flow, &byte);
	if (n != 1)
		/* No byte: a peer can make the mark one behind its end */
		return n;
	if (socket_get_counts(flow->source->fd, &counts) < 0)
		return -EAGAIN;
	record->urgent_at = counts.n_taken - (counts.has_fin ? 1 : 0);
	record->urgent_pending = flow->pending;
	atomic_fetch_or(&flow->record->flags, urgent_flag(flow));
	if (write(flow->pipe->fd, &byte, 1) == 1) {
		/* It was peeked a moment ago and nobody else reads: it is there */
		take_urgent(flow);
		atomic_fetch_and(&flow->record->flags, ~urgent_flag(flow));
		return 1;
	}
	atomic_fetch_and(&flow->record->flags, ~urgent_flag(flow));
	flow->source->urgent = true; /* the pipe is full: later */
	return -EAGAIN;
}

/* Whether the byte at a position has not been taken from the source. */
static bool is_still_there(const struct flow *flow, const struct socket_counts *counts,
			   uint64_t position)
{
	if (counts->n_taken - (counts->has_fin ? 1 : 0) == position)
		return true;
	/* A closed socket does not tell whether a FIN is among what it counts */
	return counts->is_closed && counts->n_taken == position + 1 &&
	       socket_is_at_urgent(flow->source->fd);
}

void flow_settle_urgent(struct flow *flow)
{
	struct ledger_flow *record = flow_record(flow);
	struct socket_counts counts;

	if (!(flow->record->flags & urgent_flag(flow)))
		return;
	if (flow->pending == record->urgent_pending + 1 &&
	    socket_get_counts(flow->source->fd, &counts) == 0 &&
	    is_still_there(flow, &counts, record->urgent_at))
		/* In the pipe and in the socket too: the one in the socket goes */
		take_urgent(flow);
	atomic_fetch_and(&flow->record->flags, ~urgent_flag(flow));
}

/* Whether an error waits to be told. Unlike SO_ERROR, this leaves it where it is. */
static bool has_error(int fd)
{
	struct pollfd p = {.fd = fd};

	return poll(&p, 1, 0) > 0 && (p.revents & POLLERR);
}

int flow_take_up(struct flow *flow, struct pool_pipe *pipe)
{
	if (pipe && pipe_get_pending(pipe->fd, &flow->pending) < 0)
		return -EIO;
	flow->pipe = pipe;
	return 0;
}

/* How far n_read of a closed socket's flow has to have come, a FIN being there or not. */
static void settle_closed(struct flow *flow, uint64_t n_taken)
{
	struct ledger_flow *record = flow_record(flow);

	/*
	 * A closed socket without a FIN among its bytes was reset, also where the call
	 * that learned it was the last thing that the last process did
	 * (tests/kernel/tcp-info-tells-reset-from-fin.c). n_read is exact then, since
	 * that call moved no bytes.
	 */
	if (has_error(flow->source->fd) || n_taken <= record->n_read) {
		peer_fail(flow->source);
		/* Further behind than a FIN explains: the last call was not counted */
		if (n_taken > record->n_read + 1)
			record->n_read = n_taken;
	} else {
		record->n_read = n_taken - 1;
	}
}

static void settle_journal(struct flow *flow)
{
	struct ledger_flow *journal = &flow->record->flows[FLOW_JOURNAL];

	journal->n_read = flow_record(flow)->n_read - flow->pending;
	journal->n_in_hand = 0;
}

void flow_settle_count(struct flow *flow, const struct socket_counts *counts)
{
	struct ledger_flow *record = flow_record(flow);

	if (!counts || counts->is_connecting) {
		/* AF_UNIX keeps no counts; what is in the pipe was read at least */
		if (record->n_read < flow->pending)
			record->n_read = flow->pending;
	} else if (counts->is_closed) {
		settle_closed(flow, counts->n_taken);
	} else {
		record->n_read = counts->n_taken - (counts->has_fin ? 1 : 0);
	}
	if (!flow->sink)
		settle_journal(flow);
}

static ssize_t fill_once(struct flow *flow, size_t max)
{
	ssize_t n;

	do
		n = splice(flow->source->fd, NULL, flow->pipe->fd, NULL, max,
			   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

/*
 * What splice says when it moves nothing is not the whole truth: at the mark of an urgent
 * byte behind which the stream has ended, it tells the end (0, or the error) and not
 * EAGAIN, though bytes are left (tests/kernel/tcp-urgent-stops-splice.c).
 */
static ssize_t fill_past_urgent(struct flow *flow, size_t max)
{
	ssize_t n = fill_once(flow, max);

	if (n > 0 || (n == -EAGAIN && !flow->source->urgent && !flow->source->hung))
		return n;
	if (n < 0 && is_error(n))
		peer_fail(flow->source);
	if (socket_is_at_urgent(flow->source->fd)) {
		ssize_t passed = pass_urgent(flow);

		return passed > 0 || !is_error(n) ? passed : n;
	}
	return n;
}

/* Whether a source that has sent its end has nothing else to give. */
static bool is_at_end(struct flow *flow)
{
	ssize_t n;
	char byte;

	n = peek_byte(flow, &byte);
	/* An error: it was reset after its end */
	return n == 0 || is_error(n);
}

ssize_t flow_fill(struct flow *flow, struct pipe_pool *pool, size_t max)
{
	ssize_t n;
	int r;

	/* Most ends come alone: to learn of it then takes one call, and no pipe */
	if (flow->source->ended && !flow->pipe && is_at_end(flow)) {
		flow->state = FLOW_ENDING;
		return 0;
	}
	r = borrow_pipe(flow, pool);
	if (r < 0)
		return r;
	n = fill_past_urgent(flow, max);
	if (n > 0) {
		flow->pending += (size_t)n;
		atomic_fetch_add_explicit(&flow_record(flow)->n_read, (uint64_t)n,
					  memory_order_relaxed);
		return n;
	}
	/* What has failed and has nothing more to give will never have: an AF_UNIX peer
	 * that has shut down its reading makes us fail in writing, yet its end is never
	 * told */
	if (n == 0 || is_error(n) || (n == -EAGAIN && flow->source->failed))
		flow->state = FLOW_ENDING;
	return_pipe_if_empty(flow, pool);
	return flow->state == FLOW_ENDING ? 0 : -EAGAIN;
}

void flow_note_drained(struct flow *flow, struct pipe_pool *pool, size_t n)
{
	assert(n <= flow->pending);
	flow->pending -= n;
	flow->n_moved += n;
	return_pipe_if_empty(flow, pool);
}

/* Returns the number of bytes moved, -EAGAIN, or the error that the sink failed with. */
static ssize_t drain_once(struct flow *flow)
{
	ssize_t n;

	do
		n = splice(flow->pipe->fd, NULL, flow->sink->fd, NULL, flow->pending,
			   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static void drain(struct flow *flow, struct pipe_pool *pool)
{
	ssize_t n = drain_once(flow);

	if (n > 0) {
		/* A short write means that there is no more room; the event will tell
		 * when */
		if ((size_t)n < flow->pending && !flow->sink->hung)
			flow->sink->writable = false;
		/* The pipe stays for the next round; flow_move() gives it back */
		flow->pending -= (size_t)n;
		flow->n_moved += (uint64_t)n;
	} else if (!is_error(n)) {
		flow->sink->writable = flow->sink->hung;
	} else {
		peer_fail(flow->sink);
		flow_kill(flow, pool);
	}
}

/* Returns whether there may be more to do, or a negative flow_fill() result. */
static ssize_t fill(struct flow *flow, struct pipe_pool *pool)
{
	size_t max = flow->pipe ? flow->pipe->size : PIPES_LARGE_SIZE;
	ssize_t n = flow_fill(flow, pool, max);

	/* A short read most likely took all there was; if not, the level-triggered event
	 * will tell */
	if ((n > 0 && (size_t)n < max) || n == -EAGAIN)
		flow->source->readable = flow->source->hung;
	return n;
}

static void end(struct flow *flow)
{
	/* Repeatable, and without effect on a socket that is closed already */
	if (!flow->source->failed && !flow->sink->failed)
		(void)shutdown(flow->sink->fd, SHUT_WR);
	flow->state = FLOW_ENDED;
}

/* Returns whether there may be more. Its bytes are nobody's: they may pass through
 * memory. */
static bool throw_away(struct flow *flow)
{
	char bytes[16 * 1024];
	ssize_t n;

	if (!flow->source->readable)
		return false;
	n = recv(flow->source->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	if (n > 0)
		return true;
	/* One that has left epoll will never be told to have more */
	if (n == 0 || is_error(-errno) || flow->source->hung)
		flow->state = FLOW_ENDED;
	flow->source->readable = false;
	return false;
}

int flow_move(struct flow *flow, struct pipe_pool *pool)
{
	int result = FLOW_HAS_MORE;

	for (int round = 0; round < FLOW_ROUNDS_MAX; round++) {
		if (flow->state == FLOW_ENDED)
			return FLOW_WAITS;
		if (flow->state == FLOW_LOST) {
			if (!throw_away(flow))
				return FLOW_WAITS;
		} else if (flow->pending > 0) {
			if (!flow->sink->writable)
				return FLOW_WAITS;
			drain(flow, pool);
		} else if (flow->state == FLOW_ENDING) {
			end(flow);
		} else if (!flow->source->readable) {
			result = FLOW_WAITS;
			break;
		} else if (fill(flow, pool) == -EBUSY) {
			return FLOW_NEEDS_PIPE;
		}
	}
	return_pipe_if_empty(flow, pool);
	return flow->state == FLOW_ENDED ? FLOW_WAITS : result;
}

void flow_finish(struct flow *flow)
{
	if (flow->state == FLOW_OPEN)
		flow->state = FLOW_ENDING;
}

void flow_kill(struct flow *flow, struct pipe_pool *pool)
{
	struct pool_pipe *pipe = flow->pipe;

	if (flow->state != FLOW_ENDED)
		flow->state = FLOW_LOST;
	if (!pipe)
		return;
	atomic_store(&flow_record(flow)->pipe, 0);
	flow->pipe = NULL;
	if (flow->pending > 0)
		pipe_pool_discard(pool, pipe);
	else
		pipe_pool_return(pool, pipe);
	flow->pending = 0;
}

static ssize_t peek_once(const struct flow *flow, int scratch, void *buffer,
			 size_t wanted)
{
	size_t n_read = 0;
	ssize_t n;

	do
		n = tee(flow->pipe->fd, scratch, wanted, SPLICE_F_NONBLOCK);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	while (n_read < (size_t)n) {
		ssize_t r = read(scratch, (char *)buffer + n_read, (size_t)n - n_read);

		if (r < 0 && errno != EINTR)
			return -errno;
		if (r > 0)
			n_read += (size_t)r;
	}
	return n;
}

ssize_t flow_peek(const struct flow *flow, int scratch, void *buffer, size_t size)
{
	size_t wanted = size < flow->pending ? size : flow->pending;
	ssize_t n = peek_once(flow, scratch, buffer, wanted);

	/* It may have been made, or the other taken up, when there was less room for
	 * pipes */
	if (n >= 0 && (size_t)n < wanted &&
	    fcntl(scratch, F_SETPIPE_SZ, flow->pipe->size) >= 0)
		n = peek_once(flow, scratch, buffer, wanted);
	return n;
}

/* Fills the empty pipe with the bytes of the lent one, which keeps them. */
static int copy_pending(const struct flow *flow, struct pool_pipe *to, int scratch)
{
	char *buffer = malloc(flow->pending);
	ssize_t n;
	int r = 0;

	if (!buffer)
		return -ENOMEM;
	n = flow_peek(flow, scratch, buffer, flow->pending);
	if (n >= 0 && (size_t)n == flow->pending)
		n = write(to->fd, buffer, flow->pending);
	if (n < 0 || (size_t)n != flow->pending)
		r = -ENOBUFS;
	free(buffer);
	return r;
}

int flow_repack(struct flow *flow, struct pipe_pool *pool, int scratch)
{
	struct pool_pipe *packed;
	int r;

	if (pipe_pool_borrow(pool, &packed) < 0)
		return -EBUSY;
	r = copy_pending(flow, packed, scratch);
	if (r == 0) {
		struct pool_pipe *old = flow->pipe;

		/* One store: before it the old pipe counts, after it the new one */
		atomic_store(&flow_record(flow)->pipe, packed->ref);
		flow->pipe = packed;
		packed = old;
	}
	/* What is in it now is a copy; a pipe in the pool must be empty */
	pipe_pool_discard(pool, packed);
	return r;
}
