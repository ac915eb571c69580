/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a connection is served with. The values are stored in the ledger: never reuse one. */
enum service_kind {
	SERVICE_LOG = 1,
	SERVICE_ECHO = 2,
	SERVICE_RELAY = 3,
};

/* "log", "echo", "relay"; "unknown" for what comes damaged from the ledger. */
const char *service_name(unsigned kind);

/* Returns enum service_kind or -EINVAL. */
int service_from_name(const char *name);
