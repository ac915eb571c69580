/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "argument.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "holdfastd/address.h"

int argument_parse_number(const char *option, const char *text, uint32_t min,
			  uint32_t max, uint32_t *ret_number)
{
	size_t n_digits = strspn(text, "0123456789");
	unsigned long number = n_digits < 10 ? strtoul(text, NULL, 10) : UINT32_MAX;

	if (n_digits == 0 || text[n_digits] || number < min || number > max) {
		(void)fprintf(stderr, "%s: --%s=%s: give a number from %u to %u\n",
			      program_invocation_short_name, option, text, min, max);
		return -EINVAL;
	}
	*ret_number = (uint32_t)number;
	return 0;
}

int argument_parse_address(const char *text, struct sockaddr_storage *ret_address,
			   socklen_t *ret_address_bytes)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	const char *program = program_invocation_short_name;
	struct addrinfo *found;
	struct address address;
	char error[256] = "";
	int r;

	if (address_parse(text, &address, error, sizeof(error)) < 0 || address.is_path) {
		(void)fprintf(stderr, "%s: %s: %s\n", program, text,
			      *error ? error : "give HOST:PORT");
		return -EINVAL;
	}
	r = getaddrinfo(address.host, address.port, &hints, &found);
	if (r != 0) {
		(void)fprintf(stderr, "%s: %s: %s\n", program, text, gai_strerror(r));
		return -EINVAL;
	}
	memcpy(ret_address, found->ai_addr, found->ai_addrlen);
	*ret_address_bytes = found->ai_addrlen;
	freeaddrinfo(found);
	return 0;
}
