/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * bind() of an AF_UNIX socket makes its file with the mode that fchmod() has given to the
 * socket before, less the umask. So there is no instant at which it has another.
 *
 * control (who may connect) relies on it. Source: unix_bind_bsd() in net/unix/af_unix.c.
 */

#include "check.h"

static mode_t mode_of_bound(const char *path, mode_t mode, mode_t mask)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = must(socket(AF_UNIX, SOCK_STREAM, 0), "socket");
	struct stat status;

	(void)umask(mask);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	(void)must(fchmod(fd, mode), "fchmod");
	(void)must(bind(fd, (const struct sockaddr *)&address, sizeof(address)), "bind");
	(void)must(stat(path, &status), "stat");
	(void)must(unlink(path), "unlink");
	(void)close(fd);
	return status.st_mode & 07777;
}

int main(void)
{
	char directory[] = "/tmp/unix-bind-takes-mode.XXXXXX", path[64];

	check_begin();
	require(mkdtemp(directory) != NULL, "mkdtemp");
	(void)snprintf(path, sizeof(path), "%s/socket", directory);
	check_equal(mode_of_bound(path, 0600, 0), 0600, "the file has the socket's mode");
	check_equal(mode_of_bound(path, 0666, 0077), 0600, "less the umask");
	(void)rmdir(directory);
	return check_end();
}
