/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What peers do to each service, in which order. scenario.c does it. */
#pragma once

#include <stddef.h>

enum scenario_kind {
	SCENARIO_ECHO,
	SCENARIO_RELAY,
	SCENARIO_LOG,
	SCENARIOS,
};

enum side {
	CLIENT,
	FAR, /* of a relay: its upstream; of a log: what it has logged */
	SIDES,
};

enum operation {
	OPEN,         /* a client connects and says n bytes, which arrive */
	SEND,         /* what fits of n bytes more */
	BLOCK,        /* the same, and some must not fit */
	URGENT,       /* one byte more, as urgent */
	READ,         /* all bytes that were, or could not yet be, sent to this side */
	SHUT,         /* no more bytes */
	EXPECT_END,   /* after all bytes */
	RESET,        /* by this side */
	EXPECT_RESET, /* after all bytes */
	CLOSE,        /* both sides */
	KILL,         /* the process: the next one carries on */
};

struct step {
	enum operation operation;
	unsigned connection;
	enum side side;
	unsigned n_bytes;
};

struct script {
	const char *name; /* of the service */
	const struct step *steps;
	size_t n;
};

extern const struct script scripts[SCENARIOS];
extern const char *const operation_names[];
