/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/targets.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int targets_add(struct targets *targets, const char *name, const char *path)
{
	struct target *list = reallocarray(targets->list, targets->n + 1, sizeof(*list));
	struct target target = {.name = strdup(name), .path = strdup(path)};

	if (list)
		targets->list = list;
	if (!list || !target.name || !target.path) {
		free(target.name);
		free(target.path);
		return -ENOMEM;
	}
	list[targets->n++] = target;
	return 0;
}

void targets_done(struct targets *targets)
{
	for (size_t i = 0; i < targets->n; i++) {
		free(targets->list[i].name);
		free(targets->list[i].path);
	}
	free(targets->list);
	*targets = (struct targets){0};
}

static int is_no_dot_file(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* A directory that may not be searched might have one: to ask says why not. */
static bool may_be_there(const char *path)
{
	return access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

static int add_in(struct targets *targets, const char *directory, const char *name)
{
	char *path;
	int r = 0;

	if (asprintf(&path, "%s/%s/control", directory, name) < 0)
		return -ENOMEM;
	if (may_be_there(path))
		r = targets_add(targets, name, path);
	free(path);
	return r;
}

int targets_find(struct targets *targets, const char *directory)
{
	struct dirent **entries;
	int n = scandir(directory, &entries, is_no_dot_file, versionsort), r = 0;

	if (n < 0)
		return errno == ENOENT ? 0 : -errno;
	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = add_in(targets, directory, entries[i]->d_name);
		free(entries[i]);
	}
	free(entries);
	return r;
}
