/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "base/fd.h"
#include "base/instance.h"
#include "base/socket.h"
#include "base/time.h"
#include "holdfastd/control.h"

#define IDLE_USEC (100 * USEC_PER_MSEC)
#define WORDS_MAX 4
#define STRANGER_UID 65534
/* What a client says before its first message. */
#define HANDSHAKE "\0AUTH EXTERNAL\r\nDATA\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"

/* The process that is asked, and its clients, in one event loop. */
struct house {
	unsigned n_fds_before;
	char directory[32];
	char path[64];
	sd_event *event;
	struct control *control;

	/* What the handler was asked for last, and does */
	unsigned n_calls;
	bool has_command_line;
	char words[WORDS_MAX][64];
	struct control_call *call;
	int refusal;
};

struct answer {
	bool has_come;
	int error;
	char text[256];
	uint32_t pid;
};

static int take_over(void *userdata, char *const *command_line, struct control_call *call,
		     char *ret_error, size_t error_size)
{
	struct house *house = userdata;

	house->n_calls++;
	house->has_command_line = command_line;
	memset(house->words, 0, sizeof(house->words));
	for (size_t i = 0; command_line && command_line[i]; i++) {
		assert_true(i < WORDS_MAX);
		(void)snprintf(house->words[i], sizeof(house->words[i]), "%s",
			       command_line[i]);
	}
	if (house->refusal < 0) {
		(void)snprintf(ret_error, error_size, "not now");
		return house->refusal;
	}
	house->call = call;
	return 0;
}

static const struct control_handlers handlers = {.takeover = take_over};

static int setup(void **state)
{
	struct house *house = calloc(1, sizeof(*house));
	int fd;

	assert_non_null(house);
	house->n_fds_before = count_fds();
	strcpy(house->directory, "/tmp/test-control.XXXXXX");
	assert_non_null(mkdtemp(house->directory));
	(void)snprintf(house->path, sizeof(house->path), "%s/control", house->directory);
	assert_int_equal(sd_event_new(&house->event), 0);
	assert_int_equal(control_listen(house->path, &fd), 0);
	assert_int_equal(control_new(house->event, fd, &handlers, house, &house->control),
			 0);
	assert_int_equal(control_listen_fd(house->control), fd);
	assert_int_equal(control_listen_fd(NULL), -EBADF);
	*state = house;
	return 0;
}

static int teardown(void **state)
{
	struct house *house = *state;
	unsigned n_before = house->n_fds_before;

	house->control = control_free(house->control);
	(void)sd_event_unref(house->event);
	(void)unlink(house->path);
	(void)must(rmdir(house->directory));
	free(house);
	assert_int_equal(count_fds(), n_before);
	return 0;
}

/* ---- the loop ---- */

static void run_until(struct house *house, const bool *flag)
{
	uint64_t deadline = time_now_usec() + UNIT_PATIENCE_MSEC * USEC_PER_MSEC;

	while (!*flag) {
		if (time_now_usec() > deadline)
			fail_msg("nothing came in %i ms", UNIT_PATIENCE_MSEC);
		assert_true(sd_event_run(house->event, 100 * USEC_PER_MSEC) >= 0);
	}
}

static int set_flag(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
	bool *flag = userdata;

	(void)source;
	(void)fd;
	(void)events;
	*flag = true;
	return 0;
}

static void run_until_readable(struct house *house, int fd)
{
	sd_event_source *source;
	bool flag = false;

	assert_int_equal(sd_event_add_io(house->event, &source, fd, EPOLLIN, set_flag,
					 &flag),
			 0);
	run_until(house, &flag);
	(void)sd_event_source_disable_unref(source);
}

/* The end comes as an end, or as a reset if something was left unread. */
static void run_until_end(struct house *house, int fd)
{
	char bytes[4096];
	ssize_t n;

	do {
		run_until_readable(house, fd);
		n = read(fd, bytes, sizeof(bytes));
	} while (n > 0);
	assert_true(n == 0 || errno == ECONNRESET);
}

