/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "exchange.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/time.h"
#include "entries.h"

__attribute__((format(printf, 2, 3))) int scenario_fail(struct scenario *scenario,
							const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(scenario->why, sizeof(scenario->why), format, arguments);
	va_end(arguments);
	return -1;
}

static const char *const side_names[] = {[CLIENT] = "client", [FAR] = "far"};

int scenario_fail_at(struct scenario *scenario, const struct end *end, const char *what)
{
	return scenario_fail(scenario,
			     "%s at the %s end of connection %u: %llu of %llu bytes",
			     what, side_names[end->is_far ? FAR : CLIENT],
			     end->connection, (unsigned long long)end->n_received,
			     (unsigned long long)end->source->n_sent);
}

/* The upstream */

/* What a stranger has to say. Returns whether it is none any more, or -1. */
static int meet_stranger(struct scenario *scenario, int fd)
{
	struct connection_ends *connection;
	uint8_t byte;
	ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n <= 0) {
		scenario->n_abandoned++;
		(void)close(fd);
		return 1;
	}
	connection = &scenario->connections[end_byte_connection(byte)];
	if (connection->ends[FAR].fd >= 0 || connection->ends[FAR].state != END_OPEN) {
		(void)close(fd);
		return scenario_fail_at(scenario, &connection->ends[FAR],
					"a second upstream connection with bytes");
	}
	connection->ends[FAR].fd = fd;
	return 1;
}

static int run_upstream(struct scenario *scenario)
{
	const unsigned n_max =
		sizeof(scenario->strangers) / sizeof(scenario->strangers[0]);
	int r;

	while (scenario->n_strangers < n_max) {
		int fd = accept4(scenario->upstream_fd, NULL, NULL, SOCK_CLOEXEC);

		if (fd < 0)
			break;
		scenario->strangers[scenario->n_strangers++] = fd;
	}
	for (unsigned i = 0; i < scenario->n_strangers;) {
		r = meet_stranger(scenario, scenario->strangers[i]);
		if (r < 0)
			return r;
		if (r > 0)
			scenario->strangers[i] =
				scenario->strangers[--scenario->n_strangers];
		else
			i++;
	}
	return 0;
}

/* What was logged */

static int take_entry(void *userdata, const uint8_t *bytes, unsigned n)
{
	struct scenario *scenario = userdata;
	struct end *end = &scenario->connections[end_byte_connection(bytes[0])].ends[FAR];

	if (end_take(end, bytes, n) < 0)
		return scenario_fail_at(scenario, end, "an entry with wrong bytes");
	scenario->n_repeated = 0;
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		scenario->n_repeated +=
			(unsigned)scenario->connections[i].ends[FAR].n_repeated;
	if (scenario->n_repeated > scenario->service->n_kills)
		return scenario_fail_at(scenario, end,
					"an entry once more without a kill");
	return 0;
}

/* All ends together */

bool exchange_is_refused(const struct scenario *scenario, const struct end *client)
{
	const struct connection_ends *ends = &scenario->connections[client->connection];

	return scenario->is_opening && !client->is_far && client->state != END_OPEN &&
	       client->n_received == 0 && ends->ends[FAR].n_received == 0 &&
	       (scenario->may_reset ||
		scenario->service->n_unprotected_kills > scenario->n_refused);
}

static int end_was_reset(struct scenario *scenario, struct end *end)
{
	struct connection_ends *connection = &scenario->connections[end->connection];

	if (end->source->is_aborted ||
	    (scenario->kind != SCENARIO_RELAY && end->is_aborted))
		return 0;
	if (!scenario->may_reset)
		return scenario_fail_at(scenario, end, "reset");
	if (!connection->is_lost)
		scenario->n_lost++;
	connection->is_lost = true;
	return 0;
}

static int end_look(struct scenario *scenario, struct end *end)
{
	int r = end_receive(end);

	if (r < 0)
		return scenario_fail_at(scenario, end, "a wrong byte");
	if (r == 0 || end->state == END_OPEN || exchange_is_refused(scenario, end))
		return r;
	if (end->state == END_RESET)
		return end_was_reset(scenario, end) < 0 ? -1 : 1;
	if (!end->source->is_shut || end->n_received < end->source->n_sent)
		return scenario_fail_at(scenario, end, "an early end");
	return 1;
}

int exchange_once(struct scenario *scenario)
{
	bool has_moved = false;

	if (run_upstream(scenario) < 0)
		return -1;
	if (scenario->kind == SCENARIO_LOG &&
	    entries_read(scenario->service->said_fd, &scenario->said_offset, take_entry,
			 scenario) < 0)
		return -1;
	for (unsigned i = 0; i < CONNECTIONS_MAX * SIDES; i++) {
		struct end *end = &scenario->connections[i / SIDES].ends[i % SIDES];
		int r;

		if (end->fd < 0)
			continue;
		has_moved |= end_send(end);
		if (end->has_failed && end->state == END_OPEN) {
			end->state = END_RESET;
			if (!exchange_is_refused(scenario, end) &&
			    end_was_reset(scenario, end) < 0)
				return -1;
		}
		r = end->is_reading ? end_look(scenario, end) : 0;
		if (r < 0)
			return r;
		has_moved |= r > 0;
	}
	return has_moved;
}

int exchange_settle(struct scenario *scenario)
{
	int r = service_settle(scenario->service);

	if (r == -ETIMEDOUT)
		return scenario_fail(scenario, "no rest");
	return r < 0 ? scenario_fail(scenario, "the service: %s", strerror(-r)) : 0;
}

int exchange_until(struct scenario *scenario,
		   bool (*is_done)(const struct scenario *scenario,
				   const struct end *end),
		   const struct end *end)
{
	for (;;) {
		int r = exchange_once(scenario);

		if (r < 0 || exchange_settle(scenario) < 0)
			return -1;
		if (is_done(scenario, end) ||
		    scenario->connections[end->connection].is_lost)
			return 0;
		if (r > 0)
			continue;
		if (time_now_usec() > scenario->service->deadline_usec)
			return scenario_fail_at(scenario, end, "nothing moves");
		(void)usleep(200); /* a timer of the service's, or TCP's, is to come */
	}
}

int exchange_all(struct scenario *scenario)
{
	int r;

	do {
		r = exchange_once(scenario);
		if (r < 0 || exchange_settle(scenario) < 0)
			return -1;
	} while (r > 0);
	return 0;
}
