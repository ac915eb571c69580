/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/format.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/time.h"

#define N_ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))
#define USEC_PER_DAY (24 * 60 * 60 * USEC_PER_SEC)

static const struct {
	const char *suffix;
	uint64_t usec;
} units[] = {
	{"y", 31557600 * USEC_PER_SEC},
	{"month", 2629800 * USEC_PER_SEC},
	{"w", 7 * USEC_PER_DAY},
	{"d", USEC_PER_DAY},
	{"h", 60 * 60 * USEC_PER_SEC},
	{"min", 60 * USEC_PER_SEC},
	{"s", USEC_PER_SEC},
	{"ms", USEC_PER_MSEC},
	{"us", 1},
};

char *format_timespan(uint64_t usec, char text[static FORMAT_SIZE])
{
	size_t n = 0;

	text[0] = '\0';
	for (size_t i = 0; i < N_ELEMENTS(units) && usec > 0; i++) {
		if (n > 0 && units[i].usec < USEC_PER_SEC)
			break;
		if (usec < units[i].usec)
			continue;
		n += (size_t)snprintf(text + n, FORMAT_SIZE - n, "%s%llu%s",
				      n > 0 ? " " : "",
				      (unsigned long long)(usec / units[i].usec),
				      units[i].suffix);
		usec %= units[i].usec;
	}
	return n > 0 ? text : strcpy(text, "0");
}

/* Without the zeros at the end of a fraction, and without a fraction of nothing. */
static void trim(char *text)
{
	size_t n = strlen(text);

	while (n > 0 && text[n - 1] == '0')
		n--;
	if (n > 0 && text[n - 1] == '.')
		n--;
	text[n] = '\0';
}

char *format_pause(uint64_t usec, char text[static FORMAT_SIZE])
{
	uint64_t unit = usec < USEC_PER_SEC ? USEC_PER_MSEC : USEC_PER_SEC;

	if (usec < USEC_PER_MSEC || usec >= 60 * USEC_PER_SEC)
		return format_timespan(usec, text);
	(void)snprintf(text, FORMAT_SIZE, "%llu.%03llu",
		       (unsigned long long)(usec / unit),
		       (unsigned long long)(usec % unit / (unit / 1000)));
	trim(text);
	return strcat(text, unit == USEC_PER_MSEC ? "ms" : "s");
}

char *format_bytes(uint64_t bytes, char text[static FORMAT_SIZE])
{
	static const char suffixes[] = "BKMGTPE";
	unsigned power = 0, tenth = 0;

	while (bytes >> (10 * power) >= 1024)
		power++;
	if (power > 0)
		tenth = (unsigned)((bytes >> (10 * (power - 1)) & 1023) * 10 / 1024);
	if (tenth > 0)
		(void)snprintf(text, FORMAT_SIZE, "%llu.%u%c",
			       (unsigned long long)(bytes >> (10 * power)), tenth,
			       suffixes[power]);
	else
		(void)snprintf(text, FORMAT_SIZE, "%llu%c",
			       (unsigned long long)(bytes >> (10 * power)),
			       suffixes[power]);
	return text;
}
