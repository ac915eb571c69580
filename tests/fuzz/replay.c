/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs a fuzz target over every file of a corpus, without a fuzzer: what was once found
 * stays found, in the ordinary test run and with every compiler. Prints TAP.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"

#define INPUT_BYTES_MAX (1 << 20)

static int replay_file(const char *directory, const char *name)
{
	static uint8_t input[INPUT_BYTES_MAX];
	char path[4096];
	size_t n;
	FILE *file;

	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	file = fopen(path, "re");
	if (!file)
		return -1;
	n = fread(input, 1, sizeof(input), file);
	(void)fclose(file);
	return LLVMFuzzerTestOneInput(input, n);
}

static int is_input(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

int main(int argc, char *argv[])
{
	struct dirent **entries;
	int n, n_failed = 0;

	if (argc != 2)
		return EXIT_FAILURE;
	n = scandir(argv[1], &entries, is_input, alphasort);
	if (n <= 0) {
		printf("1..1\nnot ok 1 - %s has no inputs\n", argv[1]);
		return EXIT_FAILURE;
	}
	printf("1..%d\n", n);
	for (int i = 0; i < n; i++) {
		int r = replay_file(argv[1], entries[i]->d_name);

		printf("%s %d - %s\n", r == 0 ? "ok" : "not ok", i + 1,
		       entries[i]->d_name);
		n_failed += r != 0;
		free(entries[i]);
	}
	free(entries);
	return n_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
