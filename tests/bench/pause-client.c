/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Measures the longest pause that the peers of an echo service see. --help says how it is
 * used; pause.py uses it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "client-options.h"
#include "limits.h"

int main(int argc, char *argv[])
{
	struct client_options options;
	static struct bench bench;
	int r = client_options_parse(argc, argv, &options);

	if (r <= 0)
		return r < 0 ? 2 : EXIT_SUCCESS;
	/* A whole line goes out at once: someone waits for it */
	(void)setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	limits_raise();
	r = bench_init(&bench, &options);
	if (r >= 0)
		r = bench_run(&bench);
	if (r < 0)
		(void)fprintf(stderr, "pause-client: %s\n",
			      *bench.complaint.text ? bench.complaint.text
						    : strerror(-r));
	bench_done(&bench);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
