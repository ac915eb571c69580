/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "conversation.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/fd.h"
#include "base/time.h"

/* Without padding, which would go with it and is not always the same */
struct header {
	uint64_t sequence;
	uint64_t number;
};

static_assert(sizeof(struct header) <= MESSAGE_BYTES_MIN,
	      "a message begins with a header");

__attribute__((format(printf, 4, 5))) static int complain(
	const struct conversation *conversation, int r, struct complaint *ret_complaint,
	const char *format, ...)
{
	char what[128];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(what, sizeof(what), format, arguments);
	va_end(arguments);
	(void)snprintf(ret_complaint->text, sizeof(ret_complaint->text),
		       "connection %" PRIu32 ": %s (%" PRIu64 " messages due, %" PRIu64
		       " answered)",
		       conversation->number, what, conversation->n_due,
		       conversation->n_answered);
	return r;
}

static int complain_of_errno(const struct conversation *conversation, const char *what,
			     struct complaint *ret_complaint)
{
	int r = -errno;

	return complain(conversation, r, ret_complaint, "%s: %s", what, strerror(-r));
}

/* After the header come bytes that no zeroes and no other message's are equal to. */
static void message_write(const struct conversation *conversation, uint64_t sequence,
			  unsigned char *ret_message)
{
	struct header header = {.sequence = sequence, .number = conversation->number};
	uint64_t x = (sequence << 32 | conversation->number) + 0x9e3779b97f4a7c15;

	for (uint32_t i = 0; i < conversation->message_bytes; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		ret_message[i] = (unsigned char)x;
	}
	memcpy(ret_message, &header, sizeof(header));
}

int conversation_init(struct conversation *conversation, uint32_t number,
		      const struct sockaddr *address, socklen_t address_bytes,
		      unsigned char *partial, uint32_t message_bytes,
		      struct complaint *ret_complaint)
{
	_cleanup_close_ int fd =
		socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	const int on = 1;

	*conversation = (struct conversation){
		.fd = -EBADF,
		.number = number,
		.message_bytes = message_bytes,
		.partial = partial,
	};
	if (fd < 0)
		return complain_of_errno(conversation, "no socket", ret_complaint);
	/* A message goes out when it is due, not when the one before it was acknowledged */
	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
		return complain_of_errno(conversation, "TCP_NODELAY", ret_complaint);
	if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) < 0)
		return complain_of_errno(conversation, "SO_TIMESTAMPNS", ret_complaint);
	if (connect(fd, address, address_bytes) < 0 && errno != EINPROGRESS)
		return complain_of_errno(conversation, "cannot connect", ret_complaint);
	conversation->fd = take_fd(&fd);
	return 0;
}

void conversation_done(struct conversation *conversation)
{
	conversation->fd = fd_close(conversation->fd);
}

static uint64_t n_unsent_bytes(const struct conversation *conversation)
{
	return conversation->n_due * conversation->message_bytes -
	       conversation->n_sent_bytes;
}

uint32_t conversation_events(const struct conversation *conversation)
{
	if (conversation->has_ended)
		return 0;
	return EPOLLIN | (n_unsent_bytes(conversation) > 0 ? EPOLLOUT : 0);
}

int conversation_send(struct conversation *conversation, struct complaint *ret_complaint)
{
	unsigned char message[MESSAGE_BYTES_MAX];

	while (n_unsent_bytes(conversation) > 0) {
		uint32_t bytes = conversation->message_bytes;
		uint32_t offset = (uint32_t)(conversation->n_sent_bytes % bytes);
		ssize_t n;

		message_write(conversation, conversation->n_sent_bytes / bytes, message);
		n = send(conversation->fd, message + offset, bytes - offset,
			 MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN)
			return 0; /* also while it is connecting */
		if (n < 0)
			return complain_of_errno(conversation, "cannot send",
						 ret_complaint);
		conversation->n_sent_bytes += (uint64_t)n;
	}
	return 0;
}

