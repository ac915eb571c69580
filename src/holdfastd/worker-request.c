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

static void rest(struct worker *worker, struct worker_request *request)
{
	if (STAILQ_EMPTY(&worker->resting))
		worker->rested_usec = time_now_usec() + REQUEST_REST_USEC;
	STAILQ_INSERT_TAIL(&worker->resting, request, entry);
}

void worker_resume_requests(struct worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	STAILQ_CONCAT(&worker->requests, &worker->resting);
	pthread_mutex_unlock(&worker->lock);
	worker_wake(worker);
}

void worker_do_request(struct worker *worker)
{
	bool is_last, has_more;
	struct worker_request *request = take(worker, &is_last);

	if (!request)
		return;
	has_more = request->step(worker, request);
	if (has_more && request->is_patient)
		rest(worker, request);
	else if (has_more)
		worker_post(worker, request);
	if (!is_last)
		worker_wake(worker);
}
