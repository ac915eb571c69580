/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/store.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "base/fd.h"

uint32_t store_get_max(void)
{
	const char *text = getenv("FDSTORE");
	unsigned long max;
	char *end;

	if (!text || text[0] < '0' || text[0] > '9')
		return STORE_MAX_UNKNOWN;
	max = strtoul(text, &end, 10);
	if (*end != '\0' || max >= STORE_MAX_UNKNOWN)
		return STORE_MAX_UNKNOWN;
	return (uint32_t)max;
}

bool store_is_there(void)
{
	return getenv("NOTIFY_SOCKET") != NULL;
}

static int notify(const char *state, const int *fds, unsigned n_fds)
{
	int r = sd_pid_notify_with_fds(0, 0, state, fds, n_fds);

	if (r < 0)
		return r;
	return r == 0 ? -ENOTCONN : 0;
}

int store_put(int fd, const char *name)
{
	char state[64 + STORE_NAME_SIZE];

	(void)snprintf(state, sizeof(state), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
	return notify(state, &fd, 1);
}

int store_remove(const char *name)
{
	char state[64 + STORE_NAME_SIZE];

	(void)snprintf(state, sizeof(state), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	return notify(state, NULL, 0);
}

int store_put_pipe(const char *name, int *ret_fd)
{
	int pipe[2], r;

	if (pipe2(pipe, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	r = store_put(pipe[1], name);
	(void)fd_close(pipe[1]);
	if (r < 0)
		(void)fd_close(pipe[0]);
	else
		*ret_fd = pipe[0];
	return r;
}

int store_probe_start(struct store_probe *ret_probe)
{
	int probe_fd = -EBADF, barrier[2], r;

	if (pipe2(barrier, O_CLOEXEC | O_NONBLOCK) < 0)
		return -errno;
	r = store_put_pipe(STORE_NAME_PROBE, &probe_fd);
	if (r == 0)
		r = notify("BARRIER=1", &barrier[1], 1);
	(void)fd_close(barrier[1]);
	if (r < 0) {
		(void)fd_close(barrier[0]);
		(void)fd_close(probe_fd);
		return r;
	}
	*ret_probe = (struct store_probe){.barrier_fd = barrier[0], .probe_fd = probe_fd};
	return 0;
}

bool store_probe_finish(struct store_probe *probe)
{
	struct pollfd p = {.fd = probe->probe_fd, .events = POLLIN};
	bool refused = poll(&p, 1, 0) < 0 || (p.revents & POLLHUP);

	/* If this fails the next probe is refused too, and is seen to be */
	(void)store_remove(STORE_NAME_PROBE);
	probe->barrier_fd = fd_close(probe->barrier_fd);
	probe->probe_fd = fd_close(probe->probe_fd);
	return !refused;
}

void store_parcel_name(unsigned index, char *ret_name)
{
	(void)snprintf(ret_name, STORE_NAME_SIZE, STORE_NAME_PARCEL_PREFIX "%u", index);
}

int store_parcel_index(const char *name, unsigned limit)
{
	char canonical[STORE_NAME_SIZE];
	unsigned long index;

	if (strncmp(name, STORE_NAME_PARCEL_PREFIX, strlen(STORE_NAME_PARCEL_PREFIX)) !=
	    0)
		return -EINVAL;
	index = strtoul(name + strlen(STORE_NAME_PARCEL_PREFIX), NULL, 10);
	if (index >= limit)
		return -EINVAL;
	/* Only the one way in which we write it: no sign, no space, no leading zero */
	store_parcel_name((unsigned)index, canonical);
	return strcmp(name, canonical) == 0 ? (int)index : -EINVAL;
}
