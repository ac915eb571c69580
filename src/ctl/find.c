/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/find.h"

#include <errno.h>
#include <stdio.h>

#include "ctl/verbs.h"

int find_connection(const struct request *request, struct connection_rows *ret_rows,
		    const struct target **ret_target)
{
	int failure = 0;

	*ret_rows = (struct connection_rows){0};
	for (size_t i = 0; i < request->targets.n; i++) {
		const struct target *target = &request->targets.list[i];
		int r = connections_get(target, request->id, ret_rows);

		if (r == 0)
			*ret_target = target;
		else if (r != -ENXIO)
			failure = r;
	}
	/* One that did not answer may have such a connection, too */
	if (failure < 0)
		return failure;
	if (ret_rows->n == 1)
		return 0;
	(void)fprintf(stderr, "holdfastctl: %s connection %llu%s\n",
		      ret_rows->n == 0 ? "there is no" : "more than one instance has a",
		      (unsigned long long)request->id,
		      ret_rows->n == 0 ? "" : ": name the one that is meant");
	return -ENXIO;
}
