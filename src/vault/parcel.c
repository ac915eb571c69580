/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/parcel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"

/*
 * Room for more fds than an entry has: a message that somebody else put into the store
 * must not hide fds from us, since what is hidden is not closed. 253 is the kernel's own
 * limit (SCM_MAX_FD, include/net/scm.h).
 */
#define PEEK_FDS_MAX 253

int parcel_new_pair(int *ret_send_fd, int *ret_store_fd)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) <
	    0)
		return -errno;
	*ret_send_fd = fds[0];
	*ret_store_fd = fds[1];
	return 0;
}

int parcel_put(int send_fd, const struct label *label, const int *fds, int n_fds)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * PARCEL_FDS_MAX)];
	} control = {0};
	struct label copy = *label;
	struct iovec iov = {.iov_base = &copy, .iov_len = sizeof(copy)};
	size_t fds_size = sizeof(int) * (size_t)n_fds;
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(fds_size),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&message);
	ssize_t n;

	assert(n_fds > 0 && n_fds <= PARCEL_FDS_MAX);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(fds_size);
	memcpy(CMSG_DATA(cmsg), fds, fds_size);
	copy.n_fds = (uint32_t)n_fds;

	do
		n = sendmsg(send_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

int parcel_rewind(int store_fd, int offset)
{
	return setsockopt(store_fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof(offset)) < 0
		       ? -errno
		       : 0;
}

/* Keeps the first PARCEL_FDS_MAX fds of the message and closes the others. */
static int take_fds(struct msghdr *message, struct parcel_entry *entry)
{
	int n_total = 0;

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(message); cmsg;
	     cmsg = CMSG_NXTHDR(message, cmsg)) {
		size_t n;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
			if (entry->n_fds < PARCEL_FDS_MAX)
				entry->fds[entry->n_fds++] = fd;
			else
				(void)fd_close(fd);
			n_total++;
		}
	}
	return n_total;
}

void parcel_entry_done(struct parcel_entry *entry)
{
	for (int i = 0; i < PARCEL_FDS_MAX; i++)
		entry->fds[i] = fd_close(entry->fds[i]);
	entry->n_fds = 0;
}

static int step_back(int store_fd, ssize_t n)
{
	int offset;
	socklen_t size = sizeof(offset);

	if (getsockopt(store_fd, SOL_SOCKET, SO_PEEK_OFF, &offset, &size) < 0)
		return -errno;
	return parcel_rewind(store_fd, offset - (int)n);
}

int parcel_peek(int store_fd, struct parcel_entry *ret_entry)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * PEEK_FDS_MAX)];
	} control;
	struct label label = {0};
	struct iovec iov = {.iov_base = &label, .iov_len = sizeof(label)};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct parcel_entry entry = {.fds = {-EBADF, -EBADF}};
	ssize_t n;
	int n_total, r;

	do
		n = recvmsg(store_fd, &message,
			    MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? PARCEL_END : -errno;

	n_total = take_fds(&message, &entry);
	/* Behind the last message of a queue whose sender has gone, a peek returns 0
	 * bytes */
	if (n == 0 && n_total == 0)
		return PARCEL_END;
	if (message.msg_flags & MSG_CTRUNC) {
		parcel_entry_done(&entry);
		r = step_back(store_fd, n);
		if (r < 0)
			return r;
		*ret_entry = entry;
		return PARCEL_CROWDED;
	}
	if (n == 0) {
		/* The peek offset counts bytes: an empty message would be peeked for ever
		 */
		parcel_entry_done(&entry);
		return -EBADMSG;
	}
	if (n == sizeof(label) && !(message.msg_flags & MSG_TRUNC) &&
	    label.n_fds == (uint32_t)n_total && n_total > 0 && n_total <= PARCEL_FDS_MAX)
		entry.label = label;
	*ret_entry = entry;
	return entry.label.version != 0 ? PARCEL_ENTRY : PARCEL_DAMAGED;
}

int parcel_peek_label(int store_fd, struct label *ret_label)
{
	struct label label;
	struct iovec iov = {.iov_base = &label, .iov_len = sizeof(label)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	do
		n = recvmsg(store_fd, &message, MSG_PEEK | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? PARCEL_END : -errno;
	/* Without room for fds MSG_CTRUNC says that there are some */
	if (n == 0)
		return message.msg_flags & MSG_CTRUNC ? -EBADMSG : PARCEL_END;
	if (n != sizeof(label) || message.msg_flags & MSG_TRUNC)
		return PARCEL_DAMAGED;
	*ret_label = label;
	return PARCEL_ENTRY;
}

int parcel_step_back(int store_fd)
{
	return step_back(store_fd, sizeof(struct label));
}

bool label_is_sane(const struct label *label, uint32_t n_slots)
{
	if (label->version != LABEL_VERSION || label->slot >= n_slots)
		return false;
	if (label->kind == SLOT_PIPE)
		return label->n_fds == 1;
	return label->kind == SLOT_CONNECTION;
}