/* Everything that can be done without waiting. */
static void run_now(struct house *house)
{
	while (sd_event_run(house->event, 0) > 0)
		;
}

static void run_until_fds(struct house *house, unsigned n)
{
	uint64_t deadline = time_now_usec() + UNIT_PATIENCE_MSEC * USEC_PER_MSEC;

	while (count_fds() != n && time_now_usec() < deadline)
		assert_true(sd_event_run(house->event, USEC_PER_MSEC) >= 0);
	assert_int_equal(count_fds(), n);
}

/* ---- clients ---- */

static int connect_raw(const struct house *house)
{
	struct sockaddr_un address;
	int fd = must(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));

	assert_int_equal(socket_set_path(house->path, &address), 0);
	(void)must(connect(fd, (const struct sockaddr *)&address, sizeof(address)));
	return fd;
}

/* A client that has been let in and has said nothing yet. */
static int connect_authenticated(struct house *house)
{
	int fd = connect_raw(house);
	char bytes[256];

	write_exactly(fd, HANDSHAKE, sizeof(HANDSHAKE) - 1);
	run_until_readable(house, fd);
	assert_true(read(fd, bytes, sizeof(bytes)) > 0);
	return fd;
}

/* A client in nobody's event loop. */
static sd_bus *connect_bus(const struct house *house)
{
	int fd = connect_raw(house);
	sd_bus *bus;

	assert_int_equal(sd_bus_new(&bus), 0);
	assert_int_equal(sd_bus_set_fd(bus, fd, fd), 0);
	assert_true(sd_bus_start(bus) >= 0);
	return bus;
}

static sd_bus *connect_client(const struct house *house)
{
	sd_bus *bus = connect_bus(house);

	assert_int_equal(sd_bus_attach_event(bus, house->event, 0), 0);
	return bus;
}

static int take_answer(sd_bus_message *message, void *userdata, sd_bus_error *ret_error)
{
	struct answer *answer = userdata;
	const sd_bus_error *error = sd_bus_message_get_error(message);

	(void)ret_error;
	assert_false(answer->has_come);
	answer->has_come = true;
	if (error) {
		answer->error = -sd_bus_error_get_errno(error);
		(void)snprintf(answer->text, sizeof(answer->text), "%s", error->message);
	} else {
		assert_true(sd_bus_message_read(message, "u", &answer->pid) > 0);
	}
	return 0;
}

static void call_takeover(sd_bus *bus, char **command_line, struct answer *answer)
{
	sd_bus_message *call;

	memset(answer, 0, sizeof(*answer));
	assert_int_equal(sd_bus_message_new_method_call(bus, &call, NULL, INSTANCE_OBJECT,
							INSTANCE_INTERFACE,
							INSTANCE_TAKEOVER),
			 0);
	assert_true(sd_bus_message_append_strv(call, command_line) >= 0);
	assert_true(sd_bus_call_async(bus, NULL, call, take_answer, answer,
				      USEC_INFINITY) >= 0);
	(void)sd_bus_message_unref(call);
}

/* Calls Takeover and runs until the handler has it. */
static void begin_takeover(struct house *house, sd_bus *bus, struct answer *answer)
{
	unsigned n_before = house->n_calls;

	call_takeover(bus, NULL, answer);
	while (house->n_calls == n_before)
		assert_true(sd_event_run(house->event,
					 UNIT_PATIENCE_MSEC * USEC_PER_MSEC) > 0);
}

/* ---- calls ---- */

static void call_without_words_means_the_own_command_line(void **state)
{
	struct house *house = *state;
	sd_bus *bus = connect_client(house);
	struct answer answer;

	begin_takeover(house, bus, &answer);
	assert_false(house->has_command_line);
	run_now(house);
	assert_false(answer.has_come);
	control_call_succeed(house->call, 4711);
	run_until(house, &answer.has_come);
	assert_int_equal(answer.error, 0);
	assert_int_equal(answer.pid, 4711);
	(void)sd_bus_close_unref(bus);
}

