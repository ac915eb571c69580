/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scenario.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "exchange.h"
#include "steps.h"

/* Times that a client tries to get through where calls fail. */
#define ATTEMPTS_MAX 5

/* Sockets */

/* IPV4:PORT; what is none leads to an error when it is used. */
static struct sockaddr_in address_parse(const char *text)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	char host[64];
	uint16_t port;

	if (sscanf(text, "%63[^:]:%" SCNu16, host, &port) == 2 &&
	    inet_pton(AF_INET, host, &address.sin_addr) == 1)
		address.sin_port = htons(port);
	return address;
}

static int connect_to(const char *text)
{
	const struct sockaddr_in address = address_parse(text);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	/* Blocking: the listener lives on, whatever becomes of the service */
	if (fd >= 0 &&
	    connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		fd = fd_close(fd);
	return fd;
}

int scenario_init(struct scenario *scenario, enum scenario_kind kind,
		  const char *upstream_address)
{
	const struct sockaddr_in address = address_parse(upstream_address);
	const int yes = 1;
	_cleanup_close_ int fd =
		socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	*scenario = (struct scenario){.kind = kind, .upstream_fd = -EBADF};
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &yes, sizeof(yes)) < 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, 64) < 0)
		return -errno;
	scenario->upstream_fd = take_fd(&fd);
	return 0;
}

void scenario_done(struct scenario *scenario)
{
	scenario->upstream_fd = fd_close(scenario->upstream_fd);
}

/* What a step waits for */

static bool has_all(const struct scenario *scenario, const struct end *end)
{
	(void)scenario;
	return end->n_received == end->source->n_wanted;
}

static bool has_ended(const struct scenario *scenario, const struct end *end)
{
	(void)scenario;
	return end->state != END_OPEN;
}

static bool has_all_or_is_refused(const struct scenario *scenario, const struct end *end)
{
	return has_all(scenario, end) ||
	       exchange_is_refused(scenario, end->is_far ? end->source : end);
}

/* Steps */

static void connection_init(struct scenario *scenario, unsigned index)
{
	struct connection_ends *connection = &scenario->connections[index];
	struct end *client = &connection->ends[CLIENT], *far = &connection->ends[FAR];
	const bool is_echo = scenario->kind == SCENARIO_ECHO;

	*connection = (struct connection_ends){0};
	*client = (struct end){
		.fd = -EBADF,
		.connection = index,
		.source = is_echo ? client : far,
	};
	*far = (struct end){
		.fd = -EBADF,
		.connection = index,
		.is_far = true,
		.source = client,
	};
}

static void connection_close(struct connection_ends *connection)
{
	for (unsigned i = 0; i < SIDES; i++) {
		end_close(&connection->ends[i]);
		connection->ends[i].is_reading = false;
	}
}

static int open_once(struct scenario *scenario, const struct step *step)
{
	struct connection_ends *connection = &scenario->connections[step->connection];
	struct end *client = &connection->ends[CLIENT], *far = &connection->ends[FAR];
	const int yes = 1;
	int r;

	connection_init(scenario, step->connection);
	client->fd = connect_to(scenario->service_address);
	if (client->fd < 0)
		return scenario_fail(scenario, "can't connect: %s", strerror(errno));
	(void)setsockopt(client->fd, SOL_SOCKET, SO_OOBINLINE, &yes, sizeof(yes));
	client->n_wanted = step->n_bytes;
	client->is_reading = far->is_reading = true;
	r = exchange_until(scenario, has_all_or_is_refused,
			   scenario->kind == SCENARIO_ECHO ? client : far);
	client->is_reading = far->is_reading = false;
	return r;
}

static int step_open(struct scenario *scenario, const struct step *step)
{
	struct end *client = &scenario->connections[step->connection].ends[CLIENT];

	for (unsigned attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
		int r;

		scenario->is_opening = true;
		r = open_once(scenario, step);
		if (r < 0 || !exchange_is_refused(scenario, client)) {
			scenario->is_opening = false;
			return r;
		}
		scenario->n_refused++;
		client->fd = fd_close(client->fd);
	}
	return scenario_fail(scenario, "refused again and again");
}

static int step_send(struct scenario *scenario, const struct step *step)
{
	struct end *end = &scenario->connections[step->connection].ends[step->side];

	end->n_wanted += step->n_bytes;
	if (step->operation == URGENT)
		end->urgent_at = ++end->n_wanted;
	if (exchange_all(scenario) < 0)
		return -1;
	if (step->operation == BLOCK && end->n_sent == end->n_wanted)
		return scenario_fail_at(scenario, end->source, "all went out");
	return 0;
}

