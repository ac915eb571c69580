/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/connections.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/instance.h"
#include "ctl/instance.h"

/* ---- rows ---- */

static void row_done(struct connection_row *row)
{
	free(row->instance);
	free(row->service);
	free(row->peer);
	free(row->listener);
	free(row->upstream);
	free(row->state);
}

void connection_rows_done(struct connection_rows *rows)
{
	for (size_t i = 0; i < rows->n; i++)
		row_done(&rows->list[i]);
	free(rows->list);
	*rows = (struct connection_rows){0};
}

static struct connection_row *add(struct connection_rows *rows)
{
	if (rows->n == rows->n_allocated) {
		size_t n = rows->n_allocated ? 2 * rows->n_allocated : 64;
		struct connection_row *list = reallocarray(rows->list, n, sizeof(*list));

		if (!list)
			return NULL;
		rows->list = list;
		rows->n_allocated = n;
	}
	rows->list[rows->n] = (struct connection_row){0};
	return &rows->list[rows->n++];
}

static int copy(char **ret_copy, const char *text)
{
	*ret_copy = strdup(text);
	return *ret_copy ? 0 : -ENOMEM;
}

/* The next INSTANCE_CONNECTION. */
static int read_row(sd_bus_message *message, const char *instance,
		    struct connection_row *row)
{
	const char *service, *peer, *listener, *upstream, *state;
	uint32_t n_restarts, worker;
	int r;

	r = sd_bus_message_read(message, INSTANCE_CONNECTION, &row->id, &service, &peer,
				&listener, &upstream, &row->age_usec, &row->idle_usec,
				&row->received, &row->sent, &row->pending_from,
				&row->pending_to, &n_restarts, &worker, &state);
	if (r < 0)
		return r;
	row->pending = row->pending_from + row->pending_to;
	row->n_restarts = n_restarts;
	row->worker = worker;
	if ((r = copy(&row->instance, instance)) < 0 ||
	    (r = copy(&row->service, service)) < 0 || (r = copy(&row->peer, peer)) < 0 ||
	    (r = copy(&row->listener, listener)) < 0 ||
	    (r = copy(&row->upstream, upstream)) < 0)
		return r;
	return copy(&row->state, state);
}

static int add_row(sd_bus_message *message, const char *instance,
		   struct connection_rows *rows)
{
	struct connection_row row = {0}, *added;
	int r = read_row(message, instance, &row);

	added = r < 0 ? NULL : add(rows);
	if (!added) {
		row_done(&row);
		return r < 0 ? r : -ENOMEM;
	}
	*added = row;
	return 0;
}

/* ---- asking ---- */

static int add_page(sd_bus_message *reply, const char *instance,
		    struct connection_rows *rows, uint32_t *ret_next)
{
	int r;

	if ((r = sd_bus_message_read(reply, "u", ret_next)) < 0 ||
	    (r = sd_bus_message_enter_container(reply, 'a',
						"(" INSTANCE_CONNECTION ")")) < 0)
		return r;
	while ((r = sd_bus_message_enter_container(reply, 'r', INSTANCE_CONNECTION)) >
	       0) {
		if ((r = add_row(reply, instance, rows)) < 0 ||
		    (r = sd_bus_message_exit_container(reply)) < 0)
			return r;
	}
	return r;
}

static int ask_page(sd_bus *bus, const struct target *target, uint32_t *next,
		    struct connection_rows *rows)
{
	sd_bus_message *call, *reply = NULL;
	uint32_t after = *next;
	int r;

	r = instance_make_call(bus, INSTANCE_INTERFACE, INSTANCE_LIST, &call);
	if (r < 0)
		return r;
	r = sd_bus_message_append(call, "uu", after, INSTANCE_PAGE_MAX);
	if (r >= 0)
		r = instance_call(call, target->name, INSTANCE_ANSWER_USEC, &reply);
	(void)sd_bus_message_unref(call);
	if (r < 0)
		return r;
	r = add_page(reply, target->name, rows, next);
	/* Else one that answers nonsense would be asked for ever */
	if (r >= 0 && *next != 0 && *next <= after)
		r = -EBADMSG;
	(void)sd_bus_message_unref(reply);
	return r < 0 ? instance_fail(target->name, "can't understand the answer", r) : 0;
}

int connections_list(const struct target *target, struct connection_rows *rows)
{
	uint32_t next = 0;
	sd_bus *bus;
	int r;

	r = instance_connect(target->path, INSTANCE_ANSWER_USEC, &bus);
	if (r < 0)
		return r;
	do
		r = ask_page(bus, target, &next, rows);
	while (r == 0 && next != 0);
	(void)sd_bus_close_unref(bus);
	return r;
}

int connections_get(const struct target *target, uint64_t id,
		    struct connection_rows *rows)
{
	sd_bus_message *reply = NULL;
	sd_bus *bus;
	int r;

