/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cmocka.h needs these four before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/fd.h"
#include "keeper/notify.h"

static struct notify_socket notify;
static struct notification notification;
static int sender = -EBADF;

static int begin(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	socklen_t size = sizeof(address);

	(void)state;
	assert_int_equal(notify_socket_init(&notify), 0);
	if (notify.name[0] == '@') {
		memcpy(address.sun_path + 1, notify.name + 1, strlen(notify.name) - 1);
		size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
				   strlen(notify.name));
	} else {
		memcpy(address.sun_path, notify.name, strlen(notify.name));
	}
	sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(sender, (struct sockaddr *)&address, size), 0);
	return 0;
}

static int end(void **state)
{
	(void)state;
	notification_done(&notification);
	sender = fd_close(sender);
	notify_socket_done(&notify);
	assert_int_equal(notify.fd, -EBADF);
	assert_int_equal(access(notify.name, F_OK), -1);
	return 0;
}

static void send_fds(const char *text, size_t size, int fd, size_t n_fds)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(NOTIFY_FDS_MAX * sizeof(int))];
	} control = {.bytes = {0}};
	char copy[MESSAGE_TEXT_MAX + 1];
	struct iovec iov = {.iov_base = copy, .iov_len = size};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
	size_t i;

	memcpy(copy, text, size);
	if (n_fds > 0) {
		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		for (i = 0; i < n_fds; i++)
			memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &fd,
			       sizeof(fd));
	}
	assert_int_equal(sendmsg(sender, &header, 0), size);
}

static int lowest_free_fd(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	(void)fd_close(fd);
	return fd;
}

static void sender_is_known_without_its_doing(void **state)
{
	(void)state;
	send_fds("READY=1", 7, -1, 0);
	assert_int_equal(notify_socket_receive(&notify, &notification), 0);
	assert_int_equal(notification.sender.pid, getpid());
	assert_int_equal(notification.text_size, 7);
	assert_memory_equal(notification.text, "READY=1", 7);
	assert_int_equal(notification.n_fds, 0);
	assert_int_equal(notify_socket_receive(&notify, &notification), -EAGAIN);
}

static void as_many_fds_as_can_be_sent_arrive(void **state)
{
	int free_fd = lowest_free_fd();
	size_t i;

	(void)state;
	send_fds("FDSTORE=1", 9, STDERR_FILENO, NOTIFY_FDS_MAX);
	assert_int_equal(notify_socket_receive(&notify, &notification), 0);
	assert_int_equal(notification.n_fds, NOTIFY_FDS_MAX);
	for (i = 0; i < NOTIFY_FDS_MAX; i++)
		assert_true(fcntl(notification.fds[i], F_GETFD) & FD_CLOEXEC);
	notification_done(&notification);
	assert_int_equal(lowest_free_fd(), free_fd);
}

static void taken_fds_are_left_alone(void **state)
{
	_cleanup_close_ int taken = -EBADF;

	(void)state;
	send_fds("FDSTORE=1", 9, STDERR_FILENO, 2);
	assert_int_equal(notify_socket_receive(&notify, &notification), 0);
	taken = take_fd(&notification.fds[1]);
	notification_done(&notification);
	assert_true(fcntl(taken, F_GETFD) >= 0);
}

static void text_that_was_cut_short_is_refused(void **state)
{
	static char text[MESSAGE_TEXT_MAX + 1];
	int free_fd = lowest_free_fd();

	(void)state;
	memset(text, 'x', sizeof(text));
	send_fds(text, MESSAGE_TEXT_MAX, STDERR_FILENO, 1);
	assert_int_equal(notify_socket_receive(&notify, &notification), 0);
	assert_int_equal(notification.text_size, MESSAGE_TEXT_MAX);
	notification_done(&notification);
	send_fds(text, MESSAGE_TEXT_MAX + 1, STDERR_FILENO, 1);
	assert_int_equal(notify_socket_receive(&notify, &notification), -EBADMSG);
	assert_int_equal(lowest_free_fd(), free_fd);
}

static void fds_that_were_cut_short_are_refused(void **state)
{
	struct rlimit saved, limit;
	int free_fd = lowest_free_fd(), r;

	(void)state;
	send_fds("FDSTORE=1", 9, STDERR_FILENO, 5);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &saved), 0);
	limit = saved;
	limit.rlim_cur = (rlim_t)free_fd + 3; /* room for three of the five */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	r = notify_socket_receive(&notify, &notification);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &saved), 0);
	assert_int_equal(r, -EBADMSG);
	assert_int_equal(notification.sender.pid, getpid());
	assert_int_equal(lowest_free_fd(), free_fd);
}

int main(void)
{
#define notify_test(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		notify_test(sender_is_known_without_its_doing),
		notify_test(as_many_fds_as_can_be_sent_arrive),
		notify_test(taken_fds_are_left_alone),
		notify_test(text_that_was_cut_short_is_refused),
		notify_test(fds_that_were_cut_short_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
