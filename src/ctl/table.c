/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/utf8.h"

#define HEADER_BEGIN "\x1b[0;1;4m"
#define HEADER_END "\x1b[0m"

struct cell {
	char *text;
	size_t n_characters;
	bool is_right_aligned;
};

struct table {
	size_t n_columns;
	size_t *widths;
	struct cell *cells;
	size_t n_cells;
	size_t n_allocated;
};

struct table *table_new(size_t n_columns)
{
	struct table *table = calloc(1, sizeof(*table));

	if (!table)
		return NULL;
	table->n_columns = n_columns;
	table->widths = calloc(n_columns, sizeof(*table->widths));
	return table->widths ? table : table_free(table);
}

struct table *table_free(struct table *table)
{
	if (!table)
		return NULL;
	for (size_t i = 0; i < table->n_cells; i++)
		free(table->cells[i].text);
	free(table->cells);
	free(table->widths);
	free(table);
	return NULL;
}

static int copy(const char *text, struct cell *cell)
{
	size_t size = strlen(text) + 1;

	cell->text = malloc(size);
	if (!cell->text)
		return -ENOMEM;
	cell->n_characters = utf8_copy_printable(text, size, cell->text);
	return 0;
}

static int make_room(struct table *table)
{
	size_t n = table->n_allocated ? 2 * table->n_allocated : 8 * table->n_columns;
	struct cell *cells;

	if (table->n_cells < table->n_allocated)
		return 0;
	cells = reallocarray(table->cells, n, sizeof(*cells));
	if (!cells)
		return -ENOMEM;
	table->cells = cells;
	table->n_allocated = n;
	return 0;
}

int table_add(struct table *table, const char *text, bool is_right_aligned)
{
	struct cell cell = {.is_right_aligned = is_right_aligned};
	size_t *width = &table->widths[table->n_cells % table->n_columns];
	int r;

	r = make_room(table);
	if (r == 0)
		r = copy(*text ? text : "-", &cell);
	if (r < 0)
		return r;
	if (cell.n_characters > *width)
		*width = cell.n_characters;
	table->cells[table->n_cells++] = cell;
	return 0;
}

static void put_spaces(char **end, size_t n)
{
	memset(*end, ' ', n);
	*end += n;
}

/* A line without an end, in as many bytes as it may have; the caller's. */
static char *make_line(const struct table *table, size_t row)
{
	const struct cell *cells = &table->cells[row * table->n_columns];
	size_t size = 1;
	char *line, *end;

	for (size_t i = 0; i < table->n_columns; i++)
		size += table->widths[i] + strlen(cells[i].text) + 1;
	line = end = malloc(size);
	if (!line)
		return NULL;
	for (size_t i = 0; i < table->n_columns; i++) {
		size_t n_spaces = table->widths[i] - cells[i].n_characters;

		if (i > 0)
			put_spaces(&end, 1);
		if (cells[i].is_right_aligned)
			put_spaces(&end, n_spaces);
		end = stpcpy(end, cells[i].text);
		if (!cells[i].is_right_aligned && i + 1 < table->n_columns)
			put_spaces(&end, n_spaces);
	}
	*end = '\0';
	return line;
}

static void cut_off(char *line, size_t width)
{
	for (size_t n = 0; *line; n++) {
		if (n == width) {
			*line = '\0';
			return;
		}
		/* copy() has left nothing invalid */
		line += utf8_length(line);
	}
}

static void print_row(const struct table *table, size_t row,
		      const struct table_look *look, FILE *file)
{
	bool is_header = row == 0 && look->has_color;
	char *line = make_line(table, row);

	if (!line)
		return;
	if (look->width > 0)
		cut_off(line, look->width);
	(void)fprintf(file, "%s%s%s\n", is_header ? HEADER_BEGIN : "", line,
		      is_header ? HEADER_END : "");
	free(line);
}

void table_print(const struct table *table, const struct table_look *look, FILE *file)
{
	size_t n_rows = table->n_cells / table->n_columns;

	if (look->n_rows_max > 0 && n_rows > look->n_rows_max + 1)
		n_rows = look->n_rows_max + 1;
	for (size_t row = look->has_header ? 0 : 1; row < n_rows; row++)
		print_row(table, row, look, file);
}
