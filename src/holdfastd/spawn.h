/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How the successor of a takeover is started, and how it ends. Main thread only. */
#pragma once

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

/* Where a successor finds its end of the socket. */
#define SUCCESSOR_FD 3

/*
 * Keeps that fd for the successors that this process will start: a child that needs only
 * the lowest fds is started without a copy of all the others. To be called once, and
 * before spawn_successor(). What was there is moved: returns its new fd, which the caller
 * owns as it did the old one; 0 if nothing was there; or a negative errno.
 */
int spawn_keep_fd(void);

struct cpus;

/* A process that was started. */
struct spawned {
	pid_t pid;
	int fd; /* a pidfd, the owner's to close */
};

/*
 * Starts program with one end of a socket pair (handover.h), and with this process's
 * environment but for what the service manager told this one alone. It is a sibling of
 * this process: the manager's child, which reaps it. It starts at leisure on cpus->one
 * (leisure.h; NULL: on any CPU). Returns when the program has been
 * loaded: 0, and then the caller owns ret_spawned->fd and *ret_socket; or a negative
 * errno, also one of execve(2)'s.
 */
int spawn_successor(const char *program, char *const arguments[], const struct cpus *cpus,
		    struct spawned *ret_spawned, int *ret_socket);

/* Waits until it has ended, at most usec microseconds. Returns whether it has. */
bool spawn_has_ended(const struct spawned *spawned, uint64_t usec);

/* SIGKILL. */
void spawn_kill(const struct spawned *spawned);

/* Writes how one that has ended did so, as far as it is to be known, for a person. */
void spawn_explain_end(const struct spawned *spawned, char *ret_text, size_t size);