static void call_hands_the_command_line_over(void **state)
{
	struct house *house = *state;
	sd_bus *bus = connect_client(house);
	char *words[] = {(char[]){"/usr/bin/holdfastd"}, (char[]){""},
			 (char[]){"relay a:1"}, NULL};
	struct answer answer;

	house->refusal = -EBUSY;
	call_takeover(bus, words, &answer);
	run_until(house, &answer.has_come);
	assert_true(house->has_command_line);
	assert_string_equal(house->words[0], "/usr/bin/holdfastd");
	assert_string_equal(house->words[1], "");
	assert_string_equal(house->words[2], "relay a:1");
	assert_string_equal(house->words[3], "");
	(void)sd_bus_close_unref(bus);
}

static void refusal_reaches_the_client_at_once(void **state)
{
	struct house *house = *state;
	sd_bus *bus = connect_client(house);
	struct answer answer;

	house->refusal = -EBUSY;
	call_takeover(bus, NULL, &answer);
	run_until(house, &answer.has_come);
	assert_int_equal(answer.error, -EBUSY);
	assert_string_equal(answer.text, "not now");
	/* The client may ask again */
	house->refusal = 0;
	begin_takeover(house, bus, &answer);
	control_call_succeed(house->call, 1);
	run_until(house, &answer.has_come);
	(void)sd_bus_close_unref(bus);
}

static void failure_reaches_the_client_later(void **state)
{
	struct house *house = *state;
	sd_bus *bus = connect_client(house);
	struct answer answer;

	begin_takeover(house, bus, &answer);
	run_now(house);
	control_call_fail(house->call, -ETIMEDOUT, "pid 5 was not ready in 30 s: 100%");
	run_until(house, &answer.has_come);
	assert_int_equal(answer.error, -ETIMEDOUT);
	assert_string_equal(answer.text, "pid 5 was not ready in 30 s: 100%");
	(void)sd_bus_close_unref(bus);
}

static void client_has_one_call_at_a_time(void **state)
{
	struct house *house = *state;
	sd_bus *bus = connect_client(house);
	struct answer first, second;

	begin_takeover(house, bus, &first);
	call_takeover(bus, NULL, &second);
	run_until(house, &second.has_come);
	assert_int_equal(second.error, -EBUSY);
	assert_int_equal(house->n_calls, 1);
	assert_false(first.has_come);
	control_call_succeed(house->call, 2);
	run_until(house, &first.has_come);
	assert_int_equal(first.pid, 2);
	(void)sd_bus_close_unref(bus);
}

static void answer_to_a_client_that_has_left_goes_nowhere(void **state)
{
	struct house *house = *state;
	unsigned n_fds = count_fds();
	struct answer answer;

	for (int i = 0; i < 2; i++) {
		sd_bus *bus = connect_client(house);

		begin_takeover(house, bus, &answer);
		(void)sd_bus_close_unref(bus);
		run_until_fds(house, n_fds);
		if (i == 0)
			control_call_succeed(house->call, 1);
		else
			control_call_fail(house->call, -EIO, "lost");
		run_now(house);
	}
	assert_false(answer.has_come);
}

static void call_may_outlive_the_control(void **state)
{
	struct house *house = *state;
	sd_bus *bus = connect_client(house);
	struct answer answer;

	begin_takeover(house, bus, &answer);
	house->control = control_free(house->control);
	control_call_succeed(house->call, 1);
	run_until(house, &answer.has_come);
	/* sd-bus of 252 tells it as a timeout */
	assert_true(answer.error == -ECONNRESET || answer.error == -ETIMEDOUT);
	(void)sd_bus_close_unref(bus);
}

static void call_of_nobody_is_answered_in_silence(void **state)
{
	(void)state;
	control_call_succeed(NULL, 1);
	control_call_fail(NULL, -EIO, "lost");
}

