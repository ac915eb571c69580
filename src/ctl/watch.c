/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The list on the whole terminal, again and again. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/time.h"
#include "ctl/list.h"
#include "ctl/pager.h"
#include "ctl/verbs.h"

#define REFRESH_USEC (2 * USEC_PER_SEC)
/* Another screen than that of the shell, without a cursor; and the way back. */
#define SCREEN_BEGIN "\x1b[?1049h\x1b[?25l"
#define SCREEN_END "\x1b[?25h\x1b[?1049l"
#define SCREEN_CLEAR "\x1b[H\x1b[J"
/* Lines that are none of the table's rows: its header, and what is below it. */
#define LINES_BESIDE 3

static int open_signals(void)
{
	sigset_t signals;

	(void)sigemptyset(&signals);
	(void)sigaddset(&signals, SIGINT);
	(void)sigaddset(&signals, SIGTERM);
	(void)sigaddset(&signals, SIGHUP);
	(void)sigaddset(&signals, SIGWINCH);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	return signalfd(-1, &signals, SFD_CLOEXEC);
}

static void print_screen(const struct request *request)
{
	struct table_look look = {.has_header = true, .has_color = pager_has_color()};
	struct winsize size = {.ws_row = 24, .ws_col = 80};
	struct connection_rows rows;
	struct table *table;

	(void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	look.width = size.ws_col;
	look.n_rows_max = size.ws_row > LINES_BESIDE ? size.ws_row - LINES_BESIDE : 1;
	/* What it says of one that does not answer stays until the next time */
	(void)fputs(SCREEN_CLEAR, stdout);
	(void)fflush(stdout);
	(void)list_ask(request, &rows);
	table = list_make_table(&rows, look.n_rows_max);
	if (table)
		table_print(table, &look, stdout);
	(void)printf("\n%zu connections of %zu instances; q leaves", rows.n,
		     request->targets.n);
	(void)fflush(stdout);
	(void)table_free(table);
	connection_rows_done(&rows);
}

static bool is_to_leave(struct pollfd events[2])
{
	struct signalfd_siginfo info;
	char key;

	if (events[0].revents &&
	    (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q'))
		return true;
	return events[1].revents &&
	       read(events[1].fd, &info, sizeof(info)) == sizeof(info) &&
	       info.ssi_signo != SIGWINCH;
}

/* What is due at which time is not so important here: a key or a signal brings the next
 * screen earlier. */
static void run(const struct request *request, int signal_fd)
{
	struct pollfd events[2] = {
		{.fd = STDIN_FILENO, .events = POLLIN},
		{.fd = signal_fd, .events = POLLIN},
	};

	do {
		print_screen(request);
		if (poll(events, 2, (int)(REFRESH_USEC / USEC_PER_MSEC)) < 0)
			return;
	} while (!is_to_leave(events));
}

int verb_watch(const struct request *request)
{
	_cleanup_close_ int signal_fd = -EBADF;
	struct termios before, raw;

	if (!isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &before) < 0) {
		(void)fputs("holdfastctl: watch needs a terminal; see list\n", stderr);
		return STATUS_FAILURE;
	}
	signal_fd = open_signals();
	if (signal_fd < 0)
		return STATUS_FAILURE;
	raw = before;
	raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	(void)fputs(SCREEN_BEGIN, stdout);
	run(request, signal_fd);
	(void)fputs(SCREEN_END, stdout);
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &before);
	return finish_output(true);
}
