/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/sched-attributes.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

bool sched_attributes_get(pid_t thread, struct sched_attributes *ret_attributes)
{
	return syscall(SYS_sched_getattr, thread, ret_attributes, sizeof(*ret_attributes),
		       0) == 0;
}

bool sched_attributes_set(pid_t thread, struct sched_attributes *attributes)
{
	return syscall(SYS_sched_setattr, thread, attributes, 0) == 0;
}

bool sched_attributes_change_all(pid_t process, void (*change)(pid_t thread))
{
	char path[32];
	struct dirent *entry;
	DIR *directory;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)process);
	directory = opendir(path);
	if (!directory)
		return false;
	change(process);
	/* Nobody else reads this directory */
	while ((entry = readdir(directory))) {
		pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);

		if (thread > 0 && thread != process) /* not . and .. */
			change(thread);
	}
	(void)closedir(directory);
	return true;
}
