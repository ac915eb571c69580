/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/address.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#define ACCEPTED "HOST:PORT, [IPv6]:PORT or /path"

static int refuse(const char *text, const char *why, char *ret_error, size_t error_size)
{
	(void)snprintf(ret_error, error_size, "upstream '%s': %s; give " ACCEPTED, text,
		       why);
	return -EINVAL;
}

static bool is_port(const char *text)
{
	size_t length = strlen(text);

	if (length == 0 || length > 5 || strspn(text, "0123456789") != length)
		return false;
	return atoi(text) >= 1 && atoi(text) <= 65535;
}

static bool is_host_character(char c, bool bracketed)
{
	if (isalnum((unsigned char)c) || c == '.' || c == '-' || c == '_')
		return true;
	return bracketed && (c == ':' || c == '%');
}

static bool is_host(const char *host, size_t length, bool bracketed)
{
	if (length == 0 || length >= ADDRESS_HOST_SIZE)
		return false;
	for (size_t i = 0; i < length; i++)
		if (!is_host_character(host[i], bracketed))
			return false;
	return true;
}

static int parse_path(const char *text, struct address *ret_address, char *ret_error,
		      size_t error_size)
{
	struct address address = {.is_path = true};

	if (strlen(text) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return refuse(text, "the path is longer than 107 bytes", ret_error,
			      error_size);
	memcpy(address.host, text, strlen(text) + 1);
	*ret_address = address;
	return 0;
}

int address_parse(const char *text, struct address *ret_address, char *ret_error,
		  size_t error_size)
{
	struct address address = {0};
	const char *host = text, *colon = strrchr(text, ':');
	bool bracketed = text[0] == '[';
	size_t length;

	if (text[0] == '/')
		return parse_path(text, ret_address, ret_error, error_size);
	if (!colon || !is_port(colon + 1))
		return refuse(text, "the port (1 to 65535) is missing or wrong",
			      ret_error, error_size);
	length = (size_t)(colon - text);
	if (bracketed) {
		if (length < 2 || colon[-1] != ']')
			return refuse(text, "the bracket is not closed before the port",
				      ret_error, error_size);
		host++;
		length -= 2;
	}
	if (!is_host(host, length, bracketed))
		return refuse(text,
			      "the host is missing or has characters that no host has",
			      ret_error, error_size);
	memcpy(address.host, host, length);
	memcpy(address.port, colon + 1, strlen(colon + 1) + 1);
	*ret_address = address;
	return 0;
}
