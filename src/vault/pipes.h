/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A worker's pool of pipes. A flow borrows one while it has bytes on their way, so that
 * idle connections hold none. Every pipe is parked in the vault when it is made, before a
 * byte can be in it, and its slot says that it lives.
 *
 * One fd serves both ends (pipe_open_both_ends()).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vault/packer.h"

/* Free pipes that a worker keeps for the next flow; further ones are closed. */
#define PIPES_KEPT 64
/* The first pipes of a worker are made this large (bytes), for bulk; see
 * fs.pipe-max-size. */
#define PIPES_LARGE 16
#define PIPES_LARGE_SIZE (256 * 1024)
/* Pipes that a worker has before it takes on what will need them. */
#define PIPES_MIN 4

struct pool_pipe {
	struct pool_pipe *next;
	int fd;
	slot_ref ref;
	size_t size; /* bytes that it can hold at the most */
};

struct pipe_pool {
	struct packer *packer;
	struct pool_pipe *free;
	unsigned n_free;
	_Atomic unsigned n_pipes; /* free and lent; others may read it */
};

void pipe_pool_init(struct pipe_pool *pool, struct packer *packer);

/* Frees the process's side of the free pipes. */
void pipe_pool_done(struct pipe_pool *pool);

/*
 * Lends an empty pipe. Returns 0, or a negative errno where there is none and none can be
 * made: -EBUSY  the vault has no parcel for it just now -EMFILE, -ENFILE, -ENOSPC,
 * -ENOMEM, -ETOOMANYREFS  a limit is reached
 */
int pipe_pool_borrow(struct pipe_pool *pool, struct pool_pipe **ret_pipe);

/*
 * Sees to it that there are PIPES_MIN pipes, free or lent. To be called before something
 * that will need pipes takes up room in the store: in one that is full of connections no
 * pipe could be parked, and nothing would ever move again. Returns as pipe_pool_borrow()
 * does.
 */
int pipe_pool_reserve(struct pipe_pool *pool);

/* Takes an empty pipe back. */
void pipe_pool_return(struct pipe_pool *pool, struct pool_pipe *pipe);

/* Takes back a pipe whose bytes nobody wants any more. */
void pipe_pool_discard(struct pipe_pool *pool, struct pool_pipe *pipe);

/*
 * Makes a lent pipe of one that was adopted. Takes fd over on success. Returns NULL
 * without memory.
 */
struct pool_pipe *pipe_pool_adopt(struct pipe_pool *pool, slot_ref ref, int fd);

/* The opposite: forgets a lent pipe, and returns its fd, the caller's. */
int pipe_pool_forget(struct pipe_pool *pool, struct pool_pipe *pipe);
