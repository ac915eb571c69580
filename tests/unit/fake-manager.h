/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A service manager for tests: its side of the fd store, as systemd keeps it, behind a
 * $NOTIFY_SOCKET of its own that a thread reads.
 *
 * FDSTORE=1, FDNAME=, FDPOLL=0, FDSTOREREMOVE=1 and BARRIER=1 do what sd_notify(3) says;
 * an upload over the maximum is closed without a word, and a file that is stored already
 * keeps its name. Other assignments are ignored.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "vault/adopt.h"

/* The most that any test's manager keeps. */
#define FAKE_MANAGER_STORE_MAX 640
#define FAKE_MANAGER_NAME_SIZE 64

struct fake_manager;

/* What the next process gets: fds of its own, newest first, and their names. */
struct fake_manager_given {
	struct stored_fd fds[FAKE_MANAGER_STORE_MAX];
	char names[FAKE_MANAGER_STORE_MAX][FAKE_MANAGER_NAME_SIZE];
	size_t n;
};

/* Starts one that stores up to max fds, and sets $NOTIFY_SOCKET. */
struct fake_manager *fake_manager_new(unsigned max);

/* Stops it and closes what it stores. Takes NULL and returns it. */
struct fake_manager *fake_manager_free(struct fake_manager *manager);

/* Waits until all that was sent so far has been done. */
void fake_manager_sync(struct fake_manager *manager);

/* FileDescriptorStoreMax=, as of now; what is stored stays. */
void fake_manager_set_max(struct fake_manager *manager, unsigned max);

/*
 * A slow manager closes what it refuses when it is slow no longer, and a barrier in time,
 * as systemd does since 254.
 */
void fake_manager_set_slow(struct fake_manager *manager, bool slow);

/* A deaf manager reads nothing until it is told to hear again. */
void fake_manager_set_deaf(struct fake_manager *manager, bool deaf);

/* After a sync: how many fds of that name (NULL: of any) are stored. */
unsigned fake_manager_count(struct fake_manager *manager, const char *name);

/* The most that were stored at once. */
unsigned fake_manager_most(struct fake_manager *manager);

/* Uploads that it refused, for there was no room. */
unsigned fake_manager_refused(struct fake_manager *manager);

/* Uploads without FDPOLL=0, which it would drop at EPOLLHUP. */
unsigned fake_manager_watched(struct fake_manager *manager);

/* Stores a copy of fd as somebody else may have done. */
void fake_manager_put(struct fake_manager *manager, int fd, const char *name);

/* Forgets every fd of that name. */
void fake_manager_remove(struct fake_manager *manager, const char *name);

/* A copy of the first fd of that name; the caller's. Fails where there is none. */
int fake_manager_get(struct fake_manager *manager, const char *name);

/* After a sync: hands out copies of all that is stored, as at the start of a process. */
void fake_manager_give(struct fake_manager *manager,
		       struct fake_manager_given *ret_given);
