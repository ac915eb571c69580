/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fake-manager.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "base/fd.h"
#include "base/time.h"
#include "unit.h"

/* SCM_MAX_FD and NOTIFY_BUFFER_MAX: what one message can have */
#define MESSAGE_FDS_MAX 253
#define MESSAGE_TEXT_MAX 4096

struct stored {
	int fd;
	char name[FAKE_MANAGER_NAME_SIZE];
};

struct fake_manager {
	int socket_fd;
	int wake_fd;
	pthread_t thread;

	pthread_mutex_t lock; /* of all that follows */
	bool deaf;
	bool stopped;
	unsigned max;
	unsigned n_stored;
	unsigned n_most;
	unsigned n_refused;
	unsigned n_watched;
	bool is_slow;
	int refused_fds[FAKE_MANAGER_STORE_MAX]; /* not closed yet */
	unsigned n_refused_fds;
	struct stored stored[FAKE_MANAGER_STORE_MAX];
};

/* One message, as far as it matters here. */
struct message {
	bool is_store;
	bool is_remove;
	bool is_poll_off;
	char name[FAKE_MANAGER_NAME_SIZE];
	int fds[MESSAGE_FDS_MAX];
	size_t n_fds;
};

static void message_parse(struct message *message, char *text)
{
	char *rest = text, *line;

	(void)snprintf(message->name, sizeof(message->name), "stored");
	while ((line = strsep(&rest, "\n"))) {
		if (strcmp(line, "FDSTORE=1") == 0)
			message->is_store = true;
		else if (strcmp(line, "FDSTOREREMOVE=1") == 0)
			message->is_remove = true;
		else if (strcmp(line, "FDPOLL=0") == 0)
			message->is_poll_off = true;
		else if (strncmp(line, "FDNAME=", 7) == 0)
			(void)snprintf(message->name, sizeof(message->name), "%s",
				       line + 7);
	}
}

static bool is_stored(const struct fake_manager *manager, int fd)
{
	pid_t self = getpid();

	for (unsigned i = 0; i < manager->n_stored; i++)
		if (syscall(SYS_kcmp, self, self, KCMP_FILE, fd, manager->stored[i].fd) ==
		    0)
			return true;
	return false;
}

static void close_refused(struct fake_manager *manager)
{
	while (manager->n_refused_fds > 0)
		(void)close(manager->refused_fds[--manager->n_refused_fds]);
}

/* Takes fd over. */
static void keep(struct fake_manager *manager, int fd, const char *name)
{
	struct stored *stored = &manager->stored[manager->n_stored];

	if (is_stored(manager, fd)) {
		(void)close(fd);
		return;
	}
	if (manager->n_stored >= manager->max) {
		manager->n_refused++;
		if (manager->is_slow && manager->n_refused_fds < FAKE_MANAGER_STORE_MAX)
			manager->refused_fds[manager->n_refused_fds++] = fd;
		else
			(void)close(fd);
		return;
	}
	stored->fd = fd;
	(void)snprintf(stored->name, sizeof(stored->name), "%s", name);
	manager->n_stored++;
	if (manager->n_stored > manager->n_most)
		manager->n_most = manager->n_stored;
}

static void forget(struct fake_manager *manager, const char *name)
{
	unsigned n_kept = 0;

	for (unsigned i = 0; i < manager->n_stored; i++) {
		struct stored stored = manager->stored[i];

		if (strcmp(stored.name, name) == 0)
			(void)close(stored.fd);
		else
			manager->stored[n_kept++] = stored;
	}
	manager->n_stored = n_kept;
}

static void obey(struct fake_manager *manager, struct message *message)
{
	pthread_mutex_lock(&manager->lock);
	if (message->is_remove)
		forget(manager, message->name);
	for (size_t i = 0; i < message->n_fds; i++) {
		/* A barrier's fd, too, is closed when all before it has been done */
		if (!message->is_store) {
			(void)close(message->fds[i]);
			continue;
		}
		manager->n_watched += !message->is_poll_off;
		keep(manager, message->fds[i], message->name);
	}
	pthread_mutex_unlock(&manager->lock);
}

