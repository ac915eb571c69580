/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Gives the network to the relays that need one. The shipped holdfast@.service has none;
 * for each NAME.conf whose SERVICE= is a relay to a host, holdfast@NAME.service gets a
 * drop-in: a link to the installed file that says what such a relay needs. units/ has
 * that file, and the reasons.
 *
 * What can't be read or made costs its instance the network, which that will say when it
 * starts; it stops neither the others nor the boot.
 */
#pragma once

#include <stdbool.h>

#define GENERATE_DROP_IN "50-relay.conf"

/* Whether the value of SERVICE= is a relay to a host: one to a path needs no network. */
bool generate_is_networked(const char *service);

/* Whether name can be the instance's part of holdfast@NAME.service; see systemd.unit(5).
 */
bool generate_is_instance(const char *name);

/*
 * Reads the NAME.conf files of the directory configuration (which need not be there), and
 * makes links to target in the directory units. failed: called for what could not be
 * done, with its path or file name and a negative errno.
 */
void generate_drop_ins(const char *configuration, const char *units, const char *target,
		       void (*failed)(const char *name, int r));
