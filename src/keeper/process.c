/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper/process.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"

/* A tree changes while one walks it; that must not become an endless walk. */
#define DEPTH_MAX 1024

/* The parent of a living process, or 0. */
static pid_t living_parent(pid_t pid)
{
	_cleanup_close_ int fd = -EBADF;
	char text[256];
	const char *end;
	ssize_t n;
	char state;
	int parent;

	(void)snprintf(text, sizeof(text), "/proc/%d/stat", (int)pid);
	fd = open(text, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n < 0)
		return 0;
	text[n] = '\0';
	/* proc_pid_stat(5): "pid (name) state parent ..."; the name may hold anything */
	end = strrchr(text, ')');
	if (!end || sscanf(end, ") %c %d", &state, &parent) != 2)
		return 0;
	return strchr("ZXx", state) ? 0 : parent;
}

bool process_is_child(pid_t pid)
{
	siginfo_t info;

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

bool process_is_descendant(pid_t pid)
{
	pid_t self = getpid();
	siginfo_t info = {.si_pid = 0};
	int i;

	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
		return info.si_pid ==
		       0; /* a child: else it has ended and waits to be reaped */
	for (i = 0; pid > 0 && i < DEPTH_MAX; i++) {
		pid = living_parent(pid);
		if (pid == self)
			return true;
	}
	return false;
}
