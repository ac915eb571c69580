/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <stdio.h>

#include "ctl/find.h"
#include "ctl/pager.h"
#include "ctl/utf8.h"
#include "ctl/verbs.h"

static void print(const struct connection_row *row)
{
	char text[FORMAT_SIZE];

	for (size_t i = 0; i < n_columns; i++) {
		const char *value = column_format(&columns[i], row, text);

		(void)printf("%17s: %s\n", columns[i].label,
			     *value ? PRINTABLE(value) : "-");
	}
}

int verb_show(const struct request *request)
{
	struct connection_rows rows;
	const struct target *target;
	int r;

	r = find_connection(request, &rows, &target);
	if (r == 0 && request->json == JSON_OFF) {
		print(&rows.list[0]);
	} else if (r == 0) {
		struct json json = json_begin(stdout, request->json);

		connection_row_to_json(&rows.list[0], &json);
		json_end(&json);
	}
	connection_rows_done(&rows);
	return finish_output(r == 0);
}
