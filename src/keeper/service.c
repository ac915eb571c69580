/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keeper/service.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "keeper/process.h"

void service_begin(struct service *service, pid_t pid)
{
	service->main_pid = pid;
	service->group = pid;
}

int service_move(struct service *service, pid_t pid)
{
	pid_t group;

	if (!process_is_descendant(pid))
		return -ESRCH;
	group = getpgid(pid);
	if (group <= 0)
		return -ESRCH;
	service->main_pid = pid;
	/* killing our own group would be the end of the store; it takes a service that
	 * tries */
	if (group != getpgrp())
		service->group = group;
	return 0;
}

bool service_is_main(const struct service *service, pid_t pid)
{
	return pid > 0 && pid == service->main_pid;
}

bool service_has_vanished(const struct service *service)
{
	return service->main_pid > 0 && !process_is_child(service->main_pid) &&
	       !process_is_descendant(service->main_pid);
}

void service_signal(const struct service *service, int number)
{
	if (service->main_pid > 0)
		(void)kill(service->main_pid, number); /* SIGCHLD tells if it has ended */
}

void service_kill(const struct service *service)
{
	service_signal(service, SIGKILL);
	if (service->group > 0)
		(void)kill(-service->group, SIGKILL); /* there may be nobody left */
}

void service_end(struct service *service)
{
	service->main_pid = 0;
	service_kill(service);
}

bool service_is_cleared(struct service *service)
{
	assert(service->main_pid == 0);
	/* zombies count until they are reaped; EPERM: somebody who is not ours to wait
	 * for */
	if (service->group > 0 && kill(-service->group, 0) == 0)
		return false;
	service->group = 0;
	return true;
}
