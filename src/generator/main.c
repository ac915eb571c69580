/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holdfast-generator: run by systemd early at boot and at each daemon-reload, with the
 * three directories of systemd.generator(7). The first of them will do: an administrator's
 * unit files and drop-ins come before it. It ends with 0 whatever happens.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "base/fd.h"
#include "generator/generate.h"

/* There may be no journal yet; and one entry of /dev/kmsg is one write(2) */
static void say_failed(const char *name, int r)
{
	_cleanup_close_ int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NOCTTY);
	char line[512];
	int n = snprintf(line, sizeof(line),
			 "<%d>holdfast-generator[%d]: %s: %s; if it is a relay, it has no "
			 "network\n",
			 LOG_DAEMON | LOG_WARNING, getpid(), name, strerror(-r));

	if (n >= (int)sizeof(line))
		n = sizeof(line) - 1;
	/* There is nobody else to tell */
	if (write(fd < 0 ? STDERR_FILENO : fd, line, (size_t)n) < 0)
		return;
}

int main(int argc, char *argv[])
{
	if (argc != 4) {
		(void)fprintf(stderr, "usage: holdfast-generator NORMAL EARLY LATE\n"
				      "systemd runs this; see systemd.generator(7)\n");
		return EXIT_FAILURE;
	}
	generate_drop_ins(CONFIGURATION_DIRECTORY, argv[1], RELAY_DROP_IN, say_failed);
	return EXIT_SUCCESS;
}
