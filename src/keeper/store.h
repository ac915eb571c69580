/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The fd store: what FDSTORE=1 put in and the next start of the service gets back.
 *
 * It follows systemd's (src/core/service.c): the newest fd comes first, an fd that is in
 * the store already keeps its old name, and an fd stored without FDPOLL=0 is dropped at
 * EPOLLHUP or EPOLLERR. One bound is the keeper's own: names that together would not fit
 * the one environment string that carries them are refused, since exec would then fail at
 * every start. (tests/unit/keeper/test_keeper_store.c)
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <systemd/sd-event.h>

/* store_put() found the fd in the store. */
#define STORE_DUPLICATE 1

struct stored_fd {
	struct stored_fd *next; /* the next older one */
	struct store *store;
	sd_event_source *source; /* NULL: not polled */
	int fd;
	dev_t device;
	ino_t inode;
	char name[];
};

struct store {
	sd_event *event;
	struct stored_fd *newest;
	size_t n_fds;
	size_t n_fds_max;
	size_t names_size; /* bytes in all names, with a separator for each */
	size_t names_size_max;
};

/* Makes an empty store. event is borrowed and runs the polling of fds. */
void store_init(struct store *store, sd_event *event, size_t n_fds_max,
		size_t names_size_max);

/* Closes all fds. */
void store_done(struct store *store);

/*
 * Puts fd, which is the store's from now on whatever is returned, under name (a valid
 * one). is_polled: drop it at EPOLLHUP or EPOLLERR, if it can be polled at all.
 * Returns 0; STORE_DUPLICATE if the same open file is stored already (fd is closed, the
 * name stays); -EXFULL if n_fds_max are stored; -E2BIG if the names would need more than
 * names_size_max; -ENOMEM; or an errno of fstat(2) or epoll_ctl(2).
 */
int store_put(struct store *store, int fd, const char *name, bool is_polled);

/* Closes all fds of that name. Returns how many. */
size_t store_remove(struct store *store, const char *name);
