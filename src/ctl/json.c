/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/json.h"

#include <assert.h>
#include <string.h>

#include "ctl/utf8.h"

struct json json_begin(FILE *file, enum json_mode mode)
{
	return (struct json){.file = file, .is_pretty = mode == JSON_PRETTY};
}

void json_end(struct json *json)
{
	assert(json->depth == 0);
	(void)fputc('\n', json->file);
}

static void new_line(struct json *json)
{
	if (!json->is_pretty)
		return;
	(void)fputc('\n', json->file);
	for (unsigned i = 0; i < json->depth; i++)
		(void)fputc('\t', json->file);
}

/* What comes before a value, or before the name of a member. */
static void separate(struct json *json)
{
	if (json->is_after_name) {
		json->is_after_name = false;
		return;
	}
	if (json->has_elements)
		(void)fputc(',', json->file);
	if (json->depth > 0)
		new_line(json);
	json->has_elements = true;
}

static void open(struct json *json, char begin, char end)
{
	assert(json->depth < JSON_DEPTH_MAX);
	separate(json);
	(void)fputc(begin, json->file);
	json->ends[json->depth++] = end;
	json->has_elements = false;
}

void json_open_array(struct json *json)
{
	open(json, '[', ']');
}

void json_open_object(struct json *json)
{
	open(json, '{', '}');
}

void json_close(struct json *json)
{
	bool has_elements = json->has_elements;

	assert(json->depth > 0);
	json->depth--;
	if (has_elements)
		new_line(json);
	(void)fputc(json->ends[json->depth], json->file);
	json->has_elements = true;
}

static void put_character(FILE *file, const char *text, size_t length)
{
	switch (*text) {
	case '"':
	case '\\':
		(void)fprintf(file, "\\%c", *text);
		break;
	case '\n':
		(void)fputs("\\n", file);
		break;
	case '\t':
		(void)fputs("\\t", file);
		break;
	default:
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			(void)fprintf(file, "\\u%04x", (unsigned)*text);
		else
			(void)fwrite(text, 1, length, file);
	}
}

static void put_string(FILE *file, const char *text)
{
	(void)fputc('"', file);
	while (*text) {
		size_t length = utf8_length(text);

		if (length > 0)
			put_character(file, text, length);
		else
			(void)fputs("\\ufffd", file);
		text += length > 0 ? length : 1;
	}
	(void)fputc('"', file);
}

void json_name(struct json *json, const char *name)
{
	separate(json);
	put_string(json->file, name);
	(void)fputs(json->is_pretty ? " : " : ":", json->file);
	json->is_after_name = true;
}

void json_string(struct json *json, const char *text)
{
	separate(json);
	put_string(json->file, text);
}

void json_number(struct json *json, uint64_t number)
{
	separate(json);
	(void)fprintf(json->file, "%llu", (unsigned long long)number);
}

void json_integer(struct json *json, int64_t number)
{
	separate(json);
	(void)fprintf(json->file, "%lld", (long long)number);
}

void json_bool(struct json *json, bool value)
{
	separate(json);
	(void)fputs(value ? "true" : "false", json->file);
}
