/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What no system call makes a TCP socket send: an urgent pointer to where no byte is. For
 * the programs here and the unit tests; it takes CAP_NET_ADMIN and CAP_NET_RAW.
 */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The next sequence number of one queue of a socket that is under repair. */
static inline int urgent_get_sequence(int fd, int queue, uint32_t *ret_number)
{
	socklen_t size = sizeof(*ret_number);

	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof(queue)) < 0)
		return -1;
	return getsockopt(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, ret_number, &size);
}

static inline int urgent_get_sequences(int fd, uint32_t *ret_sent, uint32_t *ret_received)
{
	/* As netinet/tcp.h names them, which cannot be included beside linux/tcp.h */
	enum { RECEIVE_QUEUE = 1, SEND_QUEUE = 2 };
	int on = 1, off = 0, r;

	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &on, sizeof(on)) < 0)
		return -1;
	r = urgent_get_sequence(fd, SEND_QUEUE, ret_sent);
	if (r == 0)
		r = urgent_get_sequence(fd, RECEIVE_QUEUE, ret_received);
	if (setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &off, sizeof(off)) < 0)
		return -1;
	return r;
}

/* RFC 9293, 3.1: with the addresses and the length before the segment. */
static inline uint16_t urgent_checksum(const struct sockaddr_in *from,
				       const struct sockaddr_in *to,
				       const struct tcphdr *segment)
{
	uint16_t words[6 + sizeof(*segment) / 2];
	uint32_t sum = 0;

	memcpy(words, &from->sin_addr, 4);
	memcpy(words + 2, &to->sin_addr, 4);
	words[4] = htons(IPPROTO_TCP);
	words[5] = htons(sizeof(*segment));
	memcpy(words + 6, segment, sizeof(*segment));
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t) ~(sum + (sum >> 16));
}

/*
 * Sends to the peer of fd, an IPv4 connection all of whose bytes are acknowledged, a
 * segment of no bytes with an urgent pointer: 1 is the next byte to be sent. Returns 0,
 * or -1 and errno.
 */
static inline int urgent_point_at(int fd, uint16_t pointer)
{
	struct sockaddr_in from, to;
	socklen_t from_size = sizeof(from), to_size = sizeof(to);
	struct tcphdr segment = {.doff = sizeof(segment) / 4, .ack = 1, .urg = 1};
	uint32_t sent, received;
	int raw, r;

	if (getsockname(fd, (struct sockaddr *)&from, &from_size) < 0 ||
	    getpeername(fd, (struct sockaddr *)&to, &to_size) < 0 ||
	    urgent_get_sequences(fd, &sent, &received) < 0)
		return -1;
	segment.source = from.sin_port;
	segment.dest = to.sin_port;
	segment.seq = htonl(sent);
	segment.ack_seq = htonl(received);
	segment.window = htons(1024);
	segment.urg_ptr = htons(pointer);
	segment.check = urgent_checksum(&from, &to, &segment);
	raw = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_TCP);
	if (raw < 0)
		return -1;
	to.sin_port = 0;
	r = sendto(raw, &segment, sizeof(segment), 0, (struct sockaddr *)&to, to_size) ==
			    sizeof(segment)
		    ? 0
		    : -1;
	(void)close(raw);
	return r;
}