static void text_that_is_no_utf8_ends_the_client(void **state)
{
	struct house *house = *state;
	sd_bus *bus = connect_client(house);
	struct answer answer;

	begin_takeover(house, bus, &answer);
	control_call_fail(house->call, -EIO, "\xff");
	run_until(house, &answer.has_come);
	/* sd-bus of 252 tells it as a timeout */
	assert_true(answer.error == -ECONNRESET || answer.error == -ETIMEDOUT);
	(void)sd_bus_close_unref(bus);
}

static int take_string(sd_bus_message *message, void *userdata, sd_bus_error *ret_error)
{
	char *text = userdata;
	const char *value;

	(void)ret_error;
	if (sd_bus_message_has_signature(message, "v"))
		assert_true(sd_bus_message_read(message, "v", "s", &value) > 0);
	else
		assert_true(sd_bus_message_read(message, "s", &value) > 0);
	(void)snprintf(text, 64, "%s", value);
	return 0;
}

static void version_can_be_asked(void **state)
{
	struct house *house = *state;
	sd_bus *bus = connect_client(house);
	char text[64] = "";

	assert_true(sd_bus_call_method_async(bus, NULL, NULL, INSTANCE_OBJECT,
					     "org.freedesktop.DBus.Properties", "Get",
					     take_string, text, "ss", INSTANCE_INTERFACE,
					     "Version") >= 0);
	while (!*text)
		assert_true(sd_event_run(house->event, USEC_PER_SEC) > 0);
	assert_string_equal(text, HOLDFAST_VERSION);
	(void)sd_bus_close_unref(bus);
}

static void client_that_takes_us_for_a_bus_gets_a_name(void **state)
{
	struct house *house = *state;
	sd_bus *bus = connect_client(house);
	char text[64] = "";

	assert_true(sd_bus_call_method_async(bus, NULL, "org.freedesktop.DBus",
					     "/org/freedesktop/DBus",
					     "org.freedesktop.DBus", "Hello", take_string,
					     text, NULL) >= 0);
	while (!*text)
		assert_true(sd_event_run(house->event, USEC_PER_SEC) > 0);
	assert_int_equal(text[0], ':');
	(void)sd_bus_close_unref(bus);
}

/* ---- clients that are none ---- */

static void garbage_ends_the_client(void **state)
{
	static const char garbage[64] = "garbage";
	struct house *house = *state;
	unsigned n_fds = count_fds();
	int fd;

	fd = connect_raw(house);
	write_exactly(fd, garbage, sizeof(garbage));
	run_until_end(house, fd);
	(void)close(fd);
	fd = connect_authenticated(house);
	write_exactly(fd, garbage, sizeof(garbage));
	run_until_end(house, fd);
	(void)close(fd);
	run_until_fds(house, n_fds);
}

static void message_beyond_128_mib_ends_the_client(void **state)
{
	/* Header of a method call with a body of 2 GiB */
	static const unsigned char header[24] = {'l', 1, 0, 1, 0, 0, 0, 0x80, 1};
	struct house *house = *state;
	int fd = connect_authenticated(house);

	write_exactly(fd, header, sizeof(header));
	run_until_end(house, fd);
	(void)close(fd);
}

static void fds_are_not_taken(void **state)
{
	struct house *house = *state;
	unsigned n_fds = count_fds();
	int fd = connect_authenticated(house);
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)),
				.cmsg_level = SOL_SOCKET,
				.cmsg_type = SCM_RIGHTS}};
	struct iovec data = {.iov_base = (char[]){'l'}, .iov_len = 1};
	struct msghdr message = {.msg_iov = &data,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};

	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	(void)must(sendmsg(fd, &message, 0));
	run_until_end(house, fd);
	(void)close(fd);
	run_until_fds(house, n_fds);
}

