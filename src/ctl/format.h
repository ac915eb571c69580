/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Times and sizes for people, as the tools of systemd print them. */
#pragma once

#include <stdint.h>

#define FORMAT_SIZE 64

/*
 * "3min 12s", "4d 2h 1s": down to seconds; what is shorter than one in its largest unit,
 * "250ms". Returns text.
 */
char *format_timespan(uint64_t usec, char text[static FORMAT_SIZE]);

/* A short one with its fraction: "1.204ms", "2.5s". Returns text. */
char *format_pause(uint64_t usec, char text[static FORMAT_SIZE]);

/* "512B", "1.2M": in powers of 1024. Returns text. */
char *format_bytes(uint64_t bytes, char text[static FORMAT_SIZE]);
