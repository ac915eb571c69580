/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* options_parse(): a command line, of words that end in NUL. What is refused is
 * explained. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "holdfastd/options.h"

#define WORDS_MAX 16

static int split(char *text, size_t size, char *words[WORDS_MAX + 2])
{
	static char name[] = "holdfastd";
	int n = 0;

	words[n++] = name;
	for (char *word = text; word < text + size && n <= WORDS_MAX;
	     word += strlen(word) + 1)
		words[n++] = word;
	words[n] = NULL;
	return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct options options;
	char *words[WORDS_MAX + 2], *text = malloc(size + 1), error[512] = "";
	int n, r;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	n = split(text, size, words);
	r = options_parse(n, words, &options, error, sizeof(error));
	if (r < 0 && error[0] == '\0')
		abort();
	if (r == OPTIONS_RUN &&
	    (options.buffer_bytes < 1 || options.n_threads > THREADS_MAX ||
	     options.buffer_bytes > BUFFER_BYTES_MAX))
		abort();
	free(text);
	return 0;
}