static bool receive(struct fake_manager *manager)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * MESSAGE_FDS_MAX) + CMSG_SPACE(64)];
	} control;
	char text[MESSAGE_TEXT_MAX + 1];
	struct iovec iov = {.iov_base = text, .iov_len = MESSAGE_TEXT_MAX};
	struct msghdr header = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct message message = {0};
	ssize_t n = -1;

	/* Under the lock, so that nothing is read any more once set_deaf() has returned */
	pthread_mutex_lock(&manager->lock);
	if (!manager->deaf)
		n = recvmsg(manager->socket_fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	pthread_mutex_unlock(&manager->lock);
	if (n < 0)
		return false;
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&header); cmsg;
	     cmsg = CMSG_NXTHDR(&header, cmsg)) {
		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		message.n_fds = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(message.fds, CMSG_DATA(cmsg), message.n_fds * sizeof(int));
	}
	text[n] = '\0';
	message_parse(&message, text);
	obey(manager, &message);
	return true;
}

static void *serve(void *userdata)
{
	struct fake_manager *manager = userdata;

	for (;;) {
		struct pollfd polled[] = {
			{.fd = manager->wake_fd, .events = POLLIN},
			{.fd = manager->socket_fd, .events = POLLIN},
		};
		eventfd_t n;
		bool stopped, deaf;

		pthread_mutex_lock(&manager->lock);
		stopped = manager->stopped;
		deaf = manager->deaf;
		pthread_mutex_unlock(&manager->lock);
		if (stopped)
			return NULL;
		if (poll(polled, deaf ? 1 : 2, -1) < 0)
			continue;
		if (polled[0].revents)
			(void)eventfd_read(manager->wake_fd, &n);
		else
			while (receive(manager))
				;
	}
}

/* An address that the kernel chooses, in the abstract namespace: nothing to remove. */
static void listen_for_notify(struct fake_manager *manager)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t size = sizeof(sa_family_t);
	char name[sizeof(address.sun_path) + 2] = "@";

	manager->socket_fd =
		must(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	(void)must(bind(manager->socket_fd, (const struct sockaddr *)&address, size));
	size = sizeof(address);
	(void)must(getsockname(manager->socket_fd, (struct sockaddr *)&address, &size));
	memcpy(name + 1, address.sun_path + 1, size - sizeof(sa_family_t) - 1);
	(void)must(setenv("NOTIFY_SOCKET", name, 1));
}

/*
 * A process that is made by fork() has a copy of the store as it is then: so all that was
 * sent is done first, and the lock is free in the copy.
 */
static struct fake_manager *current;

static void before_fork(void)
{
	if (!current)
		return;
	fake_manager_sync(current);
	pthread_mutex_lock(&current->lock);
}

static void after_fork(void)
{
	if (current)
		pthread_mutex_unlock(&current->lock);
}

static void handle_forks_of(struct fake_manager *manager)
{
	static bool is_registered;

	current = manager;
	if (!is_registered)
		assert_int_equal(pthread_atfork(before_fork, after_fork, after_fork), 0);
	is_registered = true;
}

struct fake_manager *fake_manager_new(unsigned max)
{
	struct fake_manager *manager = calloc(1, sizeof(*manager));

