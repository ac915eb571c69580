/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "steps.h"

const char *const operation_names[] = {
	[OPEN] = "open",      [SEND] = "send",   [BLOCK] = "block",
	[URGENT] = "urgent",  [READ] = "read",   [SHUT] = "shut",
	[EXPECT_END] = "end", [RESET] = "reset", [EXPECT_RESET] = "expect-reset",
	[CLOSE] = "close",    [KILL] = "kill",
};

/* More than all buffers on the way hold, as the tests set them (crash_points.py). */
#define MUCH (256 * 1024)

/*
 * Before the kill: a whole life (3), and two connections (0, 1) that are left in the
 * middle of things. After it: their rest. What the kill has left sealed has more dead
 * than live entries then, and is swept.
 */
static const struct step relay_steps[] = {
	{OPEN, 3, CLIENT, 10},
	{SEND, 3, FAR, 10},
	{READ, 3, CLIENT},
	{SHUT, 3, CLIENT},
	{EXPECT_END, 3, FAR},
	{SEND, 3, FAR, 20},
	{READ, 3, CLIENT},
	{SHUT, 3, FAR},
	{EXPECT_END, 3, CLIENT},
	{CLOSE, 3},
	{OPEN, 2, CLIENT, 7},
	{SEND, 2, FAR, 5},
	{SEND, 2, CLIENT, 50},
	{RESET, 2, CLIENT},
	{EXPECT_RESET, 2, FAR},
	{CLOSE, 2},
	{OPEN, 0, CLIENT, 5},
	{OPEN, 1, CLIENT, 5},
	{SEND, 0, CLIENT, 100},
	{URGENT, 0, CLIENT},
	{SEND, 0, CLIENT, 100},
	{READ, 0, FAR},
	{BLOCK, 0, CLIENT, MUCH},
	{BLOCK, 0, FAR, MUCH},
	{SEND, 1, FAR, 30},
	{OPEN, 2, CLIENT, 9},
	{SHUT, 2, CLIENT},
	{KILL},
	{READ, 0, FAR},
	{READ, 0, CLIENT},
	{URGENT, 0, FAR},
	{SEND, 0, FAR, 50},
	{READ, 0, CLIENT},
	{SHUT, 0, CLIENT},
	{EXPECT_END, 0, FAR},
	{SEND, 0, FAR, 2000},
	{READ, 0, CLIENT},
	{SHUT, 0, FAR},
	{EXPECT_END, 0, CLIENT},
	{CLOSE, 0},
	{RESET, 1, FAR},
	{EXPECT_RESET, 1, CLIENT},
	{CLOSE, 1},
	{OPEN, 3, CLIENT, 3},
	{EXPECT_END, 2, FAR},
	{SHUT, 2, FAR},
	{EXPECT_END, 2, CLIENT},
	{CLOSE, 2},
	{RESET, 3, CLIENT},
	{EXPECT_RESET, 3, FAR},
	{CLOSE, 3},
	{OPEN, 0, CLIENT, 4},
};

static const struct step echo_steps[] = {
	{OPEN, 3, CLIENT, 10},
	{SHUT, 3, CLIENT},
	{EXPECT_END, 3, CLIENT},
	{CLOSE, 3},
	{OPEN, 2, CLIENT, 7},
	{RESET, 2, CLIENT},
	{CLOSE, 2},
	{OPEN, 0, CLIENT, 5},
	{OPEN, 1, CLIENT, 5},
	{SEND, 0, CLIENT, 100},
	{URGENT, 0, CLIENT},
	{SEND, 0, CLIENT, 100},
	{READ, 0, CLIENT},
	{BLOCK, 0, CLIENT, MUCH},
	{OPEN, 2, CLIENT, 9},
	{SEND, 2, CLIENT, 10},
	{KILL},
	{READ, 0, CLIENT},
	{URGENT, 0, CLIENT},
	{SEND, 0, CLIENT, 50},
	{READ, 0, CLIENT},
	{SHUT, 0, CLIENT},
	{EXPECT_END, 0, CLIENT},
	{CLOSE, 0},
	{RESET, 1, CLIENT},
	{CLOSE, 1},
	{OPEN, 3, CLIENT, 3},
	{SHUT, 2, CLIENT},
	{EXPECT_END, 2, CLIENT},
	{CLOSE, 2},
	{RESET, 3, CLIENT},
	{CLOSE, 3},
	{OPEN, 0, CLIENT, 4},
};

static const struct step log_steps[] = {
	{OPEN, 3, CLIENT, 10},
	{SHUT, 3, CLIENT},
	{EXPECT_END, 3, CLIENT},
	{CLOSE, 3},
	{OPEN, 2, CLIENT, 7},
	{RESET, 2, CLIENT},
	{CLOSE, 2},
	{OPEN, 0, CLIENT, 5},
	{OPEN, 1, CLIENT, 5},
	{SEND, 0, CLIENT, 30},
	{URGENT, 0, CLIENT},
	{SEND, 0, CLIENT, 3},
	{READ, 0, FAR},
	{OPEN, 2, CLIENT, 9},
	{SEND, 2, CLIENT, 10},
	{KILL},
	{READ, 2, FAR},
	{SEND, 0, CLIENT, 50},
	{READ, 0, FAR},
	{SHUT, 0, CLIENT},
	{EXPECT_END, 0, CLIENT},
	{CLOSE, 0},
	{RESET, 1, CLIENT},
	{CLOSE, 1},
	{OPEN, 3, CLIENT, 3},
	{SHUT, 2, CLIENT},
	{EXPECT_END, 2, CLIENT},
	{CLOSE, 2},
	{RESET, 3, CLIENT},
	{CLOSE, 3},
	{OPEN, 0, CLIENT, 4},
};

#define SCRIPT(name, steps)                                     \
	{                                                       \
		name, steps, sizeof(steps) / sizeof((steps)[0]) \
	}

const struct script scripts[SCENARIOS] = {
	[SCENARIO_ECHO] = SCRIPT("echo", echo_steps),
	[SCENARIO_RELAY] = SCRIPT("relay", relay_steps),
	[SCENARIO_LOG] = SCRIPT("log", log_steps),
};
