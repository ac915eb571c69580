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
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "keeper/store.h"

static sd_event *event;
static struct store store;

static int begin(void **state)
{
	(void)state;
	assert_int_equal(sd_event_new(&event), 0);
	store_init(&store, event, 4, 64);
	return 0;
}

static int end(void **state)
{
	(void)state;
	store_done(&store);
	assert_int_equal(store.n_fds, 0);
	assert_int_equal(store.names_size, 0);
	event = sd_event_unref(event);
	return 0;
}

static int new_fd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static void newest_comes_first(void **state)
{
	(void)state;
	assert_int_equal(store_put(&store, new_fd(), "a", false), 0);
	assert_int_equal(store_put(&store, new_fd(), "b", false), 0);
	assert_string_equal(store.newest->name, "b");
	assert_string_equal(store.newest->next->name, "a");
	assert_null(store.newest->next->next);
	assert_int_equal(store.names_size, 4);
}

static void duplicates_keep_the_old_name_and_are_closed(void **state)
{
	int fd = new_fd(), copy = dup(fd);

	(void)state;
	assert_int_equal(store_put(&store, fd, "old", false), 0);
	assert_int_equal(store_put(&store, copy, "new", false), STORE_DUPLICATE);
	assert_int_equal(store.n_fds, 1);
	assert_string_equal(store.newest->name, "old");
	assert_false(is_open(copy));
	assert_true(is_open(fd));
}

static void same_inode_opened_twice_is_no_duplicate(void **state)
{
	_cleanup_close_ int fd = memfd_create("test", MFD_CLOEXEC);
	char path[] = "/proc/self/fd/000000";
	int again;

	(void)state;
	assert_true(fd >= 0 && fd < 10);
	path[14] = (char)('0' + fd);
	path[15] = '\0';
	again = open(path, O_RDWR | O_CLOEXEC);
	assert_true(again >= 0);
	assert_int_equal(store_put(&store, take_fd(&fd), "a", false), 0);
	assert_int_equal(store_put(&store, again, "a", false), 0);
	assert_int_equal(store.n_fds, 2);
}

static void removal_is_by_name_and_takes_all(void **state)
{
	int a = new_fd(), b = new_fd(), c = new_fd();

	(void)state;
	assert_int_equal(store_put(&store, a, "x", false), 0);
	assert_int_equal(store_put(&store, b, "y", false), 0);
	assert_int_equal(store_put(&store, c, "x", false), 0);
	assert_int_equal(store_remove(&store, "X"), 0);
	assert_int_equal(store_remove(&store, "x"), 2);
	assert_int_equal(store_remove(&store, "x"), 0);
	assert_false(is_open(a));
	assert_true(is_open(b));
	assert_false(is_open(c));
	assert_int_equal(store.n_fds, 1);
	assert_int_equal(store.names_size, 2);
}

static void a_full_store_refuses_and_closes(void **state)
{
	int fd, i;

	(void)state;
	for (i = 0; i < 4; i++)
		assert_int_equal(store_put(&store, new_fd(), "n", false), 0);
	fd = new_fd();
	assert_int_equal(store_put(&store, fd, "n", false), -EXFULL);
	assert_false(is_open(fd));
	assert_int_equal(store.n_fds, 4);
}

static void names_together_have_a_bound(void **state)
{
	char name[64];
	int fd;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[62] = '\0'; /* with its separator, one less than there is */
	assert_int_equal(store_put(&store, new_fd(), name, false), 0);
	fd = new_fd();
	assert_int_equal(store_put(&store, fd, "x", false), -E2BIG);
	assert_false(is_open(fd));
	assert_int_equal(store_put(&store, new_fd(), "", false), 0);
	assert_int_equal(store_put(&store, new_fd(), "", false), -E2BIG);
	assert_int_equal(store_remove(&store, name), 1);
	assert_int_equal(store_put(&store, new_fd(), "x", false), 0);
}

static void polled_fds_are_dropped_at_hangup(void **state)
{
	int kept[2], dropped[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, kept), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, dropped), 0);
	assert_int_equal(store_put(&store, new_fd(), "other", true), 0);
	assert_int_equal(store_put(&store, kept[0], "kept", false), 0);
	assert_int_equal(store_put(&store, dropped[0], "dropped", true), 0);
	assert_int_equal(sd_event_run(event, 0), 0); /* nothing yet */
	assert_int_equal(store.n_fds, 3);

	assert_int_equal(write(dropped[1], "unread", 6), 6);
	(void)fd_close(kept[1]);
	(void)fd_close(dropped[1]);
	assert_true(sd_event_run(event, 0) > 0);
	assert_int_equal(sd_event_run(event, 0), 0);
	assert_int_equal(store.n_fds, 2);
	assert_false(is_open(dropped[0]));
	assert_true(is_open(kept[0]));
	assert_string_equal(store.newest->name, "kept");
}

static void files_that_cannot_be_polled_are_kept(void **state)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(store_put(&store, fd, "ledger", true), 0);
	assert_int_equal(store.n_fds, 1);
	assert_null(store.newest->source);
}

int main(void)
{
#define store_test(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		store_test(newest_comes_first),
		store_test(duplicates_keep_the_old_name_and_are_closed),
		store_test(same_inode_opened_twice_is_no_duplicate),
		store_test(removal_is_by_name_and_takes_all),
		store_test(a_full_store_refuses_and_closes),
		store_test(names_together_have_a_bound),
		store_test(polled_fds_are_dropped_at_hangup),
		store_test(files_that_cannot_be_polled_are_kept),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
