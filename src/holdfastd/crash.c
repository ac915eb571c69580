/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/crash.h"

#include <signal.h>

static struct ledger_header *crash_header;
static _Thread_local unsigned crash_worker; /* index + 1; 0: another thread */

/* Only stores and raise(): async-signal-safe. SA_RESETHAND lets the second one end us. */
static void handle(int signal, siginfo_t *info, void *context)
{
	(void)context;
	/* A signal sent from outside hits any thread: then it may have been any worker */
	crash_header->crash_worker = info->si_code > 0 ? crash_worker : 0;
	crash_header->crash_signal = (uint32_t)signal;
	(void)raise(signal);
}

void crash_init(struct ledger_header *header)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE,
				      SIGABRT, SIGSYS, SIGTRAP};
	struct sigaction action = {
		.sa_sigaction = handle,
		.sa_flags = SA_SIGINFO | (int)SA_RESETHAND,
	};

	crash_header = header;
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		/* Fails only for a signal that does not exist */
		(void)sigaction(signals[i], &action, NULL);
}

void crash_set_worker(unsigned index)
{
	crash_worker = index + 1;
}
