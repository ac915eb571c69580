/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* address_parse(): what it takes is a host or a path, and a port, each within its bounds.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "holdfastd/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct address address;
	char *text = malloc(size + 1), error[128] = "";
	int r;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	r = address_parse(text, &address, error, sizeof(error));
	if (r == 0 &&
	    (address.host[0] == '\0' || (!address.is_path && atoi(address.port) < 1) ||
	     atoi(address.port) > 65535))
		abort();
	if (r < 0 && error[0] == '\0')
		abort();
	free(text);
	return 0;
}
