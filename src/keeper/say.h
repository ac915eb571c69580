/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the keeper says: lines "holdfast-keeper: ..." on stderr, which the service
 * inherits and writes its own to. The keeper has no journal connection of its own: it is
 * for places where there may be no journal.
 */
#pragma once

#include <stdbool.h>
#include <syslog.h>

/*
 * Decides once whether lines get the <n> prefix of sd-daemon(3): only if stderr is the
 * journal's ($JOURNAL_STREAM names its device and inode); to a person it is noise.
 * is_verbose lets LOG_DEBUG lines through.
 */
void say_start(bool is_verbose);

/*
 * Writes one line of at most SAY_MAX bytes in one write(2), control characters replaced
 * by
 * '?': some of the text comes from the service. A line that stderr has no room for right
 * now is dropped: a pipe that nobody reads must not stop the keeping of fds.
 */
__attribute__((format(printf, 2, 3))) void say_line(int level, const char *format, ...);

#define SAY_MAX 2048
