/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/parcel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"

/*
 * Room for more fds than a pack has: a message that somebody else put into the store must
 * not hide fds from us, since what is hidden is not closed. 253 is the kernel's own limit
 * (SCM_MAX_FD, include/net/scm.h).
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

static size_t count_fds(const struct label *labels, size_t n_labels)
{
	size_t n = 0;

	for (size_t i = 0; i < n_labels; i++) {
		assert(labels[i].n_fds > 0 && labels[i].n_fds <= PARCEL_FDS_MAX);
		n += labels[i].n_fds;
	}
	return n;
}

int parcel_put(int send_fd, const struct label *labels, size_t n_labels, const int *fds)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * PARCEL_PACK_FDS_MAX)];
	} control;
	struct iovec iov = {.iov_len = n_labels * sizeof(*labels)};
	size_t fds_size = sizeof(int) * count_fds(labels, n_labels);
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = CMSG_SPACE(fds_size),
	};
	ssize_t n;

	assert(n_labels > 0 && n_labels <= PARCEL_PACK_MAX);
	memcpy(&iov.iov_base, &labels, sizeof(labels)); /* sendmsg() only reads it */
	control.header = (struct cmsghdr){
		.cmsg_level = SOL_SOCKET,
		.cmsg_type = SCM_RIGHTS,
		.cmsg_len = CMSG_LEN(fds_size),
	};
	memcpy(CMSG_DATA(&control.header), fds, fds_size);

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

/* Keeps as many fds of the message as a pack has, and closes the others. Returns their
 * number. */
static uint32_t take_fds(struct msghdr *message, struct parcel_pack *pack)
{
	uint32_t n_total = 0;

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(message); cmsg;
	     cmsg = CMSG_NXTHDR(message, cmsg)) {
		size_t n;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
			if (pack->n_fds < PARCEL_PACK_FDS_MAX)
				pack->fds[pack->n_fds++] = fd;
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

static int step_back(int store_fd, ssize_t n_bytes)
{
	int offset;
	socklen_t size = sizeof(offset);

	if (getsockopt(store_fd, SOL_SOCKET, SO_PEEK_OFF, &offset, &size) < 0)
		return -errno;
	return parcel_rewind(store_fd, offset - (int)n_bytes);
}

int parcel_step_back(int store_fd, size_t n)
{
	return step_back(store_fd, (ssize_t)(n * sizeof(struct label)));
}

void parcel_pack_add(struct parcel_pack *pack, struct parcel_entry *entry)
{
	assert(pack->n_entries < PARCEL_PACK_MAX);
	pack->labels[pack->n_entries++] = entry->label;
	for (int i = 0; i < entry->n_fds; i++)
		pack->fds[pack->n_fds++] = take_fd(&entry->fds[i]);
	entry->n_fds = 0;
}

void parcel_pack_done(struct parcel_pack *pack)
{
	for (uint32_t i = 0; i < pack->n_fds; i++)
		(void)fd_close(pack->fds[i]);
	pack->n_entries = pack->n_fds = 0;
}

void parcel_reader_init(struct parcel_reader *reader, int store_fd)
{
	reader->store_fd = store_fd;
	reader->pack.n_entries = reader->pack.n_fds = 0;
	reader->next_entry = reader->next_fd = 0;
	reader->n_messages = 0;
}

/* Whether the text of a message is labels to which its fds, n_total of them, belong. */
static bool has_entries(const struct parcel_pack *pack, size_t size, uint32_t n_total)
{
	uint32_t n = 0;

	if (size % sizeof(struct label) != 0)
		return false;
	for (size_t i = 0; i < size / sizeof(struct label); i++) {
		if (pack->labels[i].n_fds == 0 || pack->labels[i].n_fds > PARCEL_FDS_MAX)
			return false;
		n += pack->labels[i].n_fds;
	}
	return n == n_total;
}

/* What has no entries is given as damaged ones of a few fds each, with none as one. */
static void make_damaged(struct parcel_pack *pack)
{
	uint32_t n_left = pack->n_fds;

	memset(pack->labels, 0, sizeof(pack->labels));
	pack->n_entries = 0;
	do {
		struct label *label = &pack->labels[pack->n_entries++];

		label->n_fds = n_left < PARCEL_FDS_MAX ? n_left : PARCEL_FDS_MAX;
		n_left -= label->n_fds;
	} while (n_left > 0);
}

/* Returns PARCEL_ENTRY where the reader's pack has entries, or as parcel_peek(). */
static int peek_message(struct parcel_reader *reader)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * PEEK_FDS_MAX)];
	} control;
	struct parcel_pack *pack = &reader->pack;
	struct iovec iov = {.iov_base = pack->labels, .iov_len = sizeof(pack->labels)};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	uint32_t n_total;
	ssize_t n;
	int r;

	pack->n_entries = pack->n_fds = reader->next_entry = reader->next_fd = 0;
	do
		n = recvmsg(reader->store_fd, &message,
			    MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? PARCEL_END : -errno;

	n_total = take_fds(&message, pack);
	/* Behind the last message of a queue whose sender has gone, a peek returns 0
	 * bytes */
	if (n == 0 && n_total == 0)
		return PARCEL_END;
	if (message.msg_flags & MSG_CTRUNC || n == 0) {
		parcel_pack_done(pack);
		/* The peek offset counts bytes: an empty message would be peeked for ever
		 */
		if (n == 0)
			return -EBADMSG;
		r = step_back(reader->store_fd, n);
		return r < 0 ? r : PARCEL_CROWDED;
	}
	reader->n_messages++;
	if (!(message.msg_flags & MSG_TRUNC) && has_entries(pack, (size_t)n, n_total))
		pack->n_entries = (uint32_t)((size_t)n / sizeof(struct label));
	else
		make_damaged(pack);
	return PARCEL_ENTRY;
}

bool parcel_has_more(const struct parcel_reader *reader)
{
	return reader->next_entry < reader->pack.n_entries;
}

int parcel_peek(struct parcel_reader *reader, struct parcel_entry *ret_entry)
{
	struct parcel_entry entry = {.fds = {-EBADF, -EBADF}};

	if (!parcel_has_more(reader)) {
		int r = peek_message(reader);

		*ret_entry = entry;
		if (r != PARCEL_ENTRY)
			return r;
	}
	entry.label = reader->pack.labels[reader->next_entry++];
	while (entry.n_fds < (int)entry.label.n_fds)
		entry.fds[entry.n_fds++] = take_fd(&reader->pack.fds[reader->next_fd++]);
	*ret_entry = entry;
	return entry.label.version != 0 ? PARCEL_ENTRY : PARCEL_DAMAGED;
}

void parcel_reader_done(struct parcel_reader *reader)
{
	parcel_pack_done(&reader->pack);
	reader->next_entry = reader->next_fd = 0;
}

int parcel_peek_labels(int store_fd, struct label *ret_labels, size_t *ret_n)
{
	struct iovec iov = {
		.iov_base = ret_labels,
		.iov_len = PARCEL_PACK_MAX * sizeof(*ret_labels),
	};
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
	if ((size_t)n % sizeof(*ret_labels) != 0 || message.msg_flags & MSG_TRUNC)
		return PARCEL_DAMAGED;
	*ret_n = (size_t)n / sizeof(*ret_labels);
	return PARCEL_ENTRY;
}

bool label_is_sane(const struct label *label, uint32_t n_slots)
{
	if (label->version != LABEL_VERSION || label->slot >= n_slots)
		return false;
	if (label->kind == SLOT_PIPE)
		return label->n_fds == 1;
	return label->kind == SLOT_CONNECTION;
}