static void clients_beyond_the_limit_are_closed(void **state)
{
	struct house *house = *state;
	int fds[CONTROL_CLIENTS_MAX], one_more;
	sd_bus *bus;
	struct answer answer;
	unsigned n_fds = count_fds(), n_fds_per_client;

	for (size_t i = 0; i < N_ELEMENTS(fds); i++) {
		fds[i] = connect_raw(house);
		run_now(house);
	}
	/* Both ends, and where libsystemd asks for it, the pidfd of the other */
	n_fds_per_client = (count_fds() - n_fds) / N_ELEMENTS(fds);
	assert_true(n_fds_per_client >= 2);
	n_fds = count_fds();
	one_more = connect_raw(house);
	run_until_end(house, one_more);
	(void)close(one_more);
	assert_int_equal(count_fds(), n_fds);
	/* There is room again when one has gone */
	(void)close(fds[0]);
	run_until_fds(house, n_fds - n_fds_per_client);
	bus = connect_client(house);
	begin_takeover(house, bus, &answer);
	control_call_succeed(house->call, 3);
	run_until(house, &answer.has_come);
	assert_int_equal(answer.pid, 3);
	(void)sd_bus_close_unref(bus);
	for (size_t i = 1; i < N_ELEMENTS(fds); i++)
		(void)close(fds[i]);
}

static void silent_clients_are_closed(void **state)
{
	struct house *house = *state;
	uint64_t began = time_now_usec();
	int silent, half;

	control_set_idle(house->control, IDLE_USEC);
	silent = connect_raw(house);
	half = connect_authenticated(house);
	write_exactly(half, "l\1\0\1", 4);
	run_until_end(house, silent);
	run_until_end(house, half);
	assert_true(time_now_usec() - began >= IDLE_USEC);
	(void)close(silent);
	(void)close(half);
}

static void client_that_waits_for_its_answer_is_not_idle(void **state)
{
	struct house *house = *state;
	struct answer answer;
	int silent;
	sd_bus *bus;

	control_set_idle(house->control, IDLE_USEC);
	bus = connect_client(house);
	begin_takeover(house, bus, &answer);
	/* Two that come later and are idle for the limit: it is over, too */
	for (int i = 0; i < 2; i++) {
		silent = connect_raw(house);
		run_until_end(house, silent);
		(void)close(silent);
	}
	control_call_succeed(house->call, 7);
	run_until(house, &answer.has_come);
	assert_int_equal(answer.pid, 7);
	/* From now on it is */
	(void)sd_bus_detach_event(bus);
	run_until_end(house, sd_bus_get_fd(bus));
	(void)sd_bus_close_unref(bus);
}

static int ignore(sd_bus_message *message, void *userdata, sd_bus_error *ret_error)
{
	(void)message;
	(void)userdata;
	(void)ret_error;
	return 0;
}

/* A client that asks n_max times, if it is let, and reads no answer. Returns how often. */
static unsigned ask_without_reading(struct house *house, sd_bus *bus, unsigned n_max)
{
	for (unsigned i = 0; i < n_max; i++) {
		if (sd_bus_call_method_async(bus, NULL, NULL, INSTANCE_OBJECT,
					     "org.freedesktop.DBus.Introspectable",
					     "Introspect", ignore, NULL, NULL) < 0)
			return i;
		run_now(house);
	}
	return n_max;
}

/* A client that is ready in all but the reading, which nobody does for it any more. */
static sd_bus *connect_deaf(struct house *house)
{
	sd_bus *bus = connect_client(house);

	while (sd_bus_is_ready(bus) == 0)
		assert_true(sd_event_run(house->event, USEC_PER_SEC) > 0);
	(void)sd_bus_detach_event(bus);
	return bus;
}

#define ASKED_MAX 50000

static void client_that_does_not_read_is_closed(void **state)
{
	struct house *house = *state;
	unsigned n_fds = count_fds();
	sd_bus *bus = connect_deaf(house);

	assert_true(ask_without_reading(house, bus, ASKED_MAX) < ASKED_MAX);
	(void)sd_bus_close_unref(bus);
	run_until_fds(house, n_fds);
}

