/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What list and watch share. */
#pragma once

#include "ctl/connections.h"
#include "ctl/table.h"

struct request;

/* Asks all instances and sorts what they tell. Returns whether all have answered; rows is
 * to be freed by connection_rows_done() in any case. */
bool list_ask(const struct request *request, struct connection_rows *ret_rows);

/* A table of the first n_max connections, below a header. Returns NULL without memory. */
struct table *list_make_table(const struct connection_rows *rows, size_t n_max);
