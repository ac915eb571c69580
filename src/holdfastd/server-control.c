/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is asked of the server through its control socket. */
#include <errno.h>
#include <stdio.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/time.h"
#include "holdfastd/messages.h"
#include "holdfastd/server-private.h"

static int on_takeover_call(void *userdata, char *const *command_line,
			    struct control_call *call, char *ret_error, size_t error_size)
{
	struct server *server = userdata;
	struct control_call *other = server->takeover_call;
	const char *why;
	int r;

	/* It may be over before it has begun for us */
	server->takeover_call = call;
	r = takeover_begin(server->takeover, command_line, &why);
	if (r == 0)
		return 0;
	server->takeover_call = other;
	(void)snprintf(ret_error, error_size, "%s", why);
	return r;
}

void server_answer_takeover(struct server *server, enum takeover_result result, pid_t pid,
			    const char *why)
{
	struct control_call *call = server->takeover_call;

	server->takeover_call = NULL;
	if (result == TAKEOVER_DONE)
		control_call_succeed(call, pid);
	else
		control_call_fail(call, -ECANCELED, why);
}

static int on_list_call(void *userdata, uint32_t after, uint32_t max,
			struct control_call *call)
{
	struct server *server = userdata;

	return inspection_list(server->inspection, after, max, call);
}

static int on_get_call(void *userdata, uint64_t id, struct control_call *call)
{
	struct server *server = userdata;

	return inspection_get(server->inspection, id, call);
}

static int on_close_call(void *userdata, uint64_t id, bool reset,
			 struct control_call *call)
{
	struct server *server = userdata;

	return inspection_close(server->inspection, id, reset, call);
}

static void report_adopt(const struct server *server, struct instance_report *report)
{
	const struct recovery *recovery = &server->recovery;
	struct successor_result result;

	if (server->successor) {
		successor_get_result(server->successor, &result);
		report->adopt_kind = "takeover";
		report->adopt_n_connections = result.n_connections;
		report->adopt_n_refused = result.n_refused;
		report->adopt_pending = result.pending_bytes;
		report->adopt_pause_usec = result.pause_usec;
		return;
	}
	report->adopt_kind = report->n_restarts > 0 ? "restart" : "none";
	report->adopt_n_connections = recovery->n_adopted;
	report->adopt_n_refused = recovery->n_refused;
	report->adopt_pending = recovery->pending_bytes;
	report->adopt_pause_usec = recovery->took_usec;
}

static void on_report(void *userdata, struct instance_report *ret_report)
{
	struct server *server = userdata;

	report_instance(&server->shared, ret_report);
	ret_report->uptime_usec = time_now_usec() - server->started_usec;
	report_adopt(server, ret_report);
}

static void on_call_audited(void *userdata, const struct audit_result *result)
{
	control_call_audited(userdata, result);
}

static int on_audit_call(void *userdata, bool all, struct control_call *call)
{
	struct server *server = userdata;

	return auditor_begin(server->auditor, all, on_call_audited, call);
}

/*
 * The socket of the process before this one, where it is at the path that this one was
 * told; else one of its own.
 */
static int take_control_socket(struct server *server, const char *path, int *ret_fd)
{
	int fd =
		server->successor ? successor_take_control_fd(server->successor) : -EBADF;

	if (fd >= 0 && control_is_listening_at(fd, path)) {
		*ret_fd = fd;
		return 0;
	}
	(void)fd_close(fd);
	return control_listen(path, ret_fd);
}

static int open_control(struct server *server, const char *path)
{
	static const struct control_handlers handlers = {
		.takeover = on_takeover_call,
		.list = on_list_call,
		.get = on_get_call,
		.close = on_close_call,
		.report = on_report,
		.audit = on_audit_call,
	};
	_cleanup_close_ int fd = -EBADF;
	int r;

	r = take_control_socket(server, path, &fd);
	if (r < 0)
		return r;
	r = inspection_new(&server->shared, server->event, &server->inspection);
	if (r < 0)
		return r;
	r = control_new(server->event, fd, &handlers, server, &server->control);
	if (r < 0)
		return r;
	server->shared.control_fd = take_fd(&fd);
	return 0;
}

/* Nobody's connection is worth less for the want of it: what fails is said, that is all. */
void server_start_control(struct server *server)
{
	const char *path = server->shared.options->control;
	int r = path ? open_control(server, path) : 0;

	/* Nobody would answer at the one that was passed */
	if (!path && server->successor)
		(void)fd_close(successor_take_control_fd(server->successor));

	if (r < 0)
		log_line(LOG_WARNING, MESSAGE_CONTROL, "No control socket at %s: %s",
			 path, control_listen_strerror(r));
}
