/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The processes of the service: the main one, which is heard and told things, and its
 * process group, which is what else belongs to it.
 *
 * The group's id cannot have become another's while it is used here: the main process is
 * a member until it is reaped, and service_end() comes before that.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* All zeroes: nothing runs. */
struct service {
	pid_t main_pid; /* 0: has ended */
	pid_t group;    /* 0: all have ended */
};

/* pid has been started, and leads a group of its own. */
void service_begin(struct service *service, pid_t pid);

/*
 * Follows MAINPID=: pid, which must live and descend from this process, is the main one
 * now. Returns 0, or -ESRCH if it is not such a process.
 */
int service_move(struct service *service, pid_t pid);

/* Whether pid is the main process; never true of 0, which is no process. */
bool service_is_main(const struct service *service, pid_t pid);

/*
 * Whether the main process has ended out of our sight: it was not our child, and waits to
 * be reaped by its parent, or was. (Our own children are seen to end with waitid(2).)
 */
bool service_has_vanished(const struct service *service);

/* Sends the main process a signal. If it has just ended, SIGCHLD will tell. */
void service_signal(const struct service *service, int number);

/* SIGKILL for all. */
void service_kill(const struct service *service);

/* The main process is dead (and not reaped yet, if it is ours): SIGKILL for the others.
 */
void service_end(struct service *service);

/* After service_end(): whether the others are gone and reaped, too. */
bool service_is_cleared(struct service *service);
