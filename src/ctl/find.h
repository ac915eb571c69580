/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What show and close share. */
#pragma once

#include "ctl/connections.h"

struct request;

/*
 * Finds the connection that request names, which one of its instances must have, and no
 * other: ids are unique in an instance only. Returns 0, or a negative errno after saying
 * what is wrong. rows has it; to be freed by connection_rows_done() in any case.
 */
int find_connection(const struct request *request, struct connection_rows *ret_rows,
		    const struct target **ret_target);
