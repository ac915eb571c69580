/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/control-private.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/instance.h"
#include "base/socket.h"

/* How long accepting rests after the kernel refused a resource. */
#define ACCEPT_RETRY_USEC USEC_PER_SEC

/* ---- clients ---- */

void control_client_end(struct control_client *client)
{
	client->has_ended = true;
	if (client->call)
		control_call_drop(client->call);
	/* These fail only for a source that is no such one, or without memory */
	(void)sd_event_source_set_enabled(client->idle, SD_EVENT_OFF);
	(void)sd_event_source_set_enabled(client->control->reaper, SD_EVENT_ONESHOT);
}

static struct control_client *client_free(struct control_client *client)
{
	if (client->call)
		control_call_drop(client->call);
	LIST_REMOVE(client, entry);
	client->control->n_clients--;
	(void)sd_event_source_disable_unref(client->idle);
	/* Not flushed, which would wait. Its floating slots go with it */
	(void)sd_bus_close_unref(client->bus);
	free(client);
	return NULL;
}

void control_client_touch(struct control_client *client)
{
	if (client->has_ended)
		return;
	if (sd_event_source_set_time_relative(client->idle, client->control->idle_usec) <
		    0 ||
	    sd_event_source_set_enabled(client->idle, SD_EVENT_ONESHOT) < 0)
		control_client_end(client);
}

static int on_idle(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct control_client *client = userdata;

	(void)source;
	(void)usec;
	if (client->call)
		control_client_touch(client);
	else
		control_client_end(client);
	return 0;
}

/* Sees every message first, and that of sd-bus that the peer has gone. */
static int on_message(sd_bus_message *message, void *userdata, sd_bus_error *ret_error)
{
	struct control_client *client = userdata;
	uint64_t n_replies = 0;

	(void)ret_error;
	if (sd_bus_message_is_signal(message, "org.freedesktop.DBus.Local",
				     "Disconnected") ||
	    sd_bus_get_n_queued_write(client->bus, &n_replies) < 0 ||
	    n_replies >= CONTROL_REPLIES_MAX)
		control_client_end(client);
	if (client->has_ended)
		return 1;
	control_client_touch(client);
	return 0;
}

static int add_objects(struct control_client *client)
{
	int r;

	r = sd_bus_add_filter(client->bus, NULL, on_message, client);
	if (r < 0)
		return r;
	r = sd_bus_add_object_vtable(client->bus, NULL, INSTANCE_OBJECT,
				     INSTANCE_INTERFACE, control_vtable, client);
	if (r < 0)
		return r;
	return sd_bus_add_object_vtable(client->bus, NULL, "/org/freedesktop/DBus",
					"org.freedesktop.DBus", control_hello_vtable,
					client);
}

/* *fd: taken over, unless this fails before. */
static int client_start_bus(struct control_client *client, int *fd)
{
	struct control *control = client->control;
	sd_bus *bus = client->bus;
	int r;

	r = sd_bus_set_fd(bus, *fd, *fd);
	if (r < 0)
		return r;
	(void)take_fd(fd);
	if ((r = sd_bus_set_server(bus, true, control->id)) < 0 ||
	    /* is_allowed() was there before */
	    (r = sd_bus_set_trusted(bus, true)) < 0 ||
	    (r = sd_bus_negotiate_fds(bus, false)) < 0 ||
	    /* Else the event loop's end would wait until the client has read all */
	    (r = sd_bus_set_close_on_exit(bus, false)) < 0 ||
	    (r = add_objects(client)) < 0 || (r = sd_bus_start(bus)) < 0)
		return r;
	return sd_bus_attach_event(bus, control->event, CONTROL_PRIORITY);
}

static int client_start(struct control_client *client, int *fd)
{
	struct control *control = client->control;
	int r;

	r = sd_event_add_time_relative(control->event, &client->idle, CLOCK_MONOTONIC,
				       control->idle_usec, 0, on_idle, client);
	if (r < 0)
		return r;
	r = sd_event_source_set_priority(client->idle, CONTROL_PRIORITY);
	if (r < 0)
		return r;
	r = sd_bus_new(&client->bus);
	return r < 0 ? r : client_start_bus(client, fd);
}

/* fd: taken over. Without memory, or if the client has left already: just its end. */
static void client_new(struct control *control, int fd)
{
	_cleanup_close_ int owned = fd;
	struct control_client *client = calloc(1, sizeof(*client));

	if (!client)
		return;
	client->control = control;
	LIST_INSERT_HEAD(&control->clients, client, entry);
	control->n_clients++;
	if (client_start(client, &owned) < 0)
		(void)client_free(client);
}

static int on_reap(sd_event_source *source, void *userdata)
{
	struct control *control = userdata;
	struct control_client *client, *next;

	(void)source;
	for (client = LIST_FIRST(&control->clients); client; client = next) {
		next = LIST_NEXT(client, entry);
		if (client->has_ended)
			(void)client_free(client);
	}
	return 0;
}

