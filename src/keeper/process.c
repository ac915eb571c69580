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

/*
 * The parent of a process, or 0. *ret_is_living: whether it has not ended. An ancestor
 * may have, and be a parent all the same while its last threads still go.
 */
static pid_t parent_of(pid_t pid, bool *ret_is_living)
{
	_cleanup_close_ int fd = -EBADF;
	char text[256];
	const char *end;
	ssize_t n;
	char state;
	int parent;

	*ret_is_living = false;
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
	*ret_is_living = !strchr("ZXx", state);
	return parent;
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
	bool is_living;
	int i;

	if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
		return info.si_pid ==
		       0; /* a child: else it has ended and waits to be reaped */
	for (i = 0; pid > 0 && i < DEPTH_MAX; i++) {
		pid = parent_of(pid, &is_living);
		if (i == 0 && !is_living)
			return false;
		if (pid == self)
			return true;
	}
	return false;
}
