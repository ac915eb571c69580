/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "base/idle.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/sched-attributes.h"

/* Leaving SCHED_IDLE counts as lowering one's nice value from 20. */
static bool may_leave(struct sched_attributes *own)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NICE, &limit) == 0 &&
	    limit.rlim_cur >= (rlim_t)(20 - own->nice))
		return true;
	/*
	 * CAP_SYS_NICE allows it, but not that of a user namespace, and nothing tells
	 * which one it is: what needs it as well, and can be taken back, is tried. (At
	 * -20 it would say nothing.)
	 */
	if (own->nice == -20)
		return false;
	own->nice--;
	if (!sched_attributes_set(0, own))
		return false;
	own->nice++;
	return sched_attributes_set(0, own);
}

static bool change(pid_t thread, uint32_t from, uint32_t to)
{
	struct sched_attributes attributes;

	if (!sched_attributes_get(thread, &attributes) || attributes.policy != from)
		return false;
	attributes.policy = to;
	attributes.runtime = 0;
	return sched_attributes_set(thread, &attributes);
}

static void begin(pid_t thread)
{
	(void)change(thread, SCHED_OTHER, SCHED_IDLE);
}

static void end(pid_t thread)
{
	(void)change(thread, SCHED_IDLE, SCHED_OTHER);
}

bool idle_begin(pid_t pid)
{
	struct sched_attributes own;

	return sched_attributes_get(0, &own) && own.policy == SCHED_OTHER &&
	       may_leave(&own) && change(pid, SCHED_OTHER, SCHED_IDLE);
}

void idle_end(pid_t pid)
{
	if (!sched_attributes_change_all(pid, end))
		end(pid); /* it has gone, or /proc has */
}

void idle_for_good(void)
{
	(void)sched_attributes_change_all(getpid(), begin);
}
