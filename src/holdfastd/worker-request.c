/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdfastd/worker.h"

void worker_post(struct worker *worker, struct worker_request *request)
{
	pthread_mutex_lock(&worker->lock);
	STAILQ_INSERT_TAIL(&worker->requests, request, entry);
	pthread_mutex_unlock(&worker->lock);
	worker_wake(worker);
}

static struct worker_request *take(struct worker *worker, bool *ret_is_last)
{
	struct worker_request *request;

	pthread_mutex_lock(&worker->lock);
	request = STAILQ_FIRST(&worker->requests);
	if (request)
		STAILQ_REMOVE_HEAD(&worker->requests, entry);
	*ret_is_last = STAILQ_EMPTY(&worker->requests);
	pthread_mutex_unlock(&worker->lock);
	return request;
}

void worker_do_request(struct worker *worker)
{
	bool is_last;
	struct worker_request *request = take(worker, &is_last);

	if (!request)
		return;
	if (request->step(worker, request))
		worker_post(worker, request);
	else if (!is_last)
		worker_wake(worker);
}
