/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command line of holdfastd. Parsing touches nothing but its result. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "holdfastd/address.h"
#include "holdfastd/service.h"

#define BUFFER_BYTES_DEFAULT 8
#define BUFFER_BYTES_MAX 65536
#define THREADS_MAX 64
#define CONNECTIONS_MAX 262144
#define KEEPALIVE_IDLE_USEC_DEFAULT (60 * USEC_PER_SEC)
#define CONNECT_TIMEOUT_USEC_DEFAULT (10 * USEC_PER_SEC)
#define TAKEOVER_TIMEOUT_USEC_DEFAULT (10 * USEC_PER_SEC)
/* Less than systemd's default for a reload (TimeoutStartSec=), and than holdfastctl waits
 */
#define TAKEOVER_TIMEOUT_USEC_MAX (60 * USEC_PER_SEC)

enum frame {
	FRAME_READ, /* one entry for each read */
	FRAME_LINE, /* one entry for each line */
};

struct options {
	enum service_kind service;
	struct address upstream; /* relay only */
	size_t buffer_bytes;
	enum frame frame;
	unsigned n_threads;            /* 0: as many as CPUs */
	unsigned connections_max;      /* 0: from RLIMIT_NOFILE */
	uint64_t idle_timeout_usec;    /* USEC_INFINITY: never */
	uint64_t connect_timeout_usec; /* for each address */
	uint64_t keepalive_idle_usec;  /* USEC_INFINITY: no keepalive */
	uint64_t exit_idle_usec;       /* USEC_INFINITY: never */
	uint64_t takeover_timeout_usec;
	const char *control; /* path of the control socket, argv's; NULL: none */
	int log_level;
};

enum options_result {
	OPTIONS_RUN = 0,
	OPTIONS_HELP = 1,
	OPTIONS_VERSION = 2,
};

/*
 * Parses argv into *ret_options. Returns enum options_result, or -EINVAL after writing
 * one line for a person to ret_error[error_size].
 */
int options_parse(int argc, char *argv[], struct options *ret_options, char *ret_error,
		  size_t error_size);

/* The text of --help. */
extern const char options_help[];

/*
 * Parses a time span: a number with an optional unit of us, ms, s (the default), min, h
 * or d, or "infinity". Returns 0, -EINVAL, or -ERANGE.
 */
int options_parse_usec(const char *text, uint64_t *ret_usec);
