# SPDX-License-Identifier: LGPL-2.1-or-later
"""The control socket, and holdfastctl, which asks by it."""

import subprocess

import pytest

import stages
from controlled import OBJECT, DESTINATION, Controlled
from questions import echoes, wait_until

@pytest.fixture
def controlled(stage):
    return Controlled(stage)


def test_takeover_is_asked_for_and_waited_for(controlled):
    with controlled.instance.connect() as client:
        for _ in range(3):
            old = controlled.instance.main_pid()
            result = controlled.ctl("takeover", f"--socket={controlled.path}")
            new = controlled.instance.wait_alone(old)
            assert (result.returncode, result.stderr) == (0, "")
            assert result.stdout == f"taken over by pid {new}\n"
            assert echoes(client)


def test_takeover_that_fails_is_said_in_one_line(controlled):
    pid = controlled.instance.main_pid()
    command = ("--", "/usr/bin/no-such-holdfastd", "echo")
    result = controlled.ctl("takeover", f"--socket={controlled.path}", *command)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"holdfastctl: Takeover of {controlled.path}: "
        "/usr/bin/no-such-holdfastd can't be started: No such file or directory\n"
    )
    assert controlled.instance.main_pid() == pid
    result = controlled.ctl("takeover", f"--socket={controlled.path}", "--", "holdfastd", "echo")
    assert (result.returncode, result.stdout) == (1, "")
    assert "holdfastd is no absolute path of a program\n" in result.stderr
    with controlled.instance.connect() as client:
        assert echoes(client)


@pytest.mark.stages("keeper")
def test_takeover_with_another_command_line(controlled):
    program = stages.built_program("holdfastd")
    options = [f"--control={controlled.path}", "--threads=3"]
    with controlled.instance.connect() as client:
        old = controlled.instance.main_pid()
        result = controlled.ctl(
            "takeover", f"--socket={controlled.path}", "--", program, *options, "echo"
        )
        assert result.returncode == 0, result.stderr
        controlled.instance.wait_alone(old)
        assert controlled.instance.n_workers() == 3
        assert echoes(client)
        result = controlled.ctl(
            "takeover", f"--socket={controlled.path}", "--", program, "--threads=many", "echo"
        )
        assert result.returncode == 1
        assert "the new process says: --threads=many: give a number" in result.stderr
        assert echoes(client)


@pytest.mark.stages("keeper")
def test_takeover_to_another_control_socket(controlled):
    other = controlled.stage.socket_path("another")
    program = stages.built_program("holdfastd")
    command = ("--", program, f"--control={other}", "echo")
    old = controlled.instance.main_pid()
    assert controlled.ctl("takeover", f"--socket={controlled.path}", *command).returncode == 0
    # Its own socket is there when the manager listens to it
    controlled.instance.wait_alone(old)
    controlled.instance.wait_ready()
    assert controlled.ctl("takeover", f"--socket={other}").returncode == 0
    assert controlled.ctl("takeover", f"--socket={controlled.path}").returncode == 1


@pytest.mark.stages("systemd")
def test_instance_is_asked_by_its_name(controlled):
    name = controlled.instance.name
    assert ":" in name
    old = controlled.instance.main_pid()
    result = controlled.ctl("takeover", name)
    assert (result.returncode, result.stderr) == (0, "")
    assert controlled.instance.wait_alone(old)


@pytest.mark.stages("systemd")
def test_reload_brings_the_configuration_as_it_is_now(controlled):
    """The manager reads EnvironmentFile= anew for ExecReload=, as the service's user."""
    instance = controlled.instance
    with instance.connect() as client:
        old = instance.main_pid()
        instance.reload(options=["--threads=3"])
        new = instance.wait_alone(old)
        assert int(instance.show("MainPID")) == new
        assert instance.n_workers() == 3
        assert echoes(client)


@pytest.mark.stages("systemd")
def test_manager_waits_for_the_end_of_a_process_that_took_over(controlled):
    """It does so for its own children only; of another it looks at nothing but the name."""
    instance = controlled.instance
    with instance.connect() as client:
        old = instance.main_pid()
        instance.reload()
        new = instance.wait_alone(old)
        since = instance.mark()
        instance.restart()
        assert echoes(client)
        instance.wait_line("Stopping on SIGTERM", since=since)
        status = controlled.run("systemctl", "show", "-P", "ExecMainStatus", instance.service_unit)
        assert status.stdout.strip() == "0"
    assert not [line for line in instance.manager_lines() if f"process {new} which" in line]
    assert not [line for line in instance.manager_lines() if "left-over process" in line]


@pytest.mark.stages("keeper")
def test_successor_without_control_socket_leaves_none(controlled):
    program = stages.built_program("holdfastd")
    old = controlled.instance.main_pid()
    command = ("takeover", f"--socket={controlled.path}")
    assert controlled.ctl(*command, "--", program, "echo").returncode == 0
    controlled.instance.wait_alone(old)
    controlled.instance.wait_ready()
    result = controlled.ctl(*command)
    assert result.returncode == 1
    assert "can't ask" in result.stderr


@pytest.mark.stages("systemd")
def test_reload_with_a_mistake_fails_and_changes_nothing(controlled):
    instance = controlled.instance
    with instance.connect() as client:
        pid = instance.main_pid()
        assert instance.reload(options=["--threads=many"], check=False) != 0
        instance.wait_line("The takeover by pid .* has failed: the new process says: --threads=many")
        assert instance.wait_alone() == pid
        assert instance.show("ActiveState") == "active"
        assert echoes(client)
        instance.reload(options=[])
        assert instance.wait_alone(pid)
        assert echoes(client)


