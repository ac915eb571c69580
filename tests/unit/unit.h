/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What all unit tests share: cmocka with its TAP output, waiting for events, and pairs of
 * sockets. What the setup needs and cannot have fails the test.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/resource.h>
#include <sys/types.h>

/* Longest wait for something that comes within microseconds where all is well. */
#define UNIT_PATIENCE_MSEC 10000

#define N_ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

/* What main() ends in: runs tests (an array of struct CMUnitTest) as a group. */
#define UNIT_RUN(group, tests)                                   \
	(unit_begin(), cmocka_set_message_output(CM_OUTPUT_TAP), \
	 cmocka_run_group_tests_name(group, tests, NULL, NULL))

void unit_begin(void);

/* For what has to succeed before there is anything to test. Returns result as an int. */
int must(long result);

/* Waits for events of fd (poll(2)) and returns those that came; fails where none does. */
short wait_for(int fd, short events);

/* The events that are there now. */
short events_now(int fd, short events);

/* Waits until n bytes can be read from a stream socket, or its end is there. */
void wait_for_bytes(int fd, size_t n);

/* Writes or reads exactly size bytes, waiting where need be. */
void write_exactly(int fd, const void *data, size_t size);
void read_exactly(int fd, void *ret_data, size_t size);

/* Reads until text has come, which must be all that there is. */
void expect_text(int fd, const char *text);

/* Reads the orderly end of a stream. */
void expect_end(int fd);

/* Waits for the reset of a TCP connection. */
void expect_reset(int fd);

/*
 * Two connected non-blocking sockets: ours is the accepted one. Over TCP (127.0.0.1) with
 * SO_OOBINLINE on ours, as a listener of ours would have set it.
 */
void tcp_pair(int *ret_ours, int *ret_peer);
void unix_pair(int *ret_ours, int *ret_peer);

/* A file of its own for things that are parked: an fd whose identity can be asked for. */
int token_new(uint64_t id);
uint64_t token_id(int fd);

/* Whether two fds refer to one file (of the kinds that tests use: sockets, pipes,
 * memfds). */
bool is_same_file(int a, int b);

/* The number of open fds of this process. */
unsigned count_fds(void);

/*
 * Sets RLIMIT_NOFILE so that this process can open n (below 64) fds more. Returns what it
 * was, for restore_room().
 */
rlim_t leave_room_for(unsigned n);
void restore_room(rlim_t before);

/*
 * Runs work(userdata) in a process of its own that is then killed by SIGKILL; returns
 * when it is dead. A failed assertion in it fails the test here.
 */
void run_killed(void (*work)(void *userdata), void *userdata);