static void flush_gives_up_on_a_client_that_does_not_read(void **state)
{
	struct house *house = *state;
	sd_bus *bus = connect_deaf(house);
	unsigned n = ask_without_reading(house, bus, ASKED_MAX);
	uint64_t began;

	/* Now it is known when the socket is full: some replies wait, but not too many */
	(void)sd_bus_close_unref(bus);
	bus = connect_deaf(house);
	n -= CONTROL_REPLIES_MAX / 2;
	assert_int_equal(ask_without_reading(house, bus, n), n);
	began = time_now_usec();
	control_flush(house->control, IDLE_USEC);
	assert_true(time_now_usec() - began >= IDLE_USEC);
	(void)sd_bus_close_unref(bus);
}

static void what_is_flushed_outlives_the_process(void **state)
{
	struct house *house = *state;
	sd_bus *bus = connect_client(house);
	struct answer answer;

	begin_takeover(house, bus, &answer);
	control_call_succeed(house->call, 9);
	control_flush(house->control, IDLE_USEC);
	house->control = control_free(house->control);
	run_until(house, &answer.has_come);
	assert_int_equal(answer.pid, 9);
	(void)sd_bus_close_unref(bus);
}

static void nothing_begins_after_the_flush(void **state)
{
	struct house *house = *state;
	sd_bus *bus = connect_deaf(house);
	struct answer answer;
	int late;

	control_flush(house->control, IDLE_USEC);
	assert_int_equal(sd_bus_attach_event(bus, house->event, 0), 0);
	call_takeover(bus, NULL, &answer);
	late = connect_raw(house);
	run_until(house, &answer.has_come);
	assert_int_equal(answer.error, -ESHUTDOWN);
	assert_int_equal(house->n_calls, 0);
	assert_int_equal(events_now(late, POLLIN), 0);
	(void)close(late);
	(void)sd_bus_close_unref(bus);
}

/* By default sd-bus would flush, and wait for the authentication first. */
static void end_of_the_loop_waits_for_no_client(void **state)
{
	struct house *house = *state;
	int fd = connect_raw(house);

	run_now(house);
	assert_int_equal(sd_event_exit(house->event, 5), 0);
	assert_int_equal(sd_event_loop(house->event), 5);
	(void)close(fd);
}

/* In a process of its own, as nobody: the status says whether it was let in. */
static pid_t start_stranger(const struct house *house, int done)
{
	pid_t child = must(fork());
	char byte;
	int fd;

	if (child > 0)
		return child;
	if (setresuid(STRANGER_UID, STRANGER_UID, STRANGER_UID) < 0)
		_exit(3);
	fd = connect_raw(house);
	(void)!write(fd, HANDSHAKE, sizeof(HANDSHAKE) - 1);
	(void)poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, UNIT_PATIENCE_MSEC);
	byte = read(fd, &byte, 1) > 0;
	(void)!write(done, &byte, 1);
	_exit(0);
}

static void strangers_are_closed_whatever_the_mode(void **state)
{
	struct house *house = *state;
	char was_let_in = 2;
	int done[2];
	pid_t child;

	if (geteuid() != 0)
		skip();
	(void)must(chmod(house->directory, 0755));
	(void)must(chmod(house->path, 0666));
	(void)must(pipe2(done, O_CLOEXEC));
	child = start_stranger(house, done[1]);
	run_until_readable(house, done[0]);
	assert_int_equal(read(done[0], &was_let_in, 1), 1);
	assert_int_equal(was_let_in, 0);
	(void)must(waitpid(child, NULL, 0));
	(void)close(done[0]);
	(void)close(done[1]);
}

/* ---- the listening socket ---- */

static void socket_is_for_its_owner_only(void **state)
{
	struct house *house = *state;
	mode_t before = umask(0);
	struct stat status;
	int fd;

	house->control = control_free(house->control);
	assert_int_equal(control_listen(house->path, &fd), 0);
	(void)umask(before);
	(void)must(stat(house->path, &status));
	assert_int_equal(status.st_mode, S_IFSOCK | 0600);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	(void)close(fd);
}

static void socket_of_a_dead_process_is_replaced(void **state)
{
	struct house *house = *state;
	int fd;

	house->control = control_free(house->control);
	assert_int_equal(control_listen(house->path, &fd), 0);
	assert_int_equal(listen(fd, 1), 0);
	/* The old one would refuse it */
	(void)close(connect_raw(house));
	(void)close(fd);
}

