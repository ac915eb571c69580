/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper/store.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"

void store_init(struct store *store, sd_event *event, size_t n_fds_max,
		size_t names_size_max)
{
	*store = (struct store){
		.event = event,
		.n_fds_max = n_fds_max,
		.names_size_max = names_size_max,
	};
}

static size_t name_cost(const char *name)
{
	return strlen(name) + 1;
}

/* Takes *link out of the list and frees it. */
static void store_unlink(struct store *store, struct stored_fd **link)
{
	struct stored_fd *stored = *link;

	*link = stored->next;
	store->n_fds--;
	store->names_size -= name_cost(stored->name);
	/* before the close: the epoll registration lives as long as the file does */
	(void)sd_event_source_disable_unref(stored->source);
	(void)fd_close(stored->fd);
	free(stored);
}

void store_done(struct store *store)
{
	while (store->newest)
		store_unlink(store, &store->newest);
}

size_t store_remove(struct store *store, const char *name)
{
	struct stored_fd **link = &store->newest;
	size_t n_removed = 0;

	while (*link) {
		if (strcmp((*link)->name, name) != 0) {
			link = &(*link)->next;
			continue;
		}
		store_unlink(store, link);
		n_removed++;
	}
	return n_removed;
}

/*
 * Whether two fds of the same inode are one open file. kcmp(2) knows; where it is not
 * allowed, systemd's same_fd() is followed: the same access mode and flags of an inode
 * that is not a device. Neither are anonymous inodes (no file type), which share one.
 */
static bool is_same_file(int a, int b, mode_t mode)
{
	pid_t pid = getpid();
	long r = syscall(SYS_kcmp, pid, pid, KCMP_FILE, a, b);

	if (r >= 0)
		return r == 0;
	if (S_ISCHR(mode) || S_ISBLK(mode) || (mode & S_IFMT) == 0)
		return false;
	return fcntl(a, F_GETFL) == fcntl(b, F_GETFL);
}

static bool has_file(const struct store *store, int fd, const struct stat *status)
{
	const struct stored_fd *stored;

	/* inodes were kept, so that most pairs need no system call */
	for (stored = store->newest; stored; stored = stored->next)
		if (stored->inode == status->st_ino && stored->device == status->st_dev &&
		    is_same_file(stored->fd, fd, status->st_mode))
			return true;
	return false;
}

static int on_hangup(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	struct stored_fd *stored = userdata, **link = &stored->store->newest;

	(void)source, (void)fd,
		(void)events; /* only EPOLLHUP and EPOLLERR come unasked */
	while (*link != stored)
		link = &(*link)->next;
	store_unlink(stored->store, link);
	return 0;
}

int store_put(struct store *store, int fd_given, const char *name, bool is_polled)
{
	_cleanup_close_ int fd = fd_given;
	struct stored_fd *stored;
	struct stat status;
	int r = 0;

	if (store->n_fds >= store->n_fds_max)
		return -EXFULL;
	if (fstat(fd, &status) < 0)
		return -errno;
	if (has_file(store, fd, &status))
		return STORE_DUPLICATE;
	if (name_cost(name) > store->names_size_max - store->names_size)
		return -E2BIG;

	stored = malloc(sizeof(*stored) + name_cost(name));
	if (!stored)
		return -ENOMEM;
	*stored = (struct stored_fd){
		.store = store,
		.device = status.st_dev,
		.inode = status.st_ino,
	};
	memcpy(stored->name, name, name_cost(name));
	if (is_polled)
		r = sd_event_add_io(store->event, &stored->source, fd, 0, on_hangup,
				    stored);
	if (r < 0 && r != -EPERM) { /* EPERM: a file that cannot be polled, nor hang up */
		free(stored);
		return r;
	}
	stored->fd = take_fd(&fd);
	stored->next = store->newest;
	store->newest = stored;
	store->n_fds++;
	store->names_size += name_cost(name);
	return 0;
}
