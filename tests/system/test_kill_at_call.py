# SPDX-License-Identifier: LGPL-2.1-or-later
"""kill-at-call, with which other tests kill a process at each of its system calls.

What it traces here is crash-victim, whose calls are known.
"""

import os
import pathlib
import select
import signal
import subprocess

import pytest

import conftest
import stages
from questions import wait_until

# The calls in which the victim waits, as /proc/PID/syscall has them on x86-64
WAITS = {"epoll": "232", "read": "0", "pause": "34"}
ACTS = ["getppid", "write", "exit_group"]
KILLED = -signal.SIGKILL
NOT_REACHED = 3
TIMED_OUT = 4


def program(name):
    return conftest.or_cannot_run(name, lambda: stages.built_program(name))


class Victim(subprocess.Popen):
    """A crash-victim that waits for SIGUSR2; this process is its parent."""

    def __init__(self, how, *arguments):
        super().__init__([program("crash-victim"), how, *arguments], stdout=subprocess.PIPE)
        assert os.read(self.stdout.fileno(), 64) == b"ready\n"
        wait_until(lambda: self.call() == WAITS.get(how, WAITS["epoll"]))

    def call(self):
        """The number of the call in which the main thread waits, or "running"."""
        return pathlib.Path(f"/proc/{self.pid}/syscall").read_text("ascii").split()[0]

    def state(self):
        return pathlib.Path(f"/proc/{self.pid}/stat").read_text("ascii").split()[2]

    def tracers(self):
        """Of each thread: the process that traces it, or 0."""
        found = {}
        for task in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            status = (task / "status").read_text("utf-8")
            found[int(task.name)] = int(status.partition("TracerPid:")[2].split()[0])
        return found

    def end(self):
        """Waits for it and all that it has spawned. Returns what they have said."""
        with self.stdout:
            said = self.stdout.read().decode()
        self.wait()
        return said


@pytest.fixture(name="victim")
def fixture_victim():
    """Victim(), but whatever happens no victim is left behind."""
    victims = []

    def start(*arguments):
        victims.append(Victim(*arguments))
        return victims[-1]

    yield start
    for victim in victims:
        victim.kill()
        victim.wait()
        victim.stdout.close()


