/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/instance.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/fd.h"

int instance_set_path(const char *name, char ret_path[static INSTANCE_PATH_SIZE])
{
	char path[INSTANCE_PATH_SIZE];
	int n;

	if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 ||
	    strcmp(name, "..") == 0)
		return -EINVAL;
	n = snprintf(path, sizeof(path), "/run/holdfast/%s/control", name);
	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENAMETOOLONG;
	memcpy(ret_path, path, sizeof(path));
	return 0;
}

/* Returns 0 or a negative errno. */
static int connect_to(const char *path, int *ret_fd)
{
	_cleanup_close_ int fd = -EBADF;
	struct sockaddr_un address;
	int r;

	r = socket_set_path(path, &address);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
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

int instance_connect(const char *path, sd_bus **ret_bus)
{
	_cleanup_close_ int fd = -EBADF;
	sd_bus *bus = NULL;
	int r;

	r = connect_to(path, &fd);
	if (r >= 0)
		r = sd_bus_new(&bus);
	if (r >= 0)
		r = start_bus(bus, &fd);
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
	return error != -ECONNRESET && error != -ENOTCONN && error != -EPIPE;
}

int instance_call(sd_bus_message *call, const char *name, uint64_t usec,
		  sd_bus_message **ret_reply)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	int r;

	r = sd_bus_call(sd_bus_message_get_bus(call), call, usec, &error, ret_reply);
	if (r < 0)
		(void)fprintf(stderr, "holdfastctl: %s of %s: %s\n",
			      sd_bus_message_get_member(call), name,
			      error.message && is_answer(r) ? error.message : explain(r));
	sd_bus_error_free(&error);
	return r < 0 ? r : 0;
}
