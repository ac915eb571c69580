/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verbs of holdfastctl, a file each. */
#pragma once

enum status {
	STATUS_FAILURE = 1, /* the instance can't be asked, or has refused */
	STATUS_USAGE = 2,
};

/* What the command line asks for. All of it is argv's. */
struct request {
	const char *instance; /* as people name it, for what is said: INSTANCE or PATH */
	const char *socket_path;
	char **command_line; /* what follows "--", ends in NULL; NULL: there is no "--" */
};

/* Each asks the instance, says what has come of it, and returns the exit status. */
int verb_takeover(const struct request *request);
