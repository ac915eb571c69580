/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * When the process crashes (a signal that is a bug's, or the watchdog's), the ledger gets
 * told which, and which worker it was. The next process then knows what was in hand, and
 * counts: a connection that is in hand at crash after crash is quarantined. A SIGKILL or
 * SIGTERM is nobody's bug, leaves no mark and counts for nothing.
 */
#pragma once

#include "vault/ledger.h"

/* Installs the handlers. header is borrowed for ever. */
void crash_init(struct ledger_header *header);

/* Tells which worker the calling thread is. */
void crash_set_worker(unsigned index);
