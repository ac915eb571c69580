/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/handover.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/time.h"

union control {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int) * HANDOVER_FDS_MAX)];
};

int handover_send(int fd, struct handover *message, const int *fds)
{
	size_t fds_size = sizeof(int) * message->n_fds;
	union control control = {0};
	struct iovec iov = {.iov_base = message, .iov_len = sizeof(*message)};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	message->version = HANDOVER_VERSION;
	if (message->n_fds > 0) {
		struct cmsghdr *cmsg;

		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(fds_size);
		cmsg = CMSG_FIRSTHDR(&header);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(fds_size);
		memcpy(CMSG_DATA(cmsg), fds, fds_size);
	}
	/* All that is ever under way fits into the socket's buffer, so it need not wait.
	 * ECONNRESET says, once, that the other one has left something unread: it has
	 * gone, as the next try tells */
	do
		n = sendmsg(fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	return n < 0 ? -errno : 0;
}

void handover_close_fds(const struct handover *message, const int *fds)
{
	for (uint32_t i = 0; i < message->n_fds; i++)
		(void)fd_close(fds[i]);
}

static uint32_t take_fds(struct msghdr *header, int *ret_fds)
{
	uint32_t n_fds = 0;

	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg;
	     cmsg = CMSG_NXTHDR(header, cmsg)) {
		size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		/* The space for them bounds n */
		memcpy(ret_fds + n_fds, CMSG_DATA(cmsg), n * sizeof(int));
		n_fds += (uint32_t)n;
	}
	return n_fds;
}

static int check(const struct handover *message, ssize_t size, uint32_t n_fds, int flags)
{
	bool is_failure = size == sizeof(*message) && message->type == HANDOVER_FAILED;

	if (size >= (ssize_t)sizeof(message->version) &&
	    message->version != HANDOVER_VERSION && !is_failure)
		return -EPROTO;
	if (flags & MSG_CTRUNC)
		return -EMFILE;
	if (size != sizeof(*message) || flags & MSG_TRUNC || message->n_fds != n_fds ||
	    message->n_parcels > HANDOVER_FDS_MAX)
		return -EBADMSG;
	return HANDOVER_MESSAGE;
}

static int receive_now(int fd, struct handover *ret_message, int *ret_fds)
{
	union control control;
	struct iovec iov = {.iov_base = ret_message, .iov_len = sizeof(*ret_message)};
	struct msghdr header = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	uint32_t n_fds;
	ssize_t n;
	int r;

	/* ECONNRESET says that the other one has left something unread, once and before
	 * what it has said itself */
	do
		n = recvmsg(fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	while (n < 0 && (errno == EINTR || errno == ECONNRESET));
	if (n < 0)
		return -errno;
	n_fds = take_fds(&header, ret_fds);
	/* An empty message without fds looks like the end, and is none of ours either */
	if (n == 0 && n_fds == 0 && !(header.msg_flags & MSG_CTRUNC))
		return HANDOVER_GONE;
	r = check(ret_message, n, n_fds, header.msg_flags);
	if (r < 0)
		for (uint32_t i = 0; i < n_fds; i++)
			(void)fd_close(ret_fds[i]);
	return r;
}

static int wait_for(int fd, uint64_t until_usec)
{
	uint64_t now = time_now_usec();
	uint64_t left = until_usec > now ? until_usec - now : 0;
	struct timespec timeout = {
		.tv_sec = (time_t)(left / USEC_PER_SEC),
		.tv_nsec = (long)(left % USEC_PER_SEC * 1000),
	};
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int r;

	if (left == 0)
		return -ETIME;
	r = ppoll(&p, 1, &timeout, NULL);
	return r < 0 && errno != EINTR ? -errno : 0;
}

int handover_receive(int fd, uint64_t until_usec, struct handover *ret_message,
		     int *ret_fds)
{
	int r;

	while ((r = receive_now(fd, ret_message, ret_fds)) == -EAGAIN) {
		r = wait_for(fd, until_usec);
		if (r < 0)
			return r;
	}
	return r;
}
