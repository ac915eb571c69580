/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/upstream.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>

#include "base/leisure.h"
#include "base/log.h"
#include "holdfastd/messages.h"

struct upstream {
	struct address address;
	char name[ADDRESS_HOST_SIZE + ADDRESS_PORT_SIZE + 4];
	void (*changed)(void *userdata);
	void *userdata;

	pthread_mutex_t lock;
	pthread_cond_t wanted;
	bool refresh;
	enum upstream_state state;
	struct upstream_list *list;
};

static void set_path(const char *path, struct upstream_list *list)
{
	struct sockaddr_un *address = (void *)&list->addresses[0].address;

	address->sun_family = AF_UNIX;
	memcpy(address->sun_path, path, strlen(path) + 1);
	list->addresses[0].length = sizeof(*address);
	list->n = 1;
}

static void set_addresses(const struct addrinfo *found, struct upstream_list *list)
{
	for (; found && list->n < UPSTREAM_ADDRESSES_MAX; found = found->ai_next) {
		struct upstream_address *address = &list->addresses[list->n++];

		memcpy(&address->address, found->ai_addr, found->ai_addrlen);
		address->length = found->ai_addrlen;
	}
}

/* Returns 0 or a code for gai_strerror(). */
static int resolve(const struct address *address, int flags, struct upstream_list *list)
{
	struct addrinfo hints = {
		.ai_flags = AI_NUMERICSERV | flags,
		.ai_socktype = SOCK_STREAM,
	};
	struct addrinfo *found;
	int r;

	if (address->is_path) {
		set_path(address->host, list);
		return 0;
	}
	r = getaddrinfo(address->host, address->port, &hints, &found);
	if (r != 0)
		return r;
	set_addresses(found, list);
	freeaddrinfo(found);
	return 0;
}

static struct upstream_list *list_new(void)
{
	struct upstream_list *list = calloc(1, sizeof(*list));

	if (list)
		list->n_references = 1;
	return list;
}

struct upstream_list *upstream_list_unref(struct upstream_list *list)
{
	if (list && atomic_fetch_sub(&list->n_references, 1) == 1)
		free(list);
	return NULL;
}

static void publish(struct upstream *upstream, struct upstream_list *list,
		    enum upstream_state state)
{
	struct upstream_list *old = NULL;
	bool changed;

	pthread_mutex_lock(&upstream->lock);
	if (list) {
		old = upstream->list;
		upstream->list = list;
	}
	changed = upstream->state != state;
	upstream->state = state;
	pthread_mutex_unlock(&upstream->lock);
	(void)upstream_list_unref(old);
	if (changed && upstream->changed)
		upstream->changed(upstream->userdata);
}

static void resolve_and_publish(struct upstream *upstream)
{
	struct upstream_list *list = list_new();
	struct log_entry *line;
	int r = list ? resolve(&upstream->address, AI_ADDRCONFIG, list) : EAI_MEMORY;

	if (r == 0) {
		publish(upstream, list, UPSTREAM_RESOLVED);
		return;
	}
	(void)upstream_list_unref(list);
	/* What was known before may still be right: a resolver that fails drops nobody */
	if (upstream_get_state(upstream) == UPSTREAM_RESOLVED)
		return;
	line = log_line_new(LOG_WARNING, MESSAGE_UPSTREAM_NAME);
	log_entry_add(line, "HOLDFAST_UPSTREAM=%s", upstream->name);
	log_line_send(line, "Upstream %s can't be resolved: %s; trying again",
		      upstream->name, gai_strerror(r));
	publish(upstream, NULL, UPSTREAM_FAILED);
}

static void wait_for_next(struct upstream *upstream, time_t seconds)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&upstream->lock);
	while (!upstream->refresh)
		if (pthread_cond_timedwait(&upstream->wanted, &upstream->lock, &until) !=
		    0)
			break;
	upstream->refresh = false;
	pthread_mutex_unlock(&upstream->lock);
}

static void *upstream_thread(void *userdata)
{
	struct upstream *upstream = userdata;
	time_t delay = 1;

	leisure_end();
	for (;;) {
		struct timespec least = {.tv_sec = 1};

		resolve_and_publish(upstream);
		if (upstream_get_state(upstream) == UPSTREAM_RESOLVED)
			delay = UPSTREAM_REFRESH_SEC;
		else if (delay < UPSTREAM_REFRESH_SEC / 2)
			delay *= 2;
		/* However often a failing upstream asks for it, the name server gets one
		 * a second */
		(void)nanosleep(&least, NULL);
		wait_for_next(upstream, delay);
	}
	return NULL;
}

static int start_thread(struct upstream *upstream)
{
	pthread_t thread;
	int r = pthread_create(&thread, NULL, upstream_thread, upstream);

	if (r > 0)
		return -r;
	(void)pthread_setname_np(thread, "resolver");
	(void)pthread_detach(thread);
	return 0;
}

static void upstream_init(struct upstream *upstream, const struct address *address)
{
	pthread_condattr_t attributes;
	bool bracket = strchr(address->host, ':') != NULL;

	upstream->address = *address;
	if (address->is_path)
		(void)snprintf(upstream->name, sizeof(upstream->name), "%s",
			       address->host);
	else
		(void)snprintf(upstream->name, sizeof(upstream->name),
			       bracket ? "[%s]:%s" : "%s:%s", address->host,
			       address->port);
	pthread_mutex_init(&upstream->lock, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&upstream->wanted, &attributes);
	pthread_condattr_destroy(&attributes);
}

int upstream_new(const struct address *address, void (*changed)(void *userdata),
		 void *userdata, struct upstream **ret_upstream)
{
	struct upstream *upstream = calloc(1, sizeof(*upstream));
	struct upstream_list *list = list_new();
	int r = 0;

	if (!upstream || !list) {
		free(upstream);
		free(list);
		return -ENOMEM;
	}
	upstream_init(upstream, address);
	/* A number or a path needs no name server, and no thread */
	if (resolve(address, AI_NUMERICHOST, list) == 0) {
		publish(upstream, list, UPSTREAM_RESOLVED);
	} else {
		(void)upstream_list_unref(list);
		upstream->changed = changed;
		upstream->userdata = userdata;
		r = start_thread(upstream);
	}
	if (r < 0) {
		free(upstream);
		return r;
	}
	*ret_upstream = upstream;
	return 0;
}

enum upstream_state upstream_get_state(struct upstream *upstream)
{
	enum upstream_state state;

	pthread_mutex_lock(&upstream->lock);
	state = upstream->state;
	pthread_mutex_unlock(&upstream->lock);
	return state;
}

struct upstream_list *upstream_get(struct upstream *upstream)
{
	struct upstream_list *list;

	pthread_mutex_lock(&upstream->lock);
	list = upstream->list;
	if (list)
		atomic_fetch_add(&list->n_references, 1);
	pthread_mutex_unlock(&upstream->lock);
	return list;
}

void upstream_refresh(struct upstream *upstream)
{
	pthread_mutex_lock(&upstream->lock);
	upstream->refresh = true;
	pthread_cond_signal(&upstream->wanted);
	pthread_mutex_unlock(&upstream->lock);
}

const char *upstream_name(const struct upstream *upstream)
{
	return upstream->name;
}
