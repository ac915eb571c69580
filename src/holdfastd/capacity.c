/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/capacity.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "holdfastd/messages.h"
#include "vault/parcel.h"

/* Fds that are nobody's connection: standard ones, epolls, listeners, logs, control
 * clients. */
#define FILES_RESERVED 64ul

/* A worker's: three to wait and to peek with, and the parcel that it fills. */
#define FILES_PER_THREAD 8ul

/* Files for which there is room from the start, at eight bytes each: 512 KiB. */
#define FILE_TABLE_MAX 65536ul

/* Fds of one connection at its worst: its sockets, and a pipe for each flow. */
static unsigned files_per_connection(enum service_kind service)
{
	switch (service) {
	case SERVICE_LOG:
	case SERVICE_ECHO:
		return 2;
	case SERVICE_RELAY:
		return 4;
	}
	return 4;
}

unsigned long capacity_raise_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	limit.rlim_cur = limit.rlim_max;
	/* Up to the hard limit it is always allowed */
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur == RLIM_INFINITY ? CONNECTIONS_MAX * 8UL : limit.rlim_cur;
}

void capacity_grow_file_table(void)
{
	unsigned long files = capacity_raise_files();

	if (files > FILE_TABLE_MAX)
		files = FILE_TABLE_MAX;
	/* Where it fails the table grows by and by */
	(void)fd_close(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, (int)files - 1));
}

unsigned capacity_get_connections(const struct options *options, unsigned long files)
{
	unsigned per_connection = files_per_connection(options->service);
	/* All that this process serves has to fit beside what the next one keeps back
	 * while it adopts (vault/adopt.c) */
	unsigned long reserved = FILES_RESERVED + PARCEL_PACK_FDS_MAX +
				 FILES_PER_THREAD * capacity_get_threads(options);
	unsigned long most = files / 4;

	/* With a limit that leaves less than that, some are served all the same */
	if (files > reserved + most)
		most = files - reserved;
	/* Two fds for each parcel of PARCEL_ENTRIES_MAX: one part in a hundred */
	most = (most - most / 100) / per_connection;
	if (most > CONNECTIONS_MAX)
		most = CONNECTIONS_MAX;
	if (options->connections_max == 0)
		return (unsigned)most;
	if (options->connections_max > most)
		log_line(LOG_WARNING, MESSAGE_LIMIT,
			 "--connections-max=%u needs more open files than the limit of %lu "
			 "allows: %lu connections are served (raise LimitNOFILE=)",
			 options->connections_max, files, most);
	return options->connections_max < most ? options->connections_max
					       : (unsigned)most;
}

unsigned capacity_get_threads(const struct options *options)
{
	cpu_set_t cpus;
	int n = 1;

	if (options->n_threads > 0)
		return options->n_threads;
	if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0)
		n = CPU_COUNT(&cpus);
	return n > THREADS_MAX ? THREADS_MAX : (unsigned)n;
}
