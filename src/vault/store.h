/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The service manager's fd store, by sd_pid_notify_with_fds(3). Main thread only: the
 * order of the messages is the order of what they do.
 *
 * Uploads are not acknowledged, and over FileDescriptorStoreMax= the manager silently
 * closes what it was sent. Since systemd 254 it says beforehand how much it stores
 * ($FDSTORE), and more than that is not sent. Besides, a batch of uploads is followed by
 * a probe: the write end of a pipe, stored as one more fd, and a barrier (sd_notify(3),
 * BARRIER=1). When the barrier is passed and the probe's pipe has not hung up, the probe
 * was taken, and so was all before it.
 *
 * The probe alone does for systemd 252, which closes what it refuses before it reads on.
 * Newer ones close it asynchronously: the barrier may be passed a moment earlier, and a
 * refused probe then looks as if it had been taken. There $FDSTORE decides, and the probe
 * sees most of what that can't tell: a limit that was lowered while the service runs, and
 * one of 0, with which $FDSTORE is not set at all; for the latter see also proof.h.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define STORE_NAME_LEDGER "ledger"
#define STORE_NAME_PROBE "probe"
#define STORE_NAME_PROOF "proof" /* proof.h */
/* Short: the names of all stored fds share one environment string of 128 KiB (execve(2)).
 */
#define STORE_NAME_PARCEL_PREFIX "p"
#define STORE_NAME_SIZE 16

#define STORE_MAX_UNKNOWN UINT32_MAX

/* How many fds the manager stores for this service ($FDSTORE), or STORE_MAX_UNKNOWN. */
uint32_t store_get_max(void);

/* Whether a service manager listens at all ($NOTIFY_SOCKET). */
bool store_is_there(void);

/*
 * Stores a borrowed fd under name, and asks the manager not to watch it (FDPOLL=0: else it
 * would drop a parcel whose sending end has gone).
 * Returns 0, -ENOTCONN without a service manager, or the negative errno of the send.
 */
int store_put(int fd, const char *name);

/* Removes every fd of that name. Returns like store_put(). */
int store_remove(const char *name);

/*
 * Stores the write end of a new pipe under name. *ret_fd is the read end, the caller's:
 * it hangs up when the manager does not have the other. Returns like store_put(), or the
 * negative errno of pipe2(2).
 */
int store_put_pipe(const char *name, int *ret_fd);

/* A probe under way. Both fds are -EBADF while there is none. */
struct store_probe {
	int barrier_fd; /* readable (POLLHUP) when the manager has read all that was sent */
	int probe_fd;   /* POLLHUP then says that it was refused */
};

/* Sends the probe and the barrier. Returns like store_put(); on success the caller owns
 * *ret_probe (store_probe_finish()). */
int store_probe_start(struct store_probe *ret_probe);

/*
 * To be called when barrier_fd has hung up. Ends the probe and removes it from the store.
 * Returns whether the store has taken everything that was sent before the probe.
 */
bool store_probe_finish(struct store_probe *probe);

/* Writes the name of parcel number index to ret_name[STORE_NAME_SIZE]. */
void store_parcel_name(unsigned index, char *ret_name);

/* Returns the number in a parcel's name, below limit, or -EINVAL if it is not one. */
int store_parcel_index(const char *name, unsigned limit);
