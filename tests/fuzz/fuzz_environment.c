/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* environment_find(): its value stays within its memory, and is empty where there is none.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "generator/environment.h"
#include "generator/generate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t value_size = size > 0 ? (size_t)data[0] + 1 : 1;
	char *value = malloc(value_size);
	bool found;

	if (!value)
		return 0;
	found = environment_find((const char *)data, size, "SERVICE", value, value_size);
	if (strnlen(value, value_size) == value_size || (!found && value[0] != '\0'))
		abort();
	if (generate_is_networked(value) && strlen(value) < strlen("relay x"))
		abort();
	free(value);
	return 0;
}
