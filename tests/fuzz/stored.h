/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a process leaves behind, made of an input: any ledger, and parcels of any content.
 */
#pragma once

#include "fuzz.h"

#define STORED_SLOTS 16

/* How many fds this process has; what is left open shows in it. */
int stored_n_open_fds(void);

/* Slots, and then patches to the bytes. Returns the memfd, which is the caller's. */
int stored_ledger(struct input *input);

/*
 * Entries with labels of any content. Returns the end that is stored; the sending end
 * goes to ret_send_fd or, where that is NULL, is closed. Both are the caller's.
 */
int stored_parcel(struct input *input, int *ret_send_fd);
