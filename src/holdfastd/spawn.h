/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How the successor of a takeover is started, and how it ends. Main thread only. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Writes the path of the program that this process was started from to ret_path[size]; to
 * be asked at the start, before an upgrade replaces the file. Returns 0, -ENAMETOOLONG or
 * another negative errno.
 */
int spawn_find_program(char *ret_path, size_t size);

/*
 * Starts program as a child with one end of a socket pair (handover.h), and with this
 * process's environment but for what the service manager told this one alone. Its errors
 * are execve(2)'s as well: posix_spawn(3) returns when the program has been loaded.
 * Returns 0, and then the caller owns *ret_socket and has to reap *ret_pid; or a negative
 * errno.
 */
int spawn_successor(const char *program, char *const arguments[], pid_t *ret_pid,
		    int *ret_socket);

/* Waits until a child has ended, at most usec microseconds. It is not reaped. */
void spawn_wait_for_end(pid_t pid, uint64_t usec);

/* Reaps a child if it has ended. Returns whether it has gone; *ret_info tells how. */
bool spawn_reap(pid_t pid, siginfo_t *ret_info);
