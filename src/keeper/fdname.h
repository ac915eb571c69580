/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of passed and stored fds: FDNAME= of sd_notify(3), $LISTEN_FDNAMES. */
#pragma once

#include <stdbool.h>

#define FD_NAME_MAX 255
#define FD_NAME_DEFAULT "stored"

/*
 * Whether name may stand in $LISTEN_FDNAMES: at most FD_NAME_MAX bytes of 0x20..0x7e,
 * without the separator ':'. As with systemd's fdname_is_valid(), the empty name is one.
 */
bool fd_name_is_valid(const char *name);

/*
 * Makes a legal name of text: what may not stand in one becomes '_', what is too long is
 * cut, and nothing at all becomes "listener".
 */
void fd_name_from_text(const char *text, char ret_name[FD_NAME_MAX + 1]);
