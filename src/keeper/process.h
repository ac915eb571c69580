/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Questions about processes below this one. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* Whether pid is a child of this process that is not reaped yet, alive or not. */
bool process_is_child(pid_t pid);

/*
 * Whether pid lives and is a child of this process, or a child's child and so on.
 * Children are known without /proc; deeper ones need it (without it they are said not to
 * be).
 */
bool process_is_descendant(pid_t pid);
