/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/leisure.h"

#include <dirent.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The longest that the kernel takes. */
#define SLICE_LONG_NSEC 100000000

/* struct sched_attr of linux/sched/types.h, as far as its first version goes: that header
 * and glibc's sched.h define each other's structs. */
struct attributes {
	uint32_t size;
	uint32_t policy;
	uint64_t flags;
	int32_t nice;
	uint32_t priority;
	uint64_t runtime; /* of SCHED_OTHER: the slice in ns; to be set, 0: the default */
	uint64_t deadline;
	uint64_t period;
};

/* What leisure_learn() has found, before there were threads. */
static struct cpus learned;
static bool has_learned;

/* Other policies have no slices, and keep what they have. */
static bool get_slice(struct attributes *ret_attributes)
{
	return syscall(SYS_sched_getattr, 0, ret_attributes, sizeof(*ret_attributes),
		       0) == 0 &&
	       ret_attributes->policy == SCHED_OTHER;
}

static void set_slice(struct attributes *attributes, uint64_t nsec)
{
	attributes->runtime = nsec;
	(void)syscall(SYS_sched_setattr, 0, attributes, 0); /* a help, as said */
}

bool cpus_divide(struct cpus *ret_cpus)
{
	int cpu = sched_getcpu();

	/* It fails where there are more CPUs than a set has room for */
	if (cpu < 0 || sched_getaffinity(0, sizeof(ret_cpus->all), &ret_cpus->all) < 0 ||
	    !CPU_ISSET((size_t)cpu, &ret_cpus->all) || CPU_COUNT(&ret_cpus->all) < 2)
		return false;
	CPU_ZERO(&ret_cpus->one);
	CPU_SET((size_t)cpu, &ret_cpus->one);
	CPU_XOR(&ret_cpus->rest, &ret_cpus->all, &ret_cpus->one);
	return true;
}

void leisure_begin(const struct cpus *cpus)
{
	struct attributes attributes;

	if (cpus)
		(void)sched_setaffinity(0, sizeof(cpus->one), &cpus->one);
	/* An older kernel says 0 */
	if (get_slice(&attributes) && attributes.runtime > 0)
		set_slice(&attributes, SLICE_LONG_NSEC);
}

void leisure_learn(int socket)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	/* Where the CPUs could not be divided, they stay as they are */
	if (sched_getaffinity(0, sizeof(learned.one), &learned.one) < 0 ||
	    CPU_COUNT(&learned.one) != 1)
		return;
	has_learned = true;
	if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
	    peer.pid <= 0 ||
	    sched_getaffinity(peer.pid, sizeof(learned.all), &learned.all) < 0)
		/* Rather all that there are, which the kernel knows, than one for good */
		for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
			CPU_SET(cpu, &learned.all);
	CPU_OR(&learned.all, &learned.all, &learned.one);
	CPU_XOR(&learned.rest, &learned.all, &learned.one);
}

bool leisure_get_cpus(struct cpus *ret_cpus)
{
	*ret_cpus = learned;
	return has_learned && CPU_COUNT(&learned.rest) > 0;
}

void leisure_begin_end(const struct cpus *cpus)
{
	DIR *tasks = opendir("/proc/self/task");
	const struct dirent *entry;

	while (tasks && (entry = readdir(tasks)))
		if (entry->d_name[0] != '.')
			(void)sched_setaffinity(atoi(entry->d_name), sizeof(cpus->one),
						&cpus->one);
	if (tasks)
		(void)closedir(tasks);
}

void leisure_end(void)
{
	struct attributes attributes;

	if (has_learned)
		(void)sched_setaffinity(0, sizeof(learned.all), &learned.all);
	if (get_slice(&attributes) && attributes.runtime == SLICE_LONG_NSEC)
		set_slice(&attributes, 0);
}
