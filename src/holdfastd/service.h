/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

/*
 * What a connection is served with. The values are stored in the ledger: never reuse one.
 * They are far apart, so that damage does not turn one into another.
 */
enum service_kind {
	SERVICE_LOG = 0x20474f4c,   /* "LOG " */
	SERVICE_ECHO = 0x4f484345,  /* "ECHO" */
	SERVICE_RELAY = 0x414c4552, /* "RELA" */
};

/* Whether a value from the ledger is one of them. */
bool service_is_known(unsigned kind);

/* "log", "echo", "relay"; "unknown" for what comes damaged from the ledger. */
const char *service_name(unsigned kind);

/* Returns enum service_kind or -EINVAL. */
int service_from_name(const char *name);
