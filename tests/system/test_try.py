# SPDX-License-Identifier: LGPL-2.1-or-later
"""packaging/try, run and obeyed as by a person who has just cloned the project."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess

import pytest

import journal
import network
import stages

TRY = "packaging/try"
VALUE = r"^pid: (\d+), conn read {} bytes, val: \[{}\]$"
BUILD_SECONDS = 200
PREFIX = re.compile(r"^<\d>")


class Person:
    """Who has typed packaging/try and reads what it says."""

    def __init__(self, net, arguments, source, environment):
        self.network = net
        # pylint: disable=consider-using-with # leave() ends it
        self.process = subprocess.Popen(
            net.command([str(source / TRY), *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(os.environ, **environment),
            text=True,
            errors="replace",
        )
        self.lines = journal.LineFollower(
            self.process.stdout, lambda line: PREFIX.sub("", line.rstrip("\n"))
        )

    def reads(self, pattern, since=0, timeout=stages.PATIENCE_SECONDS):
        """Waits for a line; returns the match."""
        expression = re.compile(pattern)
        return expression.search(self.lines.wait(expression.search, timeout, since))

    def types_command(self, pattern):
        """Types a command that it was told to type, and waits for what it does.

        Returns the place in the output before it.
        """
        command = shlex.split(self.reads(pattern)[0])
        mark = self.lines.count()
        # Nothing but what belongs to this run may be named there
        assert int(command[-1]) == self.process.pid
        subprocess.run(command, check=True)
        self.reads("^recv tcpconn and read$", mark)
        return mark

    def sees_it_end(self):
        """Waits for its end; returns the exit status."""
        return self.process.wait(stages.PATIENCE_SECONDS)

    def presses_ctrl_c(self):
        self.process.send_signal(signal.SIGINT)
        return self.sees_it_end()

    def close(self):
        try:
            self.presses_ctrl_c()
        finally:
            self.process.kill()
            self.process.wait()
            self.lines.wait_end()
            self.process.stdout.close()


@pytest.fixture
def net():
    """Its own where that can be had: nobody else's port 8888."""
    made = network.NetworkNamespace.new() if os.geteuid() == 0 else network.Network()
    yield made
    made.close()


@contextlib.contextmanager
def running(net, *arguments, source=None, **environment):
    if source is None:
        source = stages.source_directory()
        stages.built_program("holdfast-keeper")
        environment["HOLDFAST_TRY_BUILD"] = str(stages.build_directory())
    person = Person(net, arguments, source, environment)
    try:
        yield person
    finally:
        person.close()


def connected(net, person):
    """Connects by what it was told to type: nc -v HOST PORT."""
    host, port = person.reads(r"^ +nc -v (\S+) (\d+)$").groups()
    person.reads("tcp server started", timeout=BUILD_SECONDS)
    return net.connect((host, int(port)))


def follow_the_instructions(net, person):
    with connected(net, person) as client:
        client.sendall(b"1234\n")
        first = person.reads(VALUE.format(5, "49 50 51 52 10 0 0 0"))[1]
        mark = person.types_command(r"pkill -KILL -P \d+$")
        client.sendall(b"5678\n")
        second = person.reads(VALUE.format(5, "53 54 55 56 10 0 0 0"), mark)[1]
        mark = person.types_command(r"kill -HUP \d+$")
        client.sendall(b"90\n")
        third = person.reads(VALUE.format(3, "57 48 10 0 0 0 0 0"), mark)[1]
    assert len({first, second, third}) == 3


@pytest.mark.skipif(shutil.which("pkill") is None, reason="there is no pkill to type")
def test_instructions_show_one_connection_going_on(net):
    with running(net) as person:
        follow_the_instructions(net, person)
        assert person.presses_ctrl_c() == 0


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("pkill") is None or shutil.which("nc") is None,
    reason="without pkill or nc it would be told, or install, something else",
)
def test_fresh_checkout_is_built_and_runs(net, tmp_path):
    source = tmp_path / "checkout"
    ignored = shutil.ignore_patterns("build", "build-*", ".git", "__pycache__")
    shutil.copytree(stages.source_directory(), source, ignore=ignored)
    with running(net, source=source, HOLDFAST_TRY_BUILD="") as person:
        person.reads("^try: building into ")
        person.reads("tcp server started", timeout=BUILD_SECONDS)
        follow_the_instructions(net, person)
    assert (source / "build-try/src/holdfastd").exists()


def test_without_a_service_the_options_are_those_of_log(net):
    with running(net, "--frame=line", HOLDFAST_LISTEN="127.0.0.1:9999") as person:
        with connected(net, person) as client:
            assert client.getpeername()[1] == 9999
            client.sendall(b"a line\n")
            person.reads("conn read 7 bytes, line: a line$")


def test_other_services_run_too(net):
    with running(net, "--threads=1", "echo", "--listen=[::1]:8888") as echo:
        with running(net, "relay", "[::1]:8888") as relay:
            relay.reads(r"You are connected to \[::1\]:8888")
            with connected(net, echo), connected(net, relay) as client:
                client.sendall(b"there and back\n")
                assert client.recv(100, 0) == b"there and back\n"


def test_port_that_is_taken_is_said(net):
    with net.listen(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with running(net, f"--listen={address}") as person:
            person.reads(f"cannot listen on {address}: Address already in use")
            assert person.sees_it_end() != 0


def test_wrong_option_ends_it_with_what_was_wrong(net):
    with running(net, "--buffer=0") as person:
        person.reads("--buffer=0: give a number")
        assert person.sees_it_end() == 2


@pytest.mark.parametrize(
    "option, text", [("--help", r"^packaging/try \[--listen"), ("--version", "^holdfastd ")]
)
def test_help_and_version_start_nothing(net, option, text):
    with running(net, option) as person:
        person.reads(text)
        assert person.sees_it_end() == 0
