/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/pager.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/verbs.h"

static pid_t pager_pid;
/* As it was before there was a pager */
static int has_color = -1;

bool pager_has_color(void)
{
	const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");

	if (has_color < 0)
		has_color = isatty(STDOUT_FILENO) && !(no_color && *no_color) && term &&
			    strcmp(term, "dumb") != 0;
	return has_color;
}

/* NULL: none. */
static const char *get_command(void)
{
	const char *command = getenv("SYSTEMD_PAGER");

	if (!command)
		command = getenv("PAGER");
	if (!command)
		return "command -v less >/dev/null && exec less; "
		       "command -v more >/dev/null && exec more; exec cat";
	return *command && strcmp(command, "cat") != 0 ? command : NULL;
}

__attribute__((noreturn)) static void run(const char *command, int input)
{
	const char *less = getenv("SYSTEMD_LESS");

	(void)setenv("LESS", less ? less : "FRSXMK", 1);
	/* It may run as root: no commands out of it, unless somebody says so */
	(void)setenv("LESSSECURE", "1", 0);
	if (dup2(input, STDIN_FILENO) >= 0)
		(void)execl("/bin/sh", "sh", "-c", command, (char *)NULL);
	_exit(127);
}

void pager_open(void)
{
	const char *command = get_command();
	int ends[2];

	(void)pager_has_color();
	if (!command || !isatty(STDOUT_FILENO) || pipe(ends) < 0)
		return;
	/* One that is quit before it has all is no failure of ours */
	(void)signal(SIGPIPE, SIG_IGN);
	pager_pid = fork();
	if (pager_pid == 0) {
		(void)close(ends[1]);
		(void)signal(SIGPIPE, SIG_DFL);
		run(command, ends[0]);
	}
	if (pager_pid > 0) {
		(void)dup2(ends[1], STDOUT_FILENO);
		/* Ctrl-C is for it: it may be in the middle of something */
		(void)signal(SIGINT, SIG_IGN);
	}
	(void)close(ends[0]);
	(void)close(ends[1]);
}

bool pager_close(void)
{
	if (pager_pid <= 0)
		return false;
	(void)fflush(stdout);
	/* Its end: the pager waits for no more */
	(void)close(STDOUT_FILENO);
	while (waitpid(pager_pid, NULL, 0) < 0 && errno == EINTR)
		;
	pager_pid = 0;
	return true;
}

int finish_output(bool was_well)
{
	/* A pager that was quit has had enough: that is no failure */
	if (pager_close())
		return was_well ? EXIT_SUCCESS : STATUS_FAILURE;
	return fflush(stdout) || ferror(stdout) || !was_well ? STATUS_FAILURE
							     : EXIT_SUCCESS;
}
