/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line of pause-client. */
#pragma once

#include <stdint.h>
#include <sys/socket.h>

#define CONNECTIONS_MAX 1000000

struct client_options {
	uint32_t n_connections;
	uint32_t n_active; /* at most n_connections */
	uint32_t message_bytes;
	uint64_t interval_usec;
	uint64_t run_usec; /* USEC_INFINITY without --seconds= */
	uint64_t timeout_usec;
	struct sockaddr_storage address;
	socklen_t address_bytes;
};

/* Returns 1 if the arguments make sense, 0 after --help, or -EINVAL after saying on
 * stderr what is wrong. */
int client_options_parse(int argc, char *argv[], struct client_options *ret_options);
