/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Listens at HOST:PORT, and prints "ready" for load.py. Returns 0, and then the caller
 * owns *ret_listener, which is non-blocking; or a negative errno: -EINVAL after saying on
 * stderr what is wrong with text.
 */
int listen_at(const char *text, int *ret_listener);
