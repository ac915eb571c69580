/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "generator/environment.h"

#include <string.h>

#define BLANKS " \t\n\r"
#define NEWLINES "\n\r"
#define COMMENTS "#;"
/* What a backslash takes the meaning from within double quotes. */
#define ESCAPED "\"\\`$"

enum place {
	BEFORE_NAME,
	IN_NAME,
	BEFORE_VALUE, /* or after a quote that was closed */
	IN_VALUE,
	IN_VALUE_ESCAPE,
	IN_SINGLE_QUOTES,
	IN_DOUBLE_QUOTES,
	IN_DOUBLE_QUOTES_ESCAPE,
	IN_COMMENT,
};

struct reader {
	const char *name; /* the one that is looked for */
	enum place place;
	const char *word; /* where the present line's name began */
	bool matches;     /* the present line assigns to name */
	bool found;
	char *value;
	size_t n, size;
};

/* strchr() finds the zero too */
static bool is_one_of(char c, const char *set)
{
	return c != '\0' && strchr(set, c) != NULL;
}

static void add(struct reader *reader, char c)
{
	if (reader->matches && reader->n + 1 < reader->size)
		reader->value[reader->n++] = c;
}

static void read_before_name(struct reader *reader, const char *at)
{
	reader->matches = false;
	if (is_one_of(*at, COMMENTS)) {
		reader->place = IN_COMMENT;
	} else if (!is_one_of(*at, BLANKS)) {
		reader->place = IN_NAME;
		reader->word = at;
	}
}

static void read_in_name(struct reader *reader, const char *at)
{
	size_t length = strlen(reader->name), given = (size_t)(at - reader->word);

	if (is_one_of(*at, NEWLINES)) {
		reader->place = BEFORE_NAME;
		return;
	}
	if (*at != '=')
		return;
	while (given > 0 && is_one_of(reader->word[given - 1], BLANKS))
		given--;
	reader->place = BEFORE_VALUE;
	if (given != length || memcmp(reader->word, reader->name, length) != 0)
		return;
	reader->matches = reader->found = true;
	reader->n = 0;
}

static void read_before_value(struct reader *reader, char c)
{
	if (is_one_of(c, NEWLINES)) {
		reader->place = BEFORE_NAME;
	} else if (c == '\'') {
		reader->place = IN_SINGLE_QUOTES;
	} else if (c == '"') {
		reader->place = IN_DOUBLE_QUOTES;
	} else if (c == '\\') {
		reader->place = IN_VALUE_ESCAPE;
	} else if (!is_one_of(c, BLANKS)) {
		reader->place = IN_VALUE;
		add(reader, c);
	}
}

static void read_in_value(struct reader *reader, char c)
{
	if (is_one_of(c, NEWLINES))
		reader->place = BEFORE_NAME;
	else if (c == '\\')
		reader->place = IN_VALUE_ESCAPE;
	else
		add(reader, c);
}

static void read_in_value_escape(struct reader *reader, char c)
{
	reader->place = IN_VALUE;
	if (!is_one_of(c, NEWLINES))
		add(reader, c);
}

static void read_in_single_quotes(struct reader *reader, char c)
{
	if (c == '\'')
		reader->place = BEFORE_VALUE;
	else
		add(reader, c);
}

static void read_in_double_quotes(struct reader *reader, char c)
{
	if (c == '"')
		reader->place = BEFORE_VALUE;
	else if (c == '\\')
		reader->place = IN_DOUBLE_QUOTES_ESCAPE;
	else
		add(reader, c);
}

static void read_in_double_quotes_escape(struct reader *reader, char c)
{
	reader->place = IN_DOUBLE_QUOTES;
	if (!is_one_of(c, ESCAPED "\n"))
		add(reader, '\\');
	if (c != '\n')
		add(reader, c);
}

static void read_one(struct reader *reader, const char *at)
{
	switch (reader->place) {
	case BEFORE_NAME:
		read_before_name(reader, at);
		break;
	case IN_NAME:
		read_in_name(reader, at);
		break;
	case BEFORE_VALUE:
		read_before_value(reader, *at);
		break;
	case IN_VALUE:
		read_in_value(reader, *at);
		break;
	case IN_VALUE_ESCAPE:
		read_in_value_escape(reader, *at);
		break;
	case IN_SINGLE_QUOTES:
		read_in_single_quotes(reader, *at);
		break;
	case IN_DOUBLE_QUOTES:
		read_in_double_quotes(reader, *at);
		break;
	case IN_DOUBLE_QUOTES_ESCAPE:
		read_in_double_quotes_escape(reader, *at);
		break;
	case IN_COMMENT:
		if (is_one_of(*at, NEWLINES))
			reader->place = BEFORE_NAME;
		break;
	}
}

bool environment_find(const char *text, size_t size, const char *name, char *ret_value,
		      size_t value_size)
{
	struct reader reader = {.name = name, .value = ret_value, .size = value_size};

	for (size_t i = 0; i < size; i++)
		read_one(&reader, &text[i]);
	ret_value[reader.n] = '\0';
	return reader.found;
}
