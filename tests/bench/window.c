/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "window.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* They stand in JSON as they are */
#define NAME_CHARACTERS \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

bool window_name_is_valid(const char *name)
{
	size_t length = strlen(name);

	return length > 0 && length < WINDOW_NAME_SIZE &&
	       strspn(name, NAME_CHARACTERS) == length;
}

void window_open(struct window *window, const char *name, uint64_t first)
{
	(void)snprintf(window->name, sizeof(window->name), "%s", name);
	window->first = first;
	window->end = UINT64_MAX;
	window->late_max_usec = 0;
	window->peer_max_usec = 0;
	latency_init(&window->latency);
}

void window_close(struct window *window, uint64_t end)
{
	window->end = end;
}

bool window_is_complete(const struct window *window)
{
	return window->end != UINT64_MAX &&
	       window->latency.n == window->end - window->first;
}

void window_print(const struct window *window)
{
	const struct latency *latency = &window->latency;

	(void)printf("{\"name\": \"%s\", \"n_messages\": %" PRIu64
		     ", \"max_usec\": %" PRIu64 ", \"p50_usec\": %" PRIu64
		     ", \"p99_usec\": %" PRIu64 ", \"p999_usec\": %" PRIu64
		     ", \"late_max_usec\": %" PRIu64 ", \"peer_max_usec\": %" PRIu64
		     "}\n",
		     window->name, latency->n, latency->max_usec,
		     latency_quantile(latency, 500), latency_quantile(latency, 990),
		     latency_quantile(latency, 999), window->late_max_usec,
		     window->peer_max_usec);
}
