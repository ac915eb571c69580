/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* How much this process can serve, by its limits and its options. */
#pragma once

#include "holdfastd/options.h"

/* Raises the soft limit of open files to the hard one. Returns it. */
unsigned long capacity_raise_files(void);

/*
 * Connections that may be served at once with that many open files; says so where the
 * options ask for more.
 */
unsigned capacity_get_connections(const struct options *options, unsigned long files);

/* Worker threads to be started. */
unsigned capacity_get_threads(const struct options *options);
