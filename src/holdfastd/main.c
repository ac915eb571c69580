/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "base/log.h"
#include "holdfastd/listener.h"
#include "holdfastd/messages.h"
#include "holdfastd/options.h"
#include "holdfastd/server.h"
#include "vault/store.h"

#define HOW_TO_START                                                                      \
	"start it by socket activation: systemctl enable --now holdfast@8888.socket, or " \
	"holdfast-keeper --listen=8888 -- holdfastd log"

/* How long a process that can't start at all lives on before it says so by its end. */
#define RESTART_DELAY_SEC 1

struct passed {
	int *listeners;
	size_t n_listeners;
	struct stored_fd *stored;
	size_t n_stored;
};

static void set_listener_flags(int fd, const struct options *options)
{
	int flags = fcntl(fd, F_GETFL);

	/* These fail only for what is no fd, and this one listens */
	(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	listener_set_options(fd, options->keepalive_idle_usec);
}

/* Listeners are told by what they are, stored fds by their names: the order means
 * nothing. */
static int sort_passed(const struct options *options, struct passed *ret_passed)
{
	struct passed passed = {0};
	char **names = NULL;
	int n = sd_listen_fds_with_names(0, &names);

	if (n < 0)
		return n;
	passed.listeners = calloc((size_t)n + 1, sizeof(*passed.listeners));
	passed.stored = calloc((size_t)n + 1, sizeof(*passed.stored));
	if (!passed.listeners || !passed.stored)
		return -ENOMEM;
	for (int i = 0; i < n; i++) {
		int fd = SD_LISTEN_FDS_START + i;

		if (listener_is_one(fd)) {
			set_listener_flags(fd, options);
			passed.listeners[passed.n_listeners++] = fd;
		} else {
			passed.stored[passed.n_stored++] =
				(struct stored_fd){.fd = fd, .name = names[i]};
		}
	}
	*ret_passed = passed;
	return 0;
}

/*
 * A manager that passed us sockets will start us again, at once and with the same
 * mistake, and keeps the stored connections meanwhile: they live on when it has been
 * mended. So the mistake is made slowly.
 */
static int fail_slowly(int status)
{
	if (sd_listen_fds(0) > 0)
		(void)sleep(RESTART_DELAY_SEC);
	return status;
}

static int usage_error(const char *text)
{
	log_error("%s", text);
	return fail_slowly(EXIT_STATUS_USAGE);
}

int main(int argc, char *argv[])
{
	static struct options options; /* threads read it until the process is gone */
	static struct passed passed;   /* as well */
	char error[512];
	int r;

	log_init();
	/* For the classification of bytes as characters, in what is logged */
	(void)setlocale(LC_CTYPE, "C.UTF-8");
	r = options_parse(argc, argv, &options, error, sizeof(error));
	if (r < 0)
		return usage_error(error);
	if (r == OPTIONS_HELP)
		return fputs(options_help, stdout) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	if (r == OPTIONS_VERSION)
		return puts("holdfastd " HOLDFAST_VERSION) < 0 ? EXIT_FAILURE
							       : EXIT_SUCCESS;
	log_set_max_level(options.log_level);

	r = sort_passed(&options, &passed);
	if (r < 0) {
		log_error("Can't take what was passed at the start: %s%s", strerror(-r),
			  r == -EINVAL ? " (does a FileDescriptorName= have a colon?)"
				       : "");
		return EXIT_FAILURE;
	}
	if (passed.n_listeners == 0)
		return usage_error("No listening socket was passed: " HOW_TO_START);
	if (!store_is_there())
		return usage_error("No service manager would keep the connections "
				   "($NOTIFY_SOCKET is not set): " HOW_TO_START);
	server_block_signals();
	r = log_start();
	if (r < 0) {
		log_error("Can't start the log thread: %s", strerror(-r));
		return fail_slowly(EXIT_FAILURE);
	}
	log_info("pid: %d", getpid());
	r = server_run(&options, passed.listeners, passed.n_listeners, passed.stored,
		       passed.n_stored);
	if (r != EXIT_SUCCESS && r != EXIT_STATUS_IDLE)
		(void)fail_slowly(r);
	/* Not exit(): workers run to the last instant, and there is nothing to be saved */
	_exit(r);
}
