/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which instances are asked: those that are named, or all that run. */
#pragma once

#include <stddef.h>

/* Where each instance has a directory of its own, with its control socket. */
#define TARGETS_DIRECTORY "/run/holdfast"

struct target {
	char *name; /* as people name it: INSTANCE, or the PATH of a socket */
	char *path;
};

struct targets {
	struct target *list;
	size_t n;
};

/* Adds one; the strings are copied. Returns 0 or -ENOMEM. */
int targets_add(struct targets *targets, const char *name, const char *path);

/*
 * Adds all that have a control socket in a subdirectory of directory, in the order of
 * their names; no such directory has none. Returns 0 or a negative errno.
 */
int targets_find(struct targets *targets, const char *directory);

void targets_done(struct targets *targets);
