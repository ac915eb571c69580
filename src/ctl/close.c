/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/instance.h"
#include "ctl/find.h"
#include "ctl/instance.h"
#include "ctl/verbs.h"

static int ask(const struct target *target, const struct request *request)
{
	sd_bus *bus;
	int r;

	r = instance_connect(target->path, INSTANCE_ANSWER_USEC, &bus);
	if (r < 0)
		return r;
	r = instance_call_id(bus, target->name, INSTANCE_CLOSE, request->id,
			     &request->reset, NULL);
	if (r == -ENXIO)
		(void)fprintf(stderr, "holdfastctl: there is no connection %llu\n",
			      (unsigned long long)request->id);
	(void)sd_bus_close_unref(bus);
	return r;
}

int verb_close(const struct request *request)
{
	struct connection_rows rows;
	const struct target *target;
	int r;

	r = find_connection(request, &rows, &target);
	connection_rows_done(&rows);
	if (r == 0)
		r = ask(target, request);
	return r < 0 ? STATUS_FAILURE : EXIT_SUCCESS;
}
