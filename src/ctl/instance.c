/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/instance.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/fd.h"
#include "base/instance.h"
#include "ctl/targets.h"
#include "ctl/utf8.h"

int instance_set_path(const char *name, char ret_path[static INSTANCE_PATH_SIZE])
{
	char path[INSTANCE_PATH_SIZE];
	int n;

	if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0)
		return -EINVAL;
	n = snprintf(path, sizeof(path), TARGETS_DIRECTORY "/%s/control", name);
	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENAMETOOLONG;
	memcpy(ret_path, path, sizeof(path));
	return 0;
}

/* Returns 0 or a negative errno. */
static int connect_to(const char *path, uint64_t usec, int *ret_fd)
{
	struct timeval patience = {.tv_sec = (time_t)(usec / USEC_PER_SEC)};
	_cleanup_close_ int fd = -EBADF;
	struct sockaddr_un address;
	int r;

	r = socket_set_path(path, &address);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* One that does not accept may have a full queue, and connect() waits for room */
	if (fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
	    connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return -errno;
	*ret_fd = take_fd(&fd);
	return 0;
}

static const char *explain(int error)
{
	switch (-error) {
	case ENOENT:
		return "no such socket: the service does not run, or has another "
		       "--control=";
	case ECONNREFUSED:
		return "nobody listens: the service does not run";
	case EACCES:
	case EPERM:
		return "only root and the service's own user may ask";
	case ENAMETOOLONG:
		return "the path of a socket has 107 bytes at the most";
	case EAGAIN:
	case ETIMEDOUT:
		return "no answer in time";
	case ECONNRESET:
	case ENOTCONN:
	case EPIPE:
		return "the service has closed the connection before it answered";
	default:
		return strerror(-error);
	}
}

static int start_bus(sd_bus *bus, int *fd)
{
	int r;

	r = sd_bus_set_fd(bus, *fd, *fd);
	if (r < 0)
		return r;
	(void)take_fd(fd);
	return sd_bus_start(bus);
}

/* Else the first call would wait for the authentication for as long as sd-bus likes. */
static int wait_ready(sd_bus *bus, uint64_t usec)
{
	uint64_t until = time_now_usec() + usec;
	int r;

	while ((r = sd_bus_is_ready(bus)) == 0) {
		uint64_t now = time_now_usec();

		if (now >= until)
			return -ETIMEDOUT;
		r = sd_bus_process(bus, NULL);
		if (r == 0)
			r = sd_bus_wait(bus, until - now);
		if (r < 0)
			return r;
	}
	return r;
}

int instance_connect(const char *path, uint64_t usec, sd_bus **ret_bus)
{
	_cleanup_close_ int fd = -EBADF;
	sd_bus *bus = NULL;
	int r;

	r = connect_to(path, usec, &fd);
	if (r >= 0)
		r = sd_bus_new(&bus);
	if (r >= 0)
		r = start_bus(bus, &fd);
	if (r >= 0)
		r = wait_ready(bus, usec);
	if (r < 0) {
		(void)sd_bus_close_unref(bus);
		(void)fprintf(stderr, "holdfastctl: can't ask %s: %s\n", path,
			      explain(r));
		return r;
	}
	*ret_bus = bus;
	return 0;
}

/* Whether the words are the instance's, not sd-bus's about a connection that failed. */
static bool is_answer(int error)
{
	return error != -ECONNRESET && error != -ENOTCONN && error != -EPIPE &&
	       error != -ETIMEDOUT;
}

/* Says nothing of silent_error. */
static int call_instance(sd_bus_message *call, const char *name, uint64_t usec,
			 int silent_error, sd_bus_message **ret_reply)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r;

	r = sd_bus_call(sd_bus_message_get_bus(call), call, usec, &error, ret_reply);
	if (r < 0 && r != silent_error)
		(void)fprintf(stderr, "holdfastctl: %s of %s: %s\n",
			      sd_bus_message_get_member(call), name,
			      error.message && is_answer(r) ? PRINTABLE(error.message)
							    : explain(r));
	sd_bus_error_free(&error);
	return r < 0 ? r : 0;
}

int instance_call(sd_bus_message *call, const char *name, uint64_t usec,
		  sd_bus_message **ret_reply)
{
	return call_instance(call, name, usec, 0, ret_reply);
}

int instance_call_id(sd_bus *bus, const char *name, const char *method, uint64_t id,
		     const bool *reset, sd_bus_message **ret_reply)
{
	sd_bus_message *call;
	int r;

	r = instance_make_call(bus, INSTANCE_INTERFACE, method, &call);
	if (r < 0)
		return r;
	r = sd_bus_message_append(call, "t", id);
	if (r >= 0 && reset)
		r = sd_bus_message_append(call, "b", (int)*reset);
	if (r >= 0)
		r = call_instance(call, name, INSTANCE_ANSWER_USEC, -ENXIO, ret_reply);
	(void)sd_bus_message_unref(call);
	return r;
}

int instance_make_call(sd_bus *bus, const char *interface, const char *method,
		       sd_bus_message **ret_call)
{
	int r = sd_bus_message_new_method_call(bus, ret_call, NULL, INSTANCE_OBJECT,
					       interface, method);

	return r < 0 ? instance_fail(method, "can't be asked for", r) : 0;
}

int instance_fail(const char *name, const char *what, int error)
{
	(void)fprintf(stderr, "holdfastctl: %s: %s: %s\n", name, what, strerror(-error));
	return error;
}
