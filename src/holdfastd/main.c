/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "base/fd.h"
#include "base/log.h"
#include "holdfastd/capacity.h"
#include "holdfastd/listener.h"
#include "holdfastd/messages.h"
#include "holdfastd/options.h"
#include "holdfastd/server.h"
#include "holdfastd/spawn.h"
#include "holdfastd/successor.h"
#include "vault/store.h"

#define HOW_TO_START                                                                      \
	"start it by socket activation: systemctl enable --now holdfast@8888.socket, or " \
	"holdfast-keeper --listen=8888 -- holdfastd log"

#define HOW_TO_GET_NETWORK                                                                 \
	"its sandbox has no network. Run systemctl daemon-reload, which gives it to each " \
	"/etc/holdfast/NAME.conf with SERVICE=relay, and restart the service; no "         \
	"connection is lost"

/* How long a process that can't serve lives on before it says so by its end. */
#define RESTART_DELAY_SEC 1

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
static int sort_passed(const struct options *options, struct inheritance *inheritance)
{
	struct stored_fd *stored;
	char **names = NULL;
	int n = sd_listen_fds_with_names(0, &names), *listeners;

	if (n < 0)
		return n;
	listeners = calloc((size_t)n + 1, sizeof(*listeners));
	stored = calloc((size_t)n + 1, sizeof(*stored));
	if (!listeners || !stored) {
		free(listeners);
		free(stored);
		return -ENOMEM;
	}
	for (int i = 0; i < n; i++) {
		int fd = SD_LISTEN_FDS_START + i;

		if (listener_is_one(fd)) {
			set_listener_flags(fd, options);
			listeners[inheritance->n_listeners++] = fd;
			free(names[i]);
		} else {
			stored[inheritance->n_stored++] =
				(struct stored_fd){.fd = fd, .name = names[i]};
		}
	}
	free(names); /* but not those of stored fds */
	inheritance->listeners = listeners;
	inheritance->stored = stored;
	return 0;
}

/*
 * A manager that passed us sockets will start us again, at once and with the same
 * mistake, and keeps the stored connections meanwhile: they live on when it has been
 * mended. So the mistake is made slowly.
 */
static int fail_slowly(const struct inheritance *inheritance, int status)
{
	if (inheritance->is_activated)
		(void)sleep(RESTART_DELAY_SEC);
	return status;
}

static int refuse(const struct inheritance *inheritance, int status, const char *text)
{
	log_line(LOG_ERR, MESSAGE_NOT_STARTED, "%s", text);
	if (inheritance->handover >= 0)
		successor_say_failure(inheritance->handover, text);
	return fail_slowly(inheritance, status);
}

static int usage_error(const struct inheritance *inheritance, const char *text)
{
	return refuse(inheritance, EXIT_STATUS_USAGE, text);
}

/* What it takes to be started by a service manager, or an explanation. */
static int check_manager(const struct options *options, struct inheritance *inheritance)
{
	int r;

	if (inheritance->handover >= 0)
		return EXIT_SUCCESS;
	r = sort_passed(options, inheritance);
	if (r < 0) {
		log_line(LOG_ERR, MESSAGE_NOT_STARTED,
			 "Can't take what was passed at the start: %s%s", strerror(-r),
			 r == -EINVAL ? " (does a FileDescriptorName= have a colon?)"
				      : "");
		return EXIT_FAILURE;
	}
	if (inheritance->n_listeners == 0)
		return usage_error(inheritance,
				   "No listening socket was passed: " HOW_TO_START);
	if (!store_is_there())
		return usage_error(inheritance,
				   "No service manager would keep the connections "
				   "($NOTIFY_SOCKET is not set): " HOW_TO_START);
	return EXIT_SUCCESS;
}

/*
 * A relay that was made of another service, in a unit whose sandbox is still the other's.
 * Only a restriction of address families gives this for IPv4. Having no interfaces tells
 * nothing: that may be meant, or change.
 */
static bool has_no_network(void)
{
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd < 0 && errno == EAFNOSUPPORT;
}

static int check_network(const struct options *options,
			 const struct inheritance *inheritance)
{
	char text[512];

	if (options->service != SERVICE_RELAY || options->upstream.is_path ||
	    !has_no_network())
		return EXIT_SUCCESS;
	(void)snprintf(text, sizeof(text), "Can't relay to %s:%s: " HOW_TO_GET_NETWORK,
		       options->upstream.host, options->upstream.port);
	return usage_error(inheritance, text);
}

/* Any of the fds with which this process was started may be where a successor's socket is
 * to be. */
static int keep_successor_fd(struct inheritance *inheritance)
{
	int fd = spawn_keep_fd();

	if (fd <= 0)
		return fd;
	if (inheritance->handover == SUCCESSOR_FD)
		inheritance->handover = fd;
	for (size_t i = 0; i < inheritance->n_listeners; i++)
		if (inheritance->listeners[i] == SUCCESSOR_FD)
			inheritance->listeners[i] = fd;
	for (size_t i = 0; i < inheritance->n_stored; i++)
		if (inheritance->stored[i].fd == SUCCESSOR_FD)
			inheritance->stored[i].fd = fd;
	return 0;
}

int main(int argc, char *argv[])
{
	/* Threads read these until the process is gone */
	static struct options options;
	static struct inheritance inheritance;
	char error[512];
	int r;

	server_block_takeover_signal();
	log_init();
	inheritance.arguments = argv;
	inheritance.handover = successor_find_socket();
	/* Once: it is an error of what has been closed meanwhile */
	inheritance.is_activated = sd_listen_fds(0) > 0;
	/* For the classification of bytes as characters, in what is logged */
	(void)setlocale(LC_CTYPE, "C.UTF-8");
	r = options_parse(argc, argv, &options, error, sizeof(error));
	if (r < 0)
		return usage_error(&inheritance, error);
	if (r == OPTIONS_HELP)
		return fputs(options_help, stdout) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	if (r == OPTIONS_VERSION)
		return puts("holdfastd " HOLDFAST_VERSION) < 0 ? EXIT_FAILURE
							       : EXIT_SUCCESS;
	log_set_max_level(options.log_level);

	r = check_manager(&options, &inheritance);
	if (r == EXIT_SUCCESS)
		r = check_network(&options, &inheritance);
	if (r != EXIT_SUCCESS)
		return r;
	server_block_signals();
	capacity_grow_file_table(); /* before there are threads */
	r = keep_successor_fd(&inheritance);
	if (r == 0)
		r = log_start();
	if (r < 0) {
		(void)snprintf(error, sizeof(error), "Can't start: %s", strerror(-r));
		return refuse(&inheritance, EXIT_FAILURE, error);
	}
	log_info("pid: %d", getpid());
	r = server_run(&options, &inheritance);
	if (r != EXIT_SUCCESS && r != EXIT_STATUS_IDLE && r != EXIT_STATUS_AGAIN)
		(void)fail_slowly(&inheritance, r);
	server_halt();
	/* Not exit(): workers run to the last instant, and there is nothing to be saved */
	_exit(r);
}
