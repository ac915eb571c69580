/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the command lines of the bench's programs have in common. */
#pragma once

#include <stdint.h>
#include <sys/socket.h>

/* Parses the value of --option=. Returns 0, or -EINVAL after saying on stderr what is
 * wrong. */
int argument_parse_number(const char *option, const char *text, uint32_t min,
			  uint32_t max, uint32_t *ret_number);

/* Parses HOST:PORT. Returns 0, or -EINVAL after saying on stderr what is wrong. */
int argument_parse_address(const char *text, struct sockaddr_storage *ret_address,
			   socklen_t *ret_address_bytes);
