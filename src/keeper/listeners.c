/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper/listeners.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"

int listeners_add(struct listeners *listeners, const char *text)
{
	struct listener *listener = &listeners->all[listeners->n];
	int r;

	if (listeners->n == LISTENERS_MAX)
		return -E2BIG;
	r = address_parse(text, &listener->address);
	if (r < 0)
		return r;
	listener->text = text;
	fd_name_from_text(text, listener->name);
	listeners->n++;
	return 0;
}

void listeners_set_name(struct listeners *listeners, const char *name)
{
	size_t i;

	for (i = 0; i < listeners->n; i++)
		fd_name_from_text(name, listeners->all[i].name);
}

int listeners_open(struct listeners *listeners, sd_event *event,
		   sd_event_io_handler_t handler, void *userdata)
{
	struct listener *listener;
	int r;

	for (; listeners->n_open < listeners->n; listeners->n_open++) {
		_cleanup_close_ int fd = -EBADF;

		listener = &listeners->all[listeners->n_open];
		fd = address_listen(&listener->address);
		if (fd < 0)
			return fd;
		r = sd_event_add_io(event, &listener->source, fd, EPOLLIN, handler,
				    userdata);
		if (r >= 0)
			r = sd_event_source_set_enabled(listener->source, SD_EVENT_OFF);
		if (r < 0) {
			listener->source = sd_event_source_unref(listener->source);
			return r;
		}
		listener->fd = take_fd(&fd);
	}
	return 0;
}

int listeners_watch(struct listeners *listeners, bool is_on)
{
	size_t i;
	int r = 0;

	for (i = 0; i < listeners->n_open && r >= 0; i++)
		r = sd_event_source_set_enabled(listeners->all[i].source,
						is_on ? SD_EVENT_ON : SD_EVENT_OFF);
	return r;
}

size_t listeners_names_size(const struct listeners *listeners)
{
	size_t i, size = 0;

	for (i = 0; i < listeners->n; i++)
		size += strlen(listeners->all[i].name) + 1;
	return size;
}

void listeners_done(struct listeners *listeners)
{
	struct listener *listener;

	while (listeners->n_open > 0) {
		listener = &listeners->all[--listeners->n_open];
		listener->source = sd_event_source_disable_unref(listener->source);
		listener->fd = fd_close(listener->fd);
	}
}
