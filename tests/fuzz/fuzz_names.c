/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* store_parcel_index(): a name from the store is a parcel's only in the form that we
 * write. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "vault/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char name[300], canonical[STORE_NAME_SIZE];
	int index;

	if (size >= sizeof(name))
		return 0;
	memcpy(name, data, size);
	name[size] = '\0';
	index = store_parcel_index(name, 4094);
	if (index < 0)
		return 0;
	store_parcel_name((unsigned)index, canonical);
	if (index >= 4094 || strcmp(name, canonical) != 0)
		abort();
	return 0;
}
