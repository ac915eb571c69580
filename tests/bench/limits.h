/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Raises the limit of open files as far as it goes; if it is too low, socket() says so. */
void limits_raise(void);
