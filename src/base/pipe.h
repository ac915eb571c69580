/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>

/*
 * Makes a pipe of which one fd serves both ends: an anonymous pipe reopened O_RDWR
 * through /proc/self/fd (tests/kernel/pipe-of-one-fd.c). Non-blocking, CLOEXEC, the
 * caller's. Returns 0 or a negative errno.
 */
int pipe_open_both_ends(int *ret_fd);

/* Bytes that a pipe holds. Returns 0 or a negative errno. */
int pipe_get_pending(int fd, size_t *ret_pending);
