/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "generator/generate.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "generator/environment.h"

#define SUFFIX ".conf"
#define UNIT_PREFIX "holdfast@"
#define UNIT_SUFFIX ".service"
/* Of a unit's name; see systemd.unit(5) */
#define UNIT_NAME_MAX 255
/* Far more than anybody writes by hand */
#define FILE_SIZE_MAX (1024 * 1024)
/* Of SERVICE=: only its first two words are looked at */
#define SERVICE_SIZE 1024
#define BLANKS " \t\n\r"

bool generate_is_networked(const char *service)
{
	static const char relay[] = "relay";
	const char *upstream;

	service += strspn(service, BLANKS);
	if (strcspn(service, BLANKS) != strlen(relay) ||
	    strncmp(service, relay, strlen(relay)) != 0)
		return false;
	upstream = service + strlen(relay);
	upstream += strspn(upstream, BLANKS);
	return *upstream != '\0' && *upstream != '/';
}

bool generate_is_instance(const char *name)
{
	size_t length = strlen(name);

	if (length == 0 ||
	    length > UNIT_NAME_MAX - strlen(UNIT_PREFIX) - strlen(UNIT_SUFFIX))
		return false;
	for (; *name; name++)
		if (!isascii(*name) || !(isalnum(*name) || strchr(":-_.\\@", *name)))
			return false;
	return true;
}

/* Returns the number of bytes of a whole file, in memory to be freed, or a negative
 * errno. */
static ssize_t read_file(int directory, const char *name, char **ret_text)
{
	_cleanup_close_ int fd = -EBADF;
	struct stat status;
	ssize_t n;
	char *text;

	/* O_NONBLOCK: a FIFO would let the boot wait */
	fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	if (!S_ISREG(status.st_mode))
		return -EINVAL;
	if (status.st_size > FILE_SIZE_MAX)
		return -EFBIG;
	text = malloc((size_t)status.st_size + 1);
	if (!text)
		return -ENOMEM;
	n = read(fd, text, (size_t)status.st_size);
	if (n < 0) {
		n = -errno;
		free(text);
		return n;
	}
	*ret_text = text;
	return n;
}

/* Returns 1 for the file of a relay to a host, 0 for another, or a negative errno. */
static int has_networked(int directory, const char *name)
{
	char service[SERVICE_SIZE], *text = NULL;
	ssize_t n = read_file(directory, name, &text);

	if (n < 0)
		return (int)n;
	(void)environment_find(text, (size_t)n, "SERVICE", service, sizeof(service));
	free(text);
	return generate_is_networked(service);
}

static int make_drop_in(int units, const char *instance, const char *target)
{
	char directory[NAME_MAX + 1], link[sizeof(directory) + sizeof(GENERATE_DROP_IN)];
	int r;

	r = snprintf(directory, sizeof(directory), UNIT_PREFIX "%s" UNIT_SUFFIX ".d",
		     instance);
	if (r >= (int)sizeof(directory))
		return -ENAMETOOLONG;
	(void)snprintf(link, sizeof(link), "%s/" GENERATE_DROP_IN, directory);
	if (mkdirat(units, directory, 0755) < 0 && errno != EEXIST)
		return -errno;
	return symlinkat(target, units, link) < 0 ? -errno : 0;
}

/* Takes ".conf" off the name. Returns false for what is no instance's file. */
static bool instance_of(const char *name, char ret_instance[NAME_MAX + 1])
{
	size_t length = strlen(name), suffix = strlen(SUFFIX);

	if (length <= suffix || length > NAME_MAX ||
	    strcmp(name + length - suffix, SUFFIX) != 0)
		return false;
	memcpy(ret_instance, name, length - suffix);
	ret_instance[length - suffix] = '\0';
	return generate_is_instance(ret_instance);
}

void generate_drop_ins(const char *configuration, const char *units, const char *target,
		       void (*failed)(const char *name, int r))
{
	_cleanup_close_ int units_fd = -EBADF;
	char instance[NAME_MAX + 1];
	DIR *directory = opendir(configuration);

	if (!directory) {
		if (errno != ENOENT)
			failed(configuration, -errno);
		return;
	}
	units_fd = open(units, O_DIRECTORY | O_PATH | O_CLOEXEC);
	if (units_fd < 0)
		failed(units, -errno);
	for (struct dirent *entry; units_fd >= 0 && (entry = readdir(directory));) {
		int r;

		if (!instance_of(entry->d_name, instance))
			continue;
		r = has_networked(dirfd(directory), entry->d_name);
		if (r > 0)
			r = make_drop_in(units_fd, instance, target);
		if (r < 0)
			failed(entry->d_name, r);
	}
	(void)closedir(directory);
}