	assert_non_null(manager);
	assert_true(max <= FAKE_MANAGER_STORE_MAX);
	manager->max = max;
	pthread_mutex_init(&manager->lock, NULL);
	manager->wake_fd = must(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
	listen_for_notify(manager);
	assert_int_equal(pthread_create(&manager->thread, NULL, serve, manager), 0);
	handle_forks_of(manager);
	return manager;
}

static void wake(struct fake_manager *manager)
{
	(void)must(eventfd_write(manager->wake_fd, 1));
}

struct fake_manager *fake_manager_free(struct fake_manager *manager)
{
	if (!manager)
		return NULL;
	current = NULL;
	pthread_mutex_lock(&manager->lock);
	manager->stopped = true;
	pthread_mutex_unlock(&manager->lock);
	wake(manager);
	pthread_join(manager->thread, NULL);
	for (unsigned i = 0; i < manager->n_stored; i++)
		(void)close(manager->stored[i].fd);
	close_refused(manager);
	(void)close(manager->wake_fd);
	(void)close(manager->socket_fd);
	pthread_mutex_destroy(&manager->lock);
	(void)unsetenv("NOTIFY_SOCKET");
	free(manager);
	return NULL;
}

void fake_manager_sync(struct fake_manager *manager)
{
	(void)manager; /* $NOTIFY_SOCKET is this one's */
	assert_true(sd_notify_barrier(0, UNIT_PATIENCE_MSEC * USEC_PER_MSEC) > 0);
}

void fake_manager_set_max(struct fake_manager *manager, unsigned max)
{
	pthread_mutex_lock(&manager->lock);
	manager->max = max;
	pthread_mutex_unlock(&manager->lock);
}

void fake_manager_set_slow(struct fake_manager *manager, bool slow)
{
	pthread_mutex_lock(&manager->lock);
	manager->is_slow = slow;
	if (!slow)
		close_refused(manager);
	pthread_mutex_unlock(&manager->lock);
}

void fake_manager_set_deaf(struct fake_manager *manager, bool deaf)
{
	pthread_mutex_lock(&manager->lock);
	manager->deaf = deaf;
	pthread_mutex_unlock(&manager->lock);
	wake(manager);
}

unsigned fake_manager_count(struct fake_manager *manager, const char *name)
{
	unsigned n = 0;

	pthread_mutex_lock(&manager->lock);
	for (unsigned i = 0; i < manager->n_stored; i++)
		n += !name || strcmp(manager->stored[i].name, name) == 0;
	pthread_mutex_unlock(&manager->lock);
	return n;
}

static unsigned get(struct fake_manager *manager, const unsigned *number)
{
	unsigned n;

	pthread_mutex_lock(&manager->lock);
	n = *number;
	pthread_mutex_unlock(&manager->lock);
	return n;
}

unsigned fake_manager_most(struct fake_manager *manager)
{
	return get(manager, &manager->n_most);
}

unsigned fake_manager_refused(struct fake_manager *manager)
{
	return get(manager, &manager->n_refused);
}

unsigned fake_manager_watched(struct fake_manager *manager)
{
	return get(manager, &manager->n_watched);
}

static int copy_of(int fd)
{
	return must(fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

void fake_manager_put(struct fake_manager *manager, int fd, const char *name)
{
	int copy = copy_of(fd);

	pthread_mutex_lock(&manager->lock);
	keep(manager, copy, name);
	pthread_mutex_unlock(&manager->lock);
}

void fake_manager_remove(struct fake_manager *manager, const char *name)
{
	pthread_mutex_lock(&manager->lock);
	forget(manager, name);
	pthread_mutex_unlock(&manager->lock);
}

int fake_manager_get(struct fake_manager *manager, const char *name)
{
	int fd = -EBADF;

	pthread_mutex_lock(&manager->lock);
	for (unsigned i = 0; i < manager->n_stored && fd < 0; i++)
		if (strcmp(manager->stored[i].name, name) == 0)
			fd = copy_of(manager->stored[i].fd);
	pthread_mutex_unlock(&manager->lock);
	if (fd < 0)
		fail_msg("no fd of the name %s is stored", name);
	return fd;
}

void fake_manager_give(struct fake_manager *manager, struct fake_manager_given *ret_given)
{
	pthread_mutex_lock(&manager->lock);
	ret_given->n = manager->n_stored;
	for (unsigned i = 0; i < manager->n_stored; i++) {
		const struct stored *stored = &manager->stored[manager->n_stored - 1 - i];

		memcpy(ret_given->names[i], stored->name, sizeof(stored->name));
		ret_given->fds[i] = (struct stored_fd){
			/* Without FD_CLOEXEC, as it comes through exec */
			.fd = must(fcntl(stored->fd, F_DUPFD, 3)),
			.name = ret_given->names[i],
		};
	}
	pthread_mutex_unlock(&manager->lock);
}
