/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A table of text, whose columns are as wide as they have to be. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct table;

/* n_columns: the first row is the header. Returns NULL without memory. */
struct table *table_new(size_t n_columns);
struct table *table_free(struct table *table);

/*
 * Adds the next cell, row by row: text is copied, and what a terminal might take for more
 * than text is replaced; an empty one is shown as "-". Returns 0 or -ENOMEM.
 */
int table_add(struct table *table, const char *text, bool is_right_aligned);

struct table_look {
	bool has_header;
	bool has_color;
	size_t n_rows_max; /* 0: all; the header is none of them */
	size_t width;      /* 0: as wide as it is; else lines are cut off there */
};

void table_print(const struct table *table, const struct table_look *look, FILE *file);
