/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/pipes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/pipe.h"

void pipe_pool_init(struct pipe_pool *pool, struct packer *packer)
{
	*pool = (struct pipe_pool){.packer = packer};
}

void pipe_pool_done(struct pipe_pool *pool)
{
	while (pool->free) {
		struct pool_pipe *pipe = pool->free;

		pool->free = pipe->next;
		(void)fd_close(pipe->fd);
		free(pipe);
	}
}

static void set_size(struct pool_pipe *pipe, bool large)
{
	int size = -1;

	/* Over fs.pipe-user-pages-soft this is refused: then the pipe stays as it is */
	if (large)
		size = fcntl(pipe->fd, F_SETPIPE_SZ, PIPES_LARGE_SIZE);
	if (size < 0)
		size = fcntl(pipe->fd, F_GETPIPE_SZ);
	pipe->size = size < 0 ? (size_t)sysconf(_SC_PAGESIZE) : (size_t)size;
}

/* Parks the pipe, so that it is there before its first byte. */
static int park(struct pipe_pool *pool, struct pool_pipe *pipe)
{
	uint32_t slot, generation;
	int r;

	r = packer_take_slot(pool->packer, &slot);
	if (r < 0)
		return r;
	generation = pool->packer->vault->ledger.slots[slot].generation;
	packer_publish(pool->packer, slot, SLOT_PIPE);
	r = packer_put(pool->packer, slot, generation, &pipe->fd, 1);
	if (r < 0) {
		packer_free_slot(pool->packer, slot);
		return r;
	}
	pipe->ref = slot_ref_make(slot, generation);
	return 0;
}

static int make_pipe(struct pipe_pool *pool, struct pool_pipe **ret_pipe)
{
	struct pool_pipe *pipe = calloc(1, sizeof(*pipe));
	int r;

	if (!pipe)
		return -ENOMEM;
	r = pipe_open_both_ends(&pipe->fd);
	if (r == 0) {
		set_size(pipe, pool->n_pipes < PIPES_LARGE);
		r = park(pool, pipe);
		if (r < 0)
			(void)fd_close(pipe->fd);
	}
	if (r < 0) {
		free(pipe);
		return r;
	}
	pool->n_pipes++;
	*ret_pipe = pipe;
	return 0;
}

int pipe_pool_reserve(struct pipe_pool *pool)
{
	while (pool->n_pipes < PIPES_MIN) {
		struct pool_pipe *pipe;
		int r = make_pipe(pool, &pipe);

		if (r < 0)
			return r;
		pipe_pool_return(pool, pipe);
	}
	return 0;
}

int pipe_pool_borrow(struct pipe_pool *pool, struct pool_pipe **ret_pipe)
{
	struct pool_pipe *pipe = pool->free;

	if (!pipe)
		return make_pipe(pool, ret_pipe);
	pool->free = pipe->next;
	pool->n_free--;
	*ret_pipe = pipe;
	return 0;
}

void pipe_pool_return(struct pipe_pool *pool, struct pool_pipe *pipe)
{
	if (pool->n_free >= PIPES_KEPT) {
		pipe_pool_discard(pool, pipe);
		return;
	}
	pipe->next = pool->free;
	pool->free = pipe;
	pool->n_free++;
}

void pipe_pool_discard(struct pipe_pool *pool, struct pool_pipe *pipe)
{
	/* Its memory goes when its parcel is swept */
	packer_free_slot(pool->packer, slot_ref_slot(pipe->ref));
	(void)fd_close(pipe->fd);
	free(pipe);
	pool->n_pipes--;
}

struct pool_pipe *pipe_pool_adopt(struct pipe_pool *pool, slot_ref ref, int fd)
{
	struct pool_pipe *pipe = calloc(1, sizeof(*pipe));

	if (!pipe)
		return NULL;
	*pipe = (struct pool_pipe){.fd = fd, .ref = ref};
	set_size(pipe, false);
	pool->n_pipes++;
	return pipe;
}

int pipe_pool_forget(struct pipe_pool *pool, struct pool_pipe *pipe)
{
	int fd = pipe->fd;

	free(pipe);
	pool->n_pipes--;
	return fd;
}