/* ---- accepting ---- */

static bool is_allowed(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       (peer.uid == 0 || peer.uid == geteuid());
}

static int on_accept(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	_cleanup_close_ int accepted =
		accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct control *control = userdata;
	int r;

	(void)events;
	if (accepted >= 0) {
		if (control->n_clients < CONTROL_CLIENTS_MAX && is_allowed(accepted))
			client_new(control, take_fd(&accepted));
		return 0;
	}
	if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
		return 0;
	/* No fd is left, or no memory. The client waits in the queue, and we not on it */
	r = sd_event_source_set_time_relative(control->resumer, ACCEPT_RETRY_USEC);
	if (r < 0)
		return r;
	r = sd_event_source_set_enabled(control->resumer, SD_EVENT_ONESHOT);
	return r < 0 ? r : sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

static int on_resume(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct control *control = userdata;

	(void)source;
	(void)usec;
	return sd_event_source_set_enabled(control->acceptor, SD_EVENT_ON);
}

static int add_sources(struct control *control)
{
	sd_event *event = control->event;
	int r;

	if ((r = sd_event_add_io(event, &control->acceptor, control->listen_fd, EPOLLIN,
				 on_accept, control)) < 0 ||
	    (r = sd_event_add_time_relative(event, &control->resumer, CLOCK_MONOTONIC, 0,
					    0, on_resume, control)) < 0 ||
	    (r = sd_event_add_defer(event, &control->reaper, on_reap, control)) < 0 ||
	    (r = sd_event_source_set_enabled(control->resumer, SD_EVENT_OFF)) < 0 ||
	    (r = sd_event_source_set_enabled(control->reaper, SD_EVENT_OFF)) < 0 ||
	    (r = sd_event_source_set_priority(control->acceptor, CONTROL_PRIORITY)) < 0 ||
	    (r = sd_event_source_set_priority(control->resumer, CONTROL_PRIORITY)) < 0)
		return r;
	return sd_event_source_set_priority(control->reaper, CONTROL_PRIORITY);
}

/* ---- the whole ---- */

int control_new(sd_event *event, int listen_fd, const struct control_handlers *handlers,
		void *userdata, struct control **ret_control)
{
	struct control *control = calloc(1, sizeof(*control));
	int r;

	if (!control)
		return -ENOMEM;
	*control = (struct control){
		.event = sd_event_ref(event),
		.listen_fd = listen_fd,
		.handlers = handlers,
		.userdata = userdata,
		.idle_usec = CONTROL_IDLE_USEC,
	};
	LIST_INIT(&control->clients);
	r = sd_id128_randomize(&control->id);
	if (r >= 0)
		r = add_sources(control);
	if (r < 0) {
		control->listen_fd = -EBADF;
		(void)control_free(control);
		return r;
	}
	*ret_control = control;
	return 0;
}

struct control *control_free(struct control *control)
{
	if (!control)
		return NULL;
	while (!LIST_EMPTY(&control->clients))
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): LIST_REMOVE() is not seen */
		(void)client_free(LIST_FIRST(&control->clients));
	(void)sd_event_source_disable_unref(control->acceptor);
	(void)sd_event_source_disable_unref(control->resumer);
	(void)sd_event_source_disable_unref(control->reaper);
	(void)fd_close(control->listen_fd);
	(void)sd_event_unref(control->event);
	free(control);
	return NULL;
}

int control_listen_fd(const struct control *control)
{
	return control ? control->listen_fd : -EBADF;
}

void control_set_idle(struct control *control, uint64_t usec)
{
	control->idle_usec = usec;
}

/* Returns whether there is no more to be written to the client, or no more use. */
static bool is_flushed(struct control_client *client)
{
	uint64_t n_replies = 0;

	return client->has_ended || sd_bus_is_ready(client->bus) <= 0 ||
	       sd_bus_get_n_queued_write(client->bus, &n_replies) < 0 || n_replies == 0;
}

static void client_flush(struct control_client *client, uint64_t deadline_usec)
{
	while (!is_flushed(client)) {
		struct pollfd room = {.fd = sd_bus_get_fd(client->bus),
				      .events = POLLOUT};
		uint64_t now = time_now_usec();

		if (now >= deadline_usec ||
		    poll(&room, 1, (int)((deadline_usec - now) / USEC_PER_MSEC) + 1) <=
			    0 ||
		    sd_bus_process(client->bus, NULL) < 0)
			return;
	}
}

void control_flush(struct control *control, uint64_t usec)
{
	uint64_t deadline_usec = time_now_usec() + usec;
	struct control_client *client;

	if (!control)
		return;
	control->is_leaving = true;
	/* These fail only for a source that is no such one */
	(void)sd_event_source_set_enabled(control->acceptor, SD_EVENT_OFF);
	(void)sd_event_source_set_enabled(control->resumer, SD_EVENT_OFF);
	LIST_FOREACH(client, &control->clients, entry)
	client_flush(client, deadline_usec);
}
