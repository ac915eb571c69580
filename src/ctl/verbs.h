/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The verbs of holdfastctl, a file each. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ctl/json.h"
#include "ctl/targets.h"

struct column;

enum status {
	STATUS_FAILURE = 1, /* an instance can't be asked, or has refused */
	STATUS_USAGE = 2,
};

/* What the command line asks for. */
struct request {
	struct targets targets;
	uint64_t id;         /* of a connection; 0: none is named */
	char **command_line; /* argv's after "--", ends in NULL; NULL: there is no "--" */
	const struct column *sort; /* NULL: by instance and id */
	bool reverse;
	bool reset;
	bool all;
	bool no_legend;
	bool no_pager;
	enum json_mode json;
};

/*
 * Each asks the instances, says what has come of it, and returns the exit status. One
 * that does not answer is named on stderr, and the others are asked all the same.
 */
int verb_audit(const struct request *request);
int verb_close(const struct request *request);
int verb_list(const struct request *request);
int verb_metrics(const struct request *request);
int verb_show(const struct request *request);
int verb_status(const struct request *request);
int verb_takeover(const struct request *request);
int verb_watch(const struct request *request);

/* Flushes what was printed: the exit status, if all else was well or not. */
int finish_output(bool was_well);
