# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of the stages: that each manager really does what scenarios ask of it.

They say nothing of what restarts do to a stream under way: that is what the scenarios are for.
"""

import os
import socket

import pytest

import stages


def echoes(connection, data):
    """Whether data, sent now, comes back: nothing is under way before or after."""
    connection.sendall(data)
    return connection.recv(len(data), socket.MSG_WAITALL) == data


def test_service_is_ready_when_start_returns(stage):
    instance = stage.start("echo")
    assert instance.main_pid() != 0
    # The line was said before, but may still be on its way.
    instance.wait_line("tcp server started")
    with instance.connect() as connection:
        assert echoes(connection, b"1234")


def test_connection_stays_through_restart_and_kill(stage):
    instance = stage.start("echo")
    first = instance.main_pid()
    with instance.connect() as connection:
        assert echoes(connection, b"first")
        instance.restart()
        second = instance.main_pid()
        assert echoes(connection, b"second")
        assert instance.kill() == second
        assert echoes(connection, b"third")
    assert len({first, second, instance.main_pid()}) == 3
    instance.wait_ready()


def test_restart_can_bring_other_options(stage):
    instance = stage.start("echo", options=["--threads=1"])
    instance.restart(options=["--threads=2"])
    command = (instance.proc() / "cmdline").read_bytes().split(b"\0")
    assert b"--threads=2" in command and b"--threads=1" not in command


def test_listeners_of_all_families_are_opened(stage):
    path = stage.socket_path("listener")
    listen = ["[::1]:7001", "127.0.0.1:7002", path]
    if not stage.machine and os.geteuid() != 0:
        listen = [f"127.0.0.1:{stage.network.free_port()}", path]
    instance = stage.start("echo", listen=listen)
    for n in range(len(listen)):
        with instance.connect(n) as connection:
            assert echoes(connection, b"1234")


def test_log_is_waited_for_and_marked(stage):
    instance = stage.start("echo")
    first = instance.main_pid()
    instance.wait_line(rf"\bpid: {first}\b")
    mark = instance.mark()
    instance.restart()
    instance.wait_line(rf"\bpid: {instance.main_pid()}\b", since=mark)
    assert not [line for line in instance.lines(mark) if f"pid: {first}" in line]
    if stage.has_journal:
        assert instance.fields(_PID=str(instance.main_pid()))


def test_what_the_service_stores_and_says_is_seen(stage):
    instance = stage.start("echo")
    with instance.connect() as connection:
        assert echoes(connection, b"1234")
        assert instance.n_stored_fds() >= 2
        assert instance.n_service_fds() > instance.n_stored_fds()
        assert instance.status_text()


def test_settings_reach_the_service(stage):
    instance = stage.start("echo", limit_nofile=3000, environment={"HOLDFAST_TEST": "yes"})
    environment = (instance.proc() / "environ").read_bytes().split(b"\0")
    assert b"HOLDFAST_TEST=yes" in environment
    limits = (instance.proc() / "limits").read_text(encoding="ascii")
    assert "3000" in next(line for line in limits.splitlines() if "open files" in line)


def test_stopped_instance_has_released_its_listener(stage):
    instance = stage.start("echo")
    instance.stop()
    with pytest.raises(ConnectionRefusedError):
        instance.connect()
    stage.start("echo", listen=instance.listen)


def test_many_connections_are_made_at_once(stage):
    instance = stage.start("echo")
    connections = instance.connect_many(100)
    try:
        assert all(echoes(connection, b"1234") for connection in connections)
    finally:
        for connection in connections:
            connection.close()


def test_address_forms():
    assert stages.socket_address("8888") == ("127.0.0.1", 8888)
    assert stages.socket_address("127.0.0.2:80") == ("127.0.0.2", 80)
    assert stages.socket_address("[::1]:80") == ("::1", 80)
    assert stages.socket_address("/run/x") == "/run/x"
    assert stages.socket_address("@x") == "\0x"
