/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Any bytes as the text of a notify message: message_parse() must be total. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "keeper/fdname.h"
#include "keeper/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *text, size_t size, const struct message *message)
{
	assert(message->n_assignments <= size);
	assert(message->main_pid >= 0);
	if (message->fd_name) {
		assert(message->fd_name > text && message->fd_name <= text + size);
		assert(fd_name_is_valid(message->fd_name));
	}
	if (message->status)
		assert(message->status > text && message->status <= text + size);
	if (message->malformed) {
		assert(message->malformed >= text && message->malformed < text + size);
		assert(strchr(message->malformed, '='));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct message message;
	/* of exactly the promised size, so that a step beyond it is seen */
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	if (size > 0)
		memcpy(text, data, size);
	if (message_parse(text, size, &message) == 0)
		check(text, size, &message);
	free(text);
	return 0;
}
