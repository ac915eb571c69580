/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Connections as instances tell of them, and the columns in which they are shown. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-bus.h>

#include "ctl/format.h"
#include "ctl/json.h"
#include "ctl/targets.h"

/* The strings are its own. */
struct connection_row {
	uint64_t id;
	char *instance;
	char *service;
	char *peer;
	char *listener;
	char *upstream; /* empty: none */
	uint64_t age_usec;
	uint64_t idle_usec;
	uint64_t received;
	uint64_t sent;
	uint64_t pending;
	uint64_t pending_from;
	uint64_t pending_to;
	uint64_t n_restarts;
	uint64_t worker;
	char *state;
};

struct connection_rows {
	struct connection_row *list;
	size_t n;
	size_t n_allocated;
};

void connection_rows_done(struct connection_rows *rows);

/*
 * Adds all connections of an instance, page by page. Returns 0, or a negative errno after
 * saying on stderr what fails; rows has then what came before.
 */
int connections_list(const struct target *target, struct connection_rows *rows);

/*
 * Adds connection id of an instance. Returns 0; -ENXIO, in silence, if there is none;
 * or another negative errno after saying what fails.
 */
int connections_get(const struct target *target, uint64_t id,
		    struct connection_rows *rows);

enum column_kind {
	COLUMN_TEXT,
	COLUMN_NUMBER,
	COLUMN_USEC,
	COLUMN_BYTES,
};

struct column {
	const char *name; /* for --sort= */
	const char *title;
	const char *label; /* in show */
	const char *json;
	enum column_kind kind;
	size_t offset;   /* in struct connection_row */
	bool is_in_list; /* else it is in show and JSON only */
};

extern const struct column columns[];
extern const size_t n_columns;

/* Returns NULL if there is none. */
const struct column *column_find(const char *name);

/* What a person is to read of it, which may be in text. */
const char *column_format(const struct column *column, const struct connection_row *row,
			  char text[static FORMAT_SIZE]);

/* Sorts by a column (NULL: instance and id), and by these two where it is the same. */
void connection_rows_sort(struct connection_rows *rows, const struct column *column,
			  bool reverse);

/* Writes one as an object. */
void connection_row_to_json(const struct connection_row *row, struct json *json);
