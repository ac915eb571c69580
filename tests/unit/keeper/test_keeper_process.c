/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cmocka.h needs these four before it */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper/process.h"

static void children_and_theirs_are_descendants(void **state)
{
	pid_t child, grandchild = 0;
	siginfo_t info;
	int pipes[2];

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	child = fork();
	if (child == 0) {
		grandchild = fork();
		if (grandchild == 0)
			for (;;)
				(void)pause();
		(void)!write(pipes[1], &grandchild, sizeof(grandchild));
		for (;;)
			(void)pause();
	}
	assert_int_equal(read(pipes[0], &grandchild, sizeof(grandchild)),
			 sizeof(grandchild));
	assert_true(process_is_child(child));
	assert_true(process_is_descendant(child));
	assert_false(process_is_child(grandchild));
	assert_true(process_is_descendant(grandchild));

	assert_int_equal(kill(grandchild, SIGKILL), 0);
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	assert_true(process_is_child(child)); /* dead, but not yet reaped */
	assert_false(process_is_descendant(child));
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_false(process_is_child(child));
	assert_false(process_is_descendant(child));
	(void)close(pipes[0]);
	(void)close(pipes[1]);
}

static void nobody_else_is(void **state)
{
	(void)state;
	assert_false(process_is_descendant(getpid()));
	assert_false(process_is_descendant(getppid()));
	assert_false(process_is_descendant(1));
	assert_false(process_is_descendant(0));
	assert_false(process_is_descendant(INT32_MAX));
	assert_false(process_is_child(getpid()));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(children_and_theirs_are_descendants),
		cmocka_unit_test(nobody_else_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