	r = instance_connect(target->path, INSTANCE_ANSWER_USEC, &bus);
	if (r < 0)
		return r;
	r = instance_call_id(bus, target->name, INSTANCE_GET, id, NULL, &reply);
	if (r == 0) {
		r = add_row(reply, target->name, rows);
		if (r < 0)
			r = instance_fail(target->name, "can't understand the answer", r);
	}
	(void)sd_bus_message_unref(reply);
	(void)sd_bus_close_unref(bus);
	return r;
}

/* ---- columns ---- */

#define FIELD(field) offsetof(struct connection_row, field)

const struct column columns[] = {
	{"id", "ID", "Connection", "id", COLUMN_NUMBER, FIELD(id), true},
	{"instance", "INSTANCE", "Instance", "instance", COLUMN_TEXT, FIELD(instance),
	 true},
	{"service", "SERVICE", "Service", "service", COLUMN_TEXT, FIELD(service), true},
	{"peer", "PEER", "Peer", "peer", COLUMN_TEXT, FIELD(peer), true},
	{"listener", "LISTENER", "Listener", "listener", COLUMN_TEXT, FIELD(listener),
	 false},
	{"upstream", "UPSTREAM", "Upstream", "upstream", COLUMN_TEXT, FIELD(upstream),
	 true},
	{"age", "AGE", "Age", "age_usec", COLUMN_USEC, FIELD(age_usec), true},
	{"idle", "IDLE", "Idle for", "idle_usec", COLUMN_USEC, FIELD(idle_usec), false},
	{"received", "RECEIVED", "Received", "received_bytes", COLUMN_BYTES,
	 FIELD(received), true},
	{"sent", "SENT", "Sent", "sent_bytes", COLUMN_BYTES, FIELD(sent), true},
	{"pending", "PENDING", "Pending", "pending_bytes", COLUMN_BYTES, FIELD(pending),
	 true},
	{"pending-from", "FROM", "from the client", "pending_from_bytes", COLUMN_BYTES,
	 FIELD(pending_from), false},
	{"pending-to", "TO", "to the client", "pending_to_bytes", COLUMN_BYTES,
	 FIELD(pending_to), false},
	{"restarts", "RESTARTS", "Restarts survived", "restarts", COLUMN_NUMBER,
	 FIELD(n_restarts), true},
	{"worker", "WORKER", "Worker", "worker", COLUMN_NUMBER, FIELD(worker), false},
	{"state", "STATE", "State", "state", COLUMN_TEXT, FIELD(state), true},
};
const size_t n_columns = sizeof(columns) / sizeof(columns[0]);

const struct column *column_find(const char *name)
{
	for (size_t i = 0; i < n_columns; i++)
		if (strcmp(columns[i].name, name) == 0)
			return &columns[i];
	return NULL;
}

static const void *field_of(const struct column *column, const struct connection_row *row)
{
	return (const char *)row + column->offset;
}

static const char *text_of(const struct column *column, const struct connection_row *row)
{
	return *(char *const *)field_of(column, row);
}

static uint64_t number_of(const struct column *column, const struct connection_row *row)
{
	return *(const uint64_t *)field_of(column, row);
}

const char *column_format(const struct column *column, const struct connection_row *row,
			  char text[static FORMAT_SIZE])
{
	switch (column->kind) {
	case COLUMN_TEXT:
		return text_of(column, row);
	case COLUMN_USEC:
		return format_timespan(number_of(column, row), text);
	case COLUMN_BYTES:
		return format_bytes(number_of(column, row), text);
	case COLUMN_NUMBER:
		break;
	}
	(void)snprintf(text, FORMAT_SIZE, "%llu",
		       (unsigned long long)number_of(column, row));
	return text;
}

void connection_row_to_json(const struct connection_row *row, struct json *json)
{
	json_open_object(json);
	for (size_t i = 0; i < n_columns; i++) {
		json_name(json, columns[i].json);
		if (columns[i].kind == COLUMN_TEXT)
			json_string(json, text_of(&columns[i], row));
		else
			json_number(json, number_of(&columns[i], row));
	}
	json_close(json);
}

/* ---- order ---- */

struct order {
	const struct column *column;
	bool reverse;
};

static int compare_by(const struct column *column, const struct connection_row *a,
		      const struct connection_row *b)
{
	uint64_t x, y;

	/* As people count: 9 comes before 10 in names, too */
	if (column->kind == COLUMN_TEXT)
		return strverscmp(text_of(column, a), text_of(column, b));
	x = number_of(column, a);
	y = number_of(column, b);
	return x < y ? -1 : x > y;
}

static int compare(const void *a, const void *b, void *userdata)
{
	const struct order *order = userdata;
	int r = order->column ? compare_by(order->column, a, b) : 0;

	if (r == 0)
		r = compare_by(column_find("instance"), a, b);
	if (r == 0)
		r = compare_by(column_find("id"), a, b);
	return order->reverse ? -r : r;
}

void connection_rows_sort(struct connection_rows *rows, const struct column *column,
			  bool reverse)
{
	struct order order = {.column = column, .reverse = reverse};

	if (rows->n > 0)
		qsort_r(rows->list, rows->n, sizeof(*rows->list), compare, &order);
}
