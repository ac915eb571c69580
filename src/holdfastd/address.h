/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The address of an upstream as a person writes it: HOST:PORT, [IPv6]:PORT or /path. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define ADDRESS_HOST_SIZE 256 /* a name has 253 bytes at most (RFC 1035) */
#define ADDRESS_PORT_SIZE 8

struct address {
	bool is_path;
	char host[ADDRESS_HOST_SIZE]; /* a name or a number; or the path, at most 107
					 bytes */
	char port[ADDRESS_PORT_SIZE]; /* decimal, 1..65535 */
};

/*
 * Parses text. Returns 0, or -EINVAL after writing to ret_error[error_size] what is wrong.
 */
int address_parse(const char *text, struct address *ret_address, char *ret_error,
		  size_t error_size);
