/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Writes JSON, as libsystemd 252 has nothing public that would. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum json_mode {
	JSON_OFF,
	JSON_SHORT,  /* all in one line */
	JSON_PRETTY, /* for people */
};

#define JSON_DEPTH_MAX 8

struct json {
	FILE *file; /* borrowed; its errors are the caller's to see */
	bool is_pretty;
	unsigned depth;
	char ends[JSON_DEPTH_MAX];
	bool has_elements;  /* at this depth */
	bool is_after_name; /* the value of a member is next */
};

struct json json_begin(FILE *file, enum json_mode mode);

/* Ends the line. Everything that was opened has to be closed. */
void json_end(struct json *json);

void json_open_array(struct json *json);
void json_open_object(struct json *json);
void json_close(struct json *json);

/* The name of an object's member, whose value comes next. */
void json_name(struct json *json, const char *name);

/* text: what is no UTF-8 in it becomes U+FFFD. */
void json_string(struct json *json, const char *text);
void json_number(struct json *json, uint64_t number);
void json_integer(struct json *json, int64_t number);
void json_bool(struct json *json, bool value);