def start_tool(pid, *options):
    """Starts kill-at-call; returns it once it has attached."""
    # pylint: disable=consider-using-with # finish() and communicate() wait for its end
    tool = subprocess.Popen(
        [program("kill-at-call"), f"--pid={pid}", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    readable, _, _ = select.select([tool.stdout], [], [], stages.PATIENCE_SECONDS)
    assert readable
    line = os.read(tool.stdout.fileno(), len("attached\n"))
    assert line == b"attached\n", tool.communicate()
    return tool


def finish(tool, status=0):
    """The lines that it prints until its end, after "attached"."""
    output, errors = tool.communicate(timeout=2 * stages.PATIENCE_SECONDS)
    assert (tool.returncode, errors) == (status, "")
    return output.splitlines()


def attack(victim, *options, status=0):
    """Has the victim act, under kill-at-call."""
    return finish(start_tool(victim.pid, "--signal=USR2", *options), status)


def counted(lines):
    """The names of what was counted."""
    *calls, total = lines
    numbers, names = zip(*(line.split() for line in calls)) if calls else ((), ())
    assert list(numbers) == [str(n + 1) for n in range(len(numbers))]
    assert total == f"total {len(names)}"
    return list(names)


def wait_for_stop(victim):
    os.waitid(os.P_PID, victim.pid, os.WSTOPPED)


# Counting


@pytest.mark.parametrize("how", ("epoll", "read"))
def test_calls_are_counted_but_not_the_one_in_progress(victim, how):
    process = victim(how)
    assert counted(attack(process, "--count")) == ACTS
    assert process.end() == "acted\n"
    assert process.returncode == 0  # no call has failed


def test_signal_with_a_handler_is_passed_on(victim):
    process = victim("pause")
    assert counted(attack(process, "--count")) == ["rt_sigreturn"] + ACTS
    process.end()
    assert process.returncode == 0


def test_other_threads_are_neither_traced_nor_disturbed(victim):
    process = victim("epoll", "busy")
    tool = start_tool(process.pid, "--count")
    tracers = process.tracers()
    assert tracers.pop(process.pid) == tool.pid
    assert set(tracers.values()) == {0} and len(tracers) == 2
    process.send_signal(signal.SIGUSR2)
    assert counted(finish(tool)) == ACTS
    process.end()
    assert process.returncode == 0


def test_all_threads_are_counted_when_asked_for(victim):
    of_main = counted(attack(victim("threads"), "--count"))
    of_all = counted(attack(victim("threads"), "--count", "--all-threads"))
    assert not {"getpgrp", "getsid"} & set(of_main)
    assert {"getpgrp", "getsid"} < set(of_all)
    assert of_all[-1] == "exit_group"


def test_stop_and_continue_are_passed_on(victim):
    process = victim("read")
    tool = start_tool(process.pid, "--count")
    process.send_signal(signal.SIGSTOP)
    wait_for_stop(process)
    process.send_signal(signal.SIGUSR2)
    process.send_signal(signal.SIGCONT)
    assert counted(finish(tool)) == ACTS
    process.end()
    assert process.returncode == 0


def test_process_that_was_stopped_before_is_left_so(victim):
    process = victim("read")
    process.send_signal(signal.SIGSTOP)
    wait_for_stop(process)
    tool = start_tool(process.pid, "--count", "--timeout=0.1")
    assert "timeout" in tool.communicate()[1]
    assert process.tracers() == {process.pid: 0}
    # the kernel moves it from the tracer's stop to the old one, and tells nobody
    wait_until(lambda: process.state() == "T")
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGUSR2)
    assert process.end() == "acted\n"


# Killing


@pytest.mark.parametrize("number, name", enumerate(ACTS, start=1))
def test_killed_before_a_call_it_does_not_make_it(victim, number, name):
    process = victim("epoll")
    lines = attack(process, f"--call={number}", "--when=before")
    assert lines == [f"killed before call {number}: {name}"]
    assert process.end() == ("acted\n" if number > ACTS.index("write") + 1 else "")
    assert process.returncode == KILLED


@pytest.mark.parametrize("number, name", enumerate(ACTS[:2], start=1))
def test_killed_after_a_call_it_has_made_it_and_no_other(victim, number, name):
    process = victim("epoll", "busy")
    lines = attack(process, f"--call={number}", "--when=after")
    assert lines == [f"killed after call {number}: {name}"]
    assert process.end() == ("acted\n" if name == "write" else "")
    assert process.returncode == KILLED


def test_call_of_any_thread_can_be_the_one(victim):
    process = victim("epoll", "busy")
    call = ("--call=1000", "--when=after", "--all-threads")
    # nobody but the busy thread makes any
    assert finish(start_tool(process.pid, *call)) == ["killed after call 1000: getuid"]
    process.end()
    assert process.returncode == KILLED


@pytest.mark.parametrize("call", ("--call=3 --when=after", "--call=4 --when=before"))
def test_call_that_is_not_reached_is_said_to_be_so(victim, call):
    """The third is exit_group: it has no after."""
    process = victim("epoll")
    assert attack(process, *call.split(), status=NOT_REACHED) == ["not reached: 3 calls"]
    assert process.end() == "acted\n"
    assert process.returncode == 0


# Children


def count_successor(victim, *options):
    process = victim("spawn")
    names = counted(attack(process, "--child", "--count", *options))
    assert process.end().splitlines() == ["succeeded", "alone"]
    assert process.returncode == 0
    return names


def test_child_is_followed_from_its_birth_until_its_parent_exits(victim):
    names = count_successor(victim)
    assert names.count("execve") == 1
    assert "dup2" in names[: names.index("execve")]
    # whether it comes to the poll before the parent's exit is open, but not further
    assert "getppid pidfd_open write" in " ".join(names[-4:])
    assert "getpgrp" not in names


def test_child_is_followed_for_some_calls_more_when_asked_for(victim):
    names = count_successor(victim, "--after-exit=1")
    assert names[-1] == "poll" or names[-2:] == ["poll", "getpgrp"]


# The victim says, as the parent: that it was succeeded, or, told by SIGCHLD, what its child
# died of
@pytest.mark.parametrize(
    "name, when, says",
    (
        ("rt_sigprocmask", "before", "child died of 9\n"),
        ("dup2", "after", "child died of 9\n"),
        ("execve", "before", "child died of 9\n"),
        ("execve", "after", "child died of 9\n"),
        ("write", "before", "child died of 9\n"),
        ("write", "after", "succeeded\n"),
    ),
)
def test_child_is_killed_and_its_parent_sees_it(victim, name, when, says):
    number = count_successor(victim).index(name) + 1
    process = victim("spawn")
    lines = attack(process, "--child", f"--call={number}", f"--when={when}")
    assert lines == [f"killed {when} call {number}: {name}"]
    assert process.end() == says
    assert process.returncode == 0


def test_child_that_does_not_come_so_far_is_left_alone(victim):
    process = victim("spawn")
    call = ("--child", "--call=10000", "--when=before")
    (line,) = attack(process, *call, status=NOT_REACHED)
    assert line.startswith("not reached: ")
    assert process.end().splitlines() == ["succeeded", "alone"]


def test_parent_that_makes_no_child_ends_the_waiting_for_it(victim):
    process = victim("epoll")
    assert attack(process, "--child", "--count") == ["total 0"]
    process = victim("epoll")
    call = ("--child", "--call=1", "--when=before")
    assert attack(process, *call, status=NOT_REACHED) == ["not reached: 0 calls"]


def test_parent_is_not_disturbed_by_being_watched(victim):
    process = victim("epoll")
    tool = start_tool(process.pid, "--child", "--count")
    assert process.call() == WAITS["epoll"]
    process.send_signal(signal.SIGUSR2)
    assert counted(finish(tool)) == []
    process.end()
    assert process.returncode == 0


# What goes wrong


@pytest.mark.parametrize(
    "how, options", (("epoll", ()), ("read", ()), ("epoll busy", ("--all-threads",)))
)
def test_process_goes_on_untraced_after_a_timeout(victim, how, options):
    """Wherever its threads are: waiting, or standing still at a call."""
    process = victim(*how.split())
    call = ("--call=1000000000", "--when=before")
    tool = start_tool(process.pid, *call, "--timeout=0.1", *options)
    output, errors = tool.communicate()
    assert (tool.returncode, output) == (TIMED_OUT, "")
    assert "timeout" in errors and errors.count("\n") == 1
    assert set(process.tracers().values()) == {0}
    process.send_signal(signal.SIGUSR2)
    assert process.end() == "acted\n"
    assert process.returncode == 0


def run_tool(*arguments):
    command = [program("kill-at-call"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments, complaint",
    (
        ("", "no --pid="),
        ("--pid=1x --count", "--pid=1x: expected a positive number"),
        ("--pid=0 --count", "--pid=0: expected"),
        ("--pid=1", "no --count and no --call="),
        ("--pid=1 --count --call=1 --when=before", "--count and --call="),
        ("--pid=1 --call=1", "--call= without --when="),
        ("--pid=1 --count --when=after", "--when= without --call="),
        ("--pid=1 --call=0 --when=after", "--call=0: expected"),
        ("--pid=1 --call=1 --when=now", "--when=now: expected before or after"),
        ("--pid=1 --count --signal=SIGUSR9", "--signal=SIGUSR9: expected"),
        ("--pid=1 --count --timeout=soon", "--timeout=soon: expected seconds"),
        ("--pid=1 --count --after-exit=3", "--after-exit= without --child"),
        ("--pid=1 --count more", "more: expected options only"),
        ("--pid", "--pid: expected a value"),
        ("--sort", "unknown or misused option --sort"),
    ),
)
def test_wrong_usage_is_told_in_one_line(arguments, complaint):
    result = run_tool(*arguments.split())
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"kill-at-call: {complaint}")
    assert result.stderr.count("\n") == 1


def test_process_that_is_not_there_is_told_in_one_line():
    with subprocess.Popen(["true"]) as gone:
        pass
    result = run_tool(f"--pid={gone.pid}", "--count")
    assert result.returncode == 1
    assert result.stderr == f"kill-at-call: cannot trace {gone.pid}: No such process\n"


def test_help_names_every_option():
    result = run_tool("--help")
    assert result.returncode == 0
    for option in "pid child all-threads after-exit signal count call when timeout".split():
        assert f"--{option}" in result.stdout
