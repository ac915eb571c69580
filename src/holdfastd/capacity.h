/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How much this process can serve, by its limits and its options. */
#pragma once

#include "holdfastd/options.h"

/* Raises the soft limit of open files to the hard one. Returns it. */
unsigned long capacity_raise_files(void);

/*
 * Gives the table of open files room for many, as far as the limit allows. To be called
 * while there is one thread: with more of them the kernel waits for a grace period of RCU
 * whenever a file finds no room, which takes tens of ms, and there is such a moment at
 * each power of two (expand_fdtable() in fs/file.c;
 * tests/kernel/file-table-stays-large.c).
 */
void capacity_grow_file_table(void);

/*
 * Connections that may be served at once with that many open files; says so where the
 * options ask for more.
 */
unsigned capacity_get_connections(const struct options *options, unsigned long files);

/* Worker threads to be started. */
unsigned capacity_get_threads(const struct options *options);
