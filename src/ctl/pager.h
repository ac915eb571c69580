/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is written to stdout goes through a pager if that is a terminal:
 * $SYSTEMD_PAGER, else $PAGER, else less; none if the variable is empty or "cat".
 */
#pragma once

#include <stdbool.h>

/* Whether what is printed may have colours: to a terminal, and nobody has said no. */
bool pager_has_color(void);

/* Starts it, if there is to be one. To be called before anything is printed. */
void pager_open(void);

/* Waits until it has ended: whoever reads reads on. Returns whether there was one. */
bool pager_close(void);
