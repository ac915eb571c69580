/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vault/changes.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/fd.h"

#define CHANGES_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

static uint32_t n_words(uint32_t n_slots)
{
	return n_slots / CHANGES_SLOTS_PER_WORD + 1;
}

static size_t size_of_words(uint32_t n)
{
	return n * sizeof(uint64_t);
}

static int map(int fd, uint32_t n, struct changes *ret_changes)
{
	void *memory =
		mmap(NULL, size_of_words(n), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		return -errno;
	*ret_changes = (struct changes){.fd = fd, .n_words = n, .words = memory};
	return 0;
}

int changes_new(uint32_t n_slots, struct changes *ret_changes)
{
	_cleanup_close_ int fd = -EBADF;
	uint32_t n = n_words(n_slots);
	int r;

	fd = memfd_create("holdfast-changes", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size_of_words(n)) < 0)
		return -errno;
	if (fcntl(fd, F_ADD_SEALS, CHANGES_SEALS) < 0)
		return -errno;
	r = map(fd, n, ret_changes);
	if (r < 0)
		return r;
	(void)take_fd(&fd);
	return 0;
}

int changes_map(int fd, uint32_t n_slots, struct changes *ret_changes)
{
	uint32_t n = n_words(n_slots);
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (seals < 0 || (seals & CHANGES_SEALS) != CHANGES_SEALS || fstat(fd, &st) < 0 ||
	    st.st_size != (off_t)size_of_words(n))
		return -EBADMSG;
	return map(fd, n, ret_changes);
}

void changes_done(struct changes *changes)
{
	if (changes->words)
		(void)munmap(changes->words, size_of_words(changes->n_words));
	changes->words = NULL;
	changes->fd = fd_close(changes->fd);
}