static void socket_of_a_living_process_is_not_stolen(void **state)
{
	struct house *house = *state;
	int clients[CONTROL_CLIENTS_MAX + 1], fd = -EBADF;

	assert_int_equal(control_listen(house->path, &fd), -EADDRINUSE);
	/* Nor when its accept queue is full; the first test is in it, too */
	for (size_t i = 0; i < N_ELEMENTS(clients) - 1; i++)
		clients[i] = connect_raw(house);
	assert_int_equal(control_listen(house->path, &fd), -EADDRINUSE);
	assert_int_equal(fd, -EBADF);
	assert_string_equal(control_listen_strerror(-EADDRINUSE),
			    "another process listens there");
	for (size_t i = 0; i < N_ELEMENTS(clients) - 1; i++)
		(void)close(clients[i]);
}

static void what_is_no_socket_is_left_alone(void **state)
{
	struct house *house = *state;
	char path[80];
	int fd = -EBADF;

	(void)snprintf(path, sizeof(path), "%s/file", house->directory);
	(void)close(must(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)));
	assert_int_equal(control_listen(path, &fd), -EEXIST);
	assert_int_equal(control_listen(house->directory, &fd), -EEXIST);
	(void)must(unlink(path));
	assert_int_equal(fd, -EBADF);
}

static void bad_paths_are_refused(void **state)
{
	char path[SOCKET_PATH_MAX + 2];
	int fd = -EBADF;

	(void)state;
	memset(path, 'x', sizeof(path) - 1);
	memcpy(path, "/tmp/", 5);
	path[sizeof(path) - 1] = '\0';
	assert_int_equal(control_listen(path, &fd), -ENAMETOOLONG);
	assert_string_equal(control_listen_strerror(-ENAMETOOLONG),
			    "the path of a socket has 107 bytes at the most");
	path[sizeof(path) - 2] = '\0';
	assert_int_equal(control_listen(path, &fd), 0);
	(void)close(fd);
	(void)must(unlink(path));
	fd = -EBADF;
	assert_int_equal(control_listen("/nonexistent/control", &fd), -ENOENT);
	assert_int_equal(control_listen("", &fd), -EINVAL);
	assert_int_equal(fd, -EBADF);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(call_without_words_means_the_own_command_line),
		TEST(call_hands_the_command_line_over),
		TEST(refusal_reaches_the_client_at_once),
		TEST(failure_reaches_the_client_later),
		TEST(client_has_one_call_at_a_time),
		TEST(answer_to_a_client_that_has_left_goes_nowhere),
		TEST(call_may_outlive_the_control),
		cmocka_unit_test(call_of_nobody_is_answered_in_silence),
		TEST(text_that_is_no_utf8_ends_the_client),
		TEST(version_can_be_asked),
		TEST(client_that_takes_us_for_a_bus_gets_a_name),
		TEST(garbage_ends_the_client),
		TEST(message_beyond_128_mib_ends_the_client),
		TEST(fds_are_not_taken),
		TEST(clients_beyond_the_limit_are_closed),
		TEST(silent_clients_are_closed),
		TEST(client_that_waits_for_its_answer_is_not_idle),
		TEST(client_that_does_not_read_is_closed),
		TEST(flush_gives_up_on_a_client_that_does_not_read),
		TEST(what_is_flushed_outlives_the_process),
		TEST(nothing_begins_after_the_flush),
		TEST(end_of_the_loop_waits_for_no_client),
		TEST(strangers_are_closed_whatever_the_mode),
		TEST(socket_is_for_its_owner_only),
		TEST(socket_of_a_dead_process_is_replaced),
		TEST(socket_of_a_living_process_is_not_stolen),
		TEST(what_is_no_socket_is_left_alone),
		cmocka_unit_test(bad_paths_are_refused),
	};

	return UNIT_RUN("control", tests);
}