def test_instance_is_introspected(controlled):
    result = controlled.busctl("--no-pager", "introspect", DESTINATION, *OBJECT)
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [".Takeover", "method", "as", "u"] in [row[:4] for row in rows]
    pid = controlled.busctl("get-property", DESTINATION, *OBJECT, "PID").stdout
    assert pid == f"u {controlled.instance.main_pid()}\n"


def test_next_process_is_asked_at_the_same_path(controlled):
    controlled.instance.kill()
    controlled.instance.wait_ready()
    result = controlled.ctl("takeover", f"--socket={controlled.path}")
    assert result.returncode == 0, result.stderr


@pytest.mark.stages("keeper")
def test_who_asks_while_connections_are_taken_up_is_answered_after_that(stage):
    """Of those that no worker has looked at yet, the answer would not be right."""
    controlled = Controlled(stage, options=["--threads=1"])
    socket_option = f"--socket={controlled.path}"
    clients = controlled.instance.connect_many(5000)
    assert all(echoes(client) for client in clients)
    for _ in range(6):
        since = controlled.instance.mark()
        controlled.instance.kill()
        # The socket is there before the taking up, which takes longer than to ask
        wait_until(lambda: controlled.ctl("status", socket_option).returncode == 0)
        assert controlled.ask("audit") == "5000 connections audited, all right\n"
        controlled.instance.wait_line("Audited the bytes of 5000 connections", since=since)
    assert all(echoes(client) for client in clients[::500])


@pytest.mark.stages("keeper")
def test_what_is_in_the_place_of_the_socket_stays_and_is_named(stage, tmp_path):
    path = tmp_path / "control"
    path.write_text("precious", encoding="ascii")
    instance = stage.start("echo", options=[f"--control={path}"])
    instance.wait_line(rf"No control socket at {path}: there is something that is no socket")
    with instance.connect() as client:
        assert echoes(client)
    assert path.read_text(encoding="ascii") == "precious"


@pytest.mark.stages("systemd")
def test_only_root_gets_near(controlled):
    directory = controlled.path.rpartition("/")[0]
    stat = controlled.run("stat", "--format=%a", directory, controlled.path)
    assert stat.stdout == "700\n600\n"
    result = controlled.run(
        "setpriv", "--reuid=65534", "holdfastctl", "takeover", controlled.instance.name
    )
    assert result.returncode == 1
    assert "only root and the service's own user may ask" in result.stderr


@pytest.mark.stages("keeper")
def test_service_without_its_socket_serves(stage):
    path = stage.socket_path("no/directory/control")
    instance = stage.start("echo", options=[f"--control={path}"])
    instance.wait_line("No control socket at .*/no/directory/control: No such file")
    with instance.connect() as connection:
        connection.sendall(b"1234")
        assert connection.recv(4) == b"1234"


@pytest.mark.stages("keeper")
def test_stalled_client_does_not_hold_up_the_end(controlled):
    pid = controlled.instance.main_pid()
    with controlled.stage.network.connect(controlled.path) as client:
        client.sendall(b"\0AUTH EXTERNAL\r\n")
        assert client.recv(6) == b"DATA\r\n"
        controlled.instance.restart()
        assert client.recv(1) == b""
    # Not killed, as it would have been after a while
    controlled.instance.wait_line_of_keeper(f"pid {pid} exited with status 0")


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (("takeover",), "no instance: give its name, or --socket=PATH"),
        (("take", "8888"), "take: unknown verb"),
        (("takeover", "8888", "--all"), "--all: this verb has nothing to show all of"),
        (("takeover", "8888", "9999"), "9999: unexpected argument"),
        (("takeover", "8888", "--socket=/x"), "8888: give an INSTANCE or --socket=, not both"),
        (("takeover", "8888", "--"), "--: a command has to follow"),
        (("takeover", ".."), "..: no name of an instance"),
        (("takeover", "a/b"), "a/b: no name of an instance"),
        (("takeover", "x" * 100), ": the name is too long for a socket's path"),
        (("--socket",), "--socket: needs a value"),
        (("--verbose",), "--verbose: no such option"),
        (("show",), "no connection: give its id, as list shows it"),
        (("close", "17x"), "17x: the id of a connection is a number from 1 on"),
        (("close", "0"), "0: the id of a connection is a number from 1 on"),
        (("show", "-1"), "-1: no such option"),
        (("show", "18446744073709551616"), ": the id of a connection is a number from 1 on"),
        (("show", "17", "8888", "9999"), "9999: unexpected argument"),
        (("list", "--json=long"), "long: --json= is short, pretty or off"),
        (("list", "--sort=colour"), "colour: no column of this name"),
        (("list", "--", "holdfastd"), "--: this verb takes no command"),
    ],
)
def test_misuse_is_explained_with_status_2(arguments, expected):
    result = subprocess.run(
        [stages.built_program("holdfastctl"), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("holdfastctl: ") and expected in result.stderr
    assert result.stderr.count("\n") == 1


def test_who_does_not_run_is_named():
    result = subprocess.run(
        [stages.built_program("holdfastctl"), "takeover", "no-such-instance"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "can't ask /run/holdfast/no-such-instance/control: no such socket" in result.stderr


def test_help_and_version():
    program = stages.built_program("holdfastctl")
    shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("holdfastctl [OPTIONS...] [VERB]") and "takeover" in shown.stdout
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("holdfastctl ")
