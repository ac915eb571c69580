/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Addresses to listen on, in the forms of ListenStream= of systemd.socket(5). */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>

/* What address_parse() takes, for messages to a person. */
#define ADDRESS_FORMS "PORT, IPV4:PORT, [IPV6]:PORT, /PATH or @ABSTRACT-NAME"

struct address {
	/* a port alone: [::] for both families, or 0.0.0.0 where there is no IPv6 */
	bool is_port_only;
	socklen_t size;
	union {
		struct sockaddr any;
		struct sockaddr_in ipv4;
		struct sockaddr_in6 ipv6;
		struct sockaddr_un local;
	} socket;
};

/*
 * Parses text. Names are not resolved; ports are 1..65535; paths and abstract names
 * (without their '@') have at most 107 bytes.
 * Returns 0, or -EINVAL if text is none of ADDRESS_FORMS.
 */
int address_parse(const char *text, struct address *ret_address);

/*
 * Opens a listening stream socket, non-blocking as systemd passes them, with SO_REUSEADDR
 * and a backlog of SOMAXCONN. A socket file that nobody listens on any more is replaced;
 * a new one has mode 0666, the default of SocketMode=.
 * Returns the fd, which the caller owns, or a negative errno of socket(2), bind(2) or
 * listen(2): -EADDRINUSE also if the path is not a socket or somebody listens there.
 */
int address_listen(const struct address *address);