/* Says in what the message that has come differs from the wanted one. */
static int describe_damage(const struct conversation *conversation,
			   const unsigned char *wanted, struct complaint *ret_complaint)
{
	uint64_t n_answered = conversation->n_answered;
	struct header header;
	uint32_t i = 0;

	memcpy(&header, conversation->partial, sizeof(header));
	if (header.number == conversation->number && header.sequence < n_answered)
		return complain(conversation, -EPROTO, ret_complaint,
				"message %" PRIu64 " has returned again",
				header.sequence);
	if (n_answered >= conversation->n_due)
		return complain(conversation, -EPROTO, ret_complaint,
				"more has returned than was sent");
	if (header.number == conversation->number && header.sequence > n_answered &&
	    header.sequence < conversation->n_due)
		return complain(conversation, -EPROTO, ret_complaint,
				"message %" PRIu64 " was lost: the next is %" PRIu64,
				n_answered, header.sequence);
	while (conversation->partial[i] == wanted[i])
		i++;
	return complain(conversation, -EPROTO, ret_complaint,
			"wrong byte at %" PRIu32 " of message %" PRIu64
			": 0x%02x instead of 0x%02x",
			i, n_answered, conversation->partial[i], wanted[i]);
}

static int check_message(struct conversation *conversation,
			 struct complaint *ret_complaint)
{
	unsigned char wanted[MESSAGE_BYTES_MAX];

	message_write(conversation, conversation->n_answered, wanted);
	if (conversation->n_answered >= conversation->n_due ||
	    memcmp(wanted, conversation->partial, conversation->message_bytes) != 0)
		return describe_damage(conversation, wanted, ret_complaint);
	conversation->n_answered++;
	conversation->n_partial = 0;
	return 0;
}

static int take_bytes(struct conversation *conversation, const unsigned char *bytes,
		      size_t n_bytes, struct complaint *ret_complaint)
{
	while (n_bytes > 0) {
		size_t n = conversation->message_bytes - conversation->n_partial;
		int r;

		n = n_bytes < n ? n_bytes : n;
		memcpy(conversation->partial + conversation->n_partial, bytes, n);
		conversation->n_partial += (uint32_t)n;
		bytes += n;
		n_bytes -= n;
		if (conversation->n_partial < conversation->message_bytes)
			return 0;
		r = check_message(conversation, ret_complaint);
		if (r < 0)
			return r;
	}
	return 0;
}

static int take_end(struct conversation *conversation, struct complaint *ret_complaint)
{
	if (!conversation->is_ending)
		return complain(conversation, -EPROTO, ret_complaint,
				"the service has ended it");
	if (conversation->n_partial > 0)
		return complain(conversation, -EPROTO, ret_complaint,
				"%" PRIu32 " bytes more have returned than were sent",
				conversation->n_partial);
	conversation->has_ended = true;
	return 0;
}

/* How long ago the stamp of what was received is; 0 if it has none. */
static uint64_t stamp_age_usec(struct msghdr *received)
{
	const struct cmsghdr *control = CMSG_FIRSTHDR(received);
	struct timespec stamp;
	struct timespec now;
	int64_t usec;

	if (!control || control->cmsg_level != SOL_SOCKET ||
	    control->cmsg_type != SCM_TIMESTAMPNS)
		return 0;
	memcpy(&stamp, CMSG_DATA(control), sizeof(stamp));
	(void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail for this clock */
	usec = (now.tv_sec - stamp.tv_sec) * (int64_t)USEC_PER_SEC +
	       (now.tv_nsec - stamp.tv_nsec) / 1000;
	return usec > 0 ? (uint64_t)usec : 0;
}

int conversation_receive(struct conversation *conversation,
			 struct complaint *ret_complaint)
{
	static unsigned char bytes[65536];
	alignas(struct cmsghdr) unsigned char control[CMSG_SPACE(sizeof(struct timespec))];
	struct iovec iov = {.iov_base = bytes, .iov_len = sizeof(bytes)};
	struct msghdr message = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	ssize_t n = recvmsg(conversation->fd, &message, 0);

	conversation->arrived_usec = time_now_usec();
	if (n > 0)
		conversation->arrived_usec -= stamp_age_usec(&message);
	if (n < 0 && errno == EAGAIN)
		return 0;
	if (n < 0)
		return complain_of_errno(conversation, "cannot receive", ret_complaint);
	if (n == 0)
		return take_end(conversation, ret_complaint);
	return take_bytes(conversation, bytes, (size_t)n, ret_complaint);
}

int conversation_end(struct conversation *conversation, struct complaint *ret_complaint)
{
	conversation->is_ending = true;
	if (shutdown(conversation->fd, SHUT_WR) < 0)
		return complain_of_errno(conversation, "cannot end it", ret_complaint);
	return 0;
}