static int step_await(struct scenario *scenario, const struct step *step,
		      bool (*is_done)(const struct scenario *scenario,
				      const struct end *end))
{
	struct end *end = &scenario->connections[step->connection].ends[step->side];
	int r;

	end->is_reading = true;
	r = exchange_until(scenario, is_done, end);
	end->is_reading = false;
	return r;
}

static int step_expect_end(struct scenario *scenario, const struct step *step)
{
	struct connection_ends *connection = &scenario->connections[step->connection];
	const struct end *end = &connection->ends[step->side];

	if (step_await(scenario, step, has_ended) < 0)
		return -1;
	if (end->state == END_EOF || connection->is_lost)
		return scenario->kind == SCENARIO_LOG
			       ? exchange_until(scenario, has_all, &connection->ends[FAR])
			       : 0;
	return scenario_fail_at(scenario, end, "a reset and no end");
}

static int step_expect_reset(struct scenario *scenario, const struct step *step)
{
	const struct end *end = &scenario->connections[step->connection].ends[step->side];

	if (step_await(scenario, step, has_ended) < 0)
		return -1;
	if (!has_all(scenario, end) && !scenario->may_reset)
		return scenario_fail_at(scenario, end, "reset before the last byte");
	return 0;
}

static int step_shut(struct scenario *scenario, const struct step *step)
{
	struct connection_ends *connection = &scenario->connections[step->connection];

	end_shut(&connection->ends[step->side]);
	/* A log has nothing to say but that it has heard the end */
	if (scenario->kind == SCENARIO_LOG)
		connection->ends[FAR].is_shut = true;
	return exchange_all(scenario);
}

static int step_kill(struct scenario *scenario)
{
	int r = service_kill(scenario->service);

	return r < 0 ? scenario_fail(scenario, "after the kill: %s", strerror(-r)) : 0;
}

/* One side of a connection was reset because of a failing call: so is the other one. */
static int step_lost(struct scenario *scenario, struct connection_ends *connection)
{
	for (unsigned i = 0; i < SIDES; i++) {
		struct end *end = &connection->ends[i];
		int r = 0;

		while (r >= 0 && end->fd >= 0 && end->state == END_OPEN) {
			end->is_reading = true;
			r = exchange_once(scenario);
			if (r >= 0)
				r = exchange_settle(scenario);
			if (time_now_usec() > scenario->service->deadline_usec)
				return scenario_fail_at(scenario, end,
							"the other side is reset, not this");
		}
		if (r < 0)
			return r;
	}
	connection_close(connection);
	return 0;
}

static int step_do(struct scenario *scenario, const struct step *step)
{
	switch (step->operation) {
	case OPEN:
		return step_open(scenario, step);
	case SEND:
	case BLOCK:
	case URGENT:
		return step_send(scenario, step);
	case READ:
		return step_await(scenario, step, has_all);
	case SHUT:
		return step_shut(scenario, step);
	case EXPECT_END:
		return step_expect_end(scenario, step);
	case RESET:
		end_abort(&scenario->connections[step->connection].ends[step->side]);
		return exchange_all(scenario);
	case EXPECT_RESET:
		return step_expect_reset(scenario, step);
	case CLOSE:
		connection_close(&scenario->connections[step->connection]);
		return exchange_all(scenario);
	case KILL:
		return step_kill(scenario);
	}
	return scenario_fail(scenario, "no such step");
}

static int step_run(struct scenario *scenario, const struct step *step)
{
	struct connection_ends *connection = &scenario->connections[step->connection];

	if (!connection->is_lost || step->operation == OPEN || step->operation == KILL) {
		if (step_do(scenario, step) < 0)
			return -1;
		return connection->is_lost ? step_lost(scenario, connection) : 0;
	}
	return 0;
}

int scenario_run(struct scenario *scenario, struct service *service)
{
	const struct script *script = &scripts[scenario->kind];
	int r;

	scenario->service = service;
	scenario->n_refused = scenario->n_lost = 0;
	scenario->n_repeated = scenario->n_abandoned = 0;
	scenario->said_offset = 0;
	scenario->is_opening = false;
	scenario->step = 0;
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		connection_init(scenario, i);
	r = exchange_settle(scenario);
	for (scenario->step = 1; r == 0 && scenario->step <= script->n;
	     scenario->step++) {
		r = step_run(scenario, &script->steps[scenario->step - 1]);
		if (r < 0)
			break;
	}
	for (unsigned i = 0; i < CONNECTIONS_MAX; i++)
		connection_close(&scenario->connections[i]);
	while (scenario->n_strangers > 0)
		(void)close(scenario->strangers[--scenario->n_strangers]);
	return r;
}
