/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/list.h"

#include <errno.h>
#include <stdio.h>

#include "base/plural.h"
#include "ctl/pager.h"
#include "ctl/verbs.h"

bool list_ask(const struct request *request, struct connection_rows *ret_rows)
{
	bool has_all = true;

	*ret_rows = (struct connection_rows){0};
	for (size_t i = 0; i < request->targets.n; i++)
		if (connections_list(&request->targets.list[i], ret_rows) < 0)
			has_all = false;
	connection_rows_sort(ret_rows, request->sort, request->reverse);
	return has_all;
}

static int add_row(struct table *table, const struct connection_row *row)
{
	char text[FORMAT_SIZE];
	int r = 0;

	for (size_t i = 0; i < n_columns && r == 0; i++)
		if (columns[i].is_in_list)
			r = table_add(table,
				      row ? column_format(&columns[i], row, text)
					  : columns[i].title,
				      columns[i].kind != COLUMN_TEXT);
	return r;
}

struct table *list_make_table(const struct connection_rows *rows, size_t n_max)
{
	struct table *table;
	size_t n = 0;
	int r;

	for (size_t i = 0; i < n_columns; i++)
		n += columns[i].is_in_list;
	table = table_new(n);
	r = table ? add_row(table, NULL) : -ENOMEM;
	for (size_t i = 0; i < rows->n && i < n_max && r == 0; i++)
		r = add_row(table, &rows->list[i]);
	return r < 0 ? table_free(table) : table;
}

static int print_table(const struct request *request, const struct connection_rows *rows)
{
	struct table_look look = {
		.has_header = !request->no_legend,
		.has_color = pager_has_color(),
	};
	struct table *table = list_make_table(rows, SIZE_MAX);

	if (!table)
		return -ENOMEM;
	if (!request->no_pager)
		pager_open();
	table_print(table, &look, stdout);
	if (!request->no_legend)
		(void)printf("\n%zu connection%s of %zu instance%s listed.\n", rows->n,
			     plural(rows->n), request->targets.n,
			     plural(request->targets.n));
	(void)table_free(table);
	return 0;
}

static void print_json(const struct request *request, const struct connection_rows *rows)
{
	struct json json = json_begin(stdout, request->json);

	if (!request->no_pager)
		pager_open();
	json_open_array(&json);
	for (size_t i = 0; i < rows->n; i++)
		connection_row_to_json(&rows->list[i], &json);
	json_close(&json);
	json_end(&json);
}

int verb_list(const struct request *request)
{
	struct connection_rows rows;
	bool was_well = list_ask(request, &rows);

	if (request->json != JSON_OFF) {
		print_json(request, &rows);
	} else if (print_table(request, &rows) < 0) {
		(void)fputs("holdfastctl: no memory\n", stderr);
		was_well = false;
	}
	connection_rows_done(&rows);
	return finish_output(was_well);
}
