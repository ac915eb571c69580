# SPDX-License-Identifier: LGPL-2.1-or-later
"""The demonstration that the project grew from, row by row, by restarts in place of a fork."""

import contextlib
import fcntl
import os
import pathlib
import re
import shlex
import socket
import time

import pytest

import disturbances
import stages

VALUE = r"pid: (\d+), conn read (\d+) bytes, val: \[([\d ]+)\]$"


def read_lines(instance, since=0):
    """(pid, bytes read, buffer) of each entry."""
    found = [re.search(VALUE, line) for line in instance.lines(since)]
    return [
        (int(m[1]), int(m[2]), [int(v) for v in m[3].split()]) for m in found if m is not None
    ]


def test_start_logs_pid_and_that_the_server_has_started(stage):
    instance = stage.start("log")
    instance.wait_line("tcp server started")
    assert instance.lines() == [f"pid: {instance.main_pid()}", "tcp server started"]


def test_each_read_becomes_a_line(stage):
    instance = stage.start("log")
    with instance.connect() as client:
        client.sendall(b"1234\n")
        instance.wait_line(VALUE)
        assert instance.lines()[-1] == (
            f"pid: {instance.main_pid()}, conn read 5 bytes, val: [49 50 51 52 10 0 0 0]"
        )


def test_line_longer_than_the_buffer_is_several_reads_in_order_by_one_process(stage):
    instance = stage.start("log")
    text = b"a line that is longer than the buffer of eight\n"
    with instance.connect() as client:
        client.sendall(text)
        instance.wait_lines(VALUE, (len(text) + 7) // 8)
    reads = read_lines(instance)
    assert {pid for pid, _, _ in reads} == {instance.main_pid()}
    assert all(n <= 8 for _, n, _ in reads)
    assert b"".join(bytes(values[:n]) for _, n, values in reads) == text


@pytest.mark.parametrize("disturb", [disturbances.restarted, disturbances.killed])
def test_same_client_types_on_after_a_restart(stage, disturb):
    instance = stage.start("log")
    with instance.connect() as client:
        client.sendall(b"1234\n")
        instance.wait_line(VALUE)
        old = instance.main_pid()
        mark = instance.mark()
        disturb(instance)
        instance.wait_line(r"tcp server started", since=mark)
        client.sendall(b"5678\n")
        instance.wait_line(r"val: \[53 54 55 56 10 0 0 0\]", since=mark)
        lines = [line for line in instance.lines(mark) if "Stopping" not in line]
        new = instance.main_pid()
        assert new != old
        assert lines[0] == f"pid: {new}"
        assert lines.count("recv tcpconn and read") == 1
        assert lines[-1] == f"pid: {new}, conn read 5 bytes, val: [53 54 55 56 10 0 0 0]"


def test_start_without_connections_has_nothing_to_receive(stage):
    instance = stage.start("log")
    instance.restart()
    assert "recv tcpconn and read" not in instance.lines()


@disturbances.each
def test_half_a_line_before_and_half_after_is_one_entry(stage, disturb):
    """What the old process had read waits in its pipe; the new one appends to it."""
    instance = stage.start("log", options=["--frame=line"])
    with instance.connect() as client:
        client.sendall(b"whole line\nfirst half, ")
        instance.wait_line("line: whole line$")
        wait_until_read(instance, client)
        # A restart leaves the options as they are; restarted() gives none
        disturb(instance)
        client.sendall(b"second half\n")
        instance.wait_line("conn read 24 bytes, line: first half, second half$")


def tcp_sockets(instance):
    """Lines of the network that the service's sockets are of, which need not be its own."""
    table = pathlib.Path("/proc/thread-self/net/tcp")
    text = instance.stage.network.call(lambda: table.read_text(encoding="ascii"))
    return text.splitlines()[1:]


def wait_until_read(instance, client):
    """Until what was sent is out of the service's socket, hence in its pipe."""
    port = client.getsockname()[1]
    # A queue in the kernel has no event for who waits outside
    for _ in range(5000):
        for row in tcp_sockets(instance):
            fields = row.split()
            if int(fields[2].rpartition(":")[2], 16) == port and fields[4].endswith(":00000000"):
                return
        time.sleep(0.002)
    raise TimeoutError("the service has not read what was sent")


def send_apart(instance, client, pieces):
    """Each in a segment of its own, which takes a slot of the pipe."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        client.sendall(piece)
        wait_until_read(instance, client)


def test_line_without_an_end_is_logged_when_the_client_ends(stage):
    instance = stage.start("log", options=["--frame=line"])
    with instance.connect() as client:
        client.sendall(b"no newline")
    instance.wait_line("conn read 10 bytes, line: no newline$")


def test_line_that_comes_byte_by_byte_is_one_entry(stage):
    """More bytes than a pipe has slots, each in a segment of its own."""
    instance = stage.start("log", options=["--frame=line"])
    text = bytes(ord("a") + i % 26 for i in range(300))
    with instance.connect() as client:
        send_apart(instance, client, [text[i : i + 1] for i in range(len(text))])
        client.sendall(b"\n")
        instance.wait_line(rf"conn read 301 bytes, line: {text.decode()}$")


@contextlib.contextmanager
def no_room_for_pipes():
    """This user has as many as it may, so that new ones are of two slots."""
    limit = int(pathlib.Path("/proc/sys/fs/pipe-user-pages-soft").read_text(encoding="ascii"))
    if limit == 0:
        pytest.skip("users may have any number of pipes here")
    size = 1 << 20
    fds = []
    try:
        for _ in range(limit * os.sysconf("SC_PAGE_SIZE") // size + 1):
            fds.extend(os.pipe())
            fcntl.fcntl(fds[-1], fcntl.F_SETPIPE_SZ, size)
        yield
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.stages("keeper")
def test_no_line_waits_for_room_for_pipes(stage, tmp_path):
    """A line that can't be looked at as a whole is logged in pieces."""
    program = tmp_path / "holdfastd"
    unprivileged = ["setpriv", "--bounding-set=-sys_admin,-sys_resource"]
    command = shlex.join([*unprivileged, stages.built_program("holdfastd")])
    program.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="ascii")
    program.chmod(0o755)
    instance = stage.start("log", options=["--frame=line"], program=str(program))
    pieces = [b"piece %d, " % i for i in range(20)]
    line = b"".join(pieces).decode() + "end"
    with instance.connect() as client:
        send_apart(instance, client, pieces)
        with no_room_for_pipes():
            since = instance.mark()
            instance.kill()
            client.sendall(b"end\n")
            instance.wait_line("line: .*end$", since=since)
            found = [re.search("line: (.*)", text) for text in instance.lines(since)]
            assert "".join(match[1] for match in found if match) == line
            client.sendall(b"next line\n")
            instance.wait_line("line: next line$")
        since = instance.mark()
        send_apart(instance, client, pieces)
        client.sendall(b"end\n")
        instance.wait_line(f"line: {line}$", since=since)


def test_control_characters_can_not_forge_a_line(stage):
    instance = stage.start("log", options=["--frame=line"])
    with instance.connect() as client:
        client.sendall(b"\x1b[31mred\xff \xc3\xa4 back\\slash\n")
        match = instance.wait_line(r"line: (.*)$")
    assert match[1] == r"\x1b[31mred\xff ä back\x5cslash"


def test_buffer_option_sets_the_size_of_a_read(stage):
    instance = stage.start("log", options=["--buffer=4"])
    with instance.connect() as client:
        client.sendall(b"123456")
        instance.wait_lines(VALUE, 2)
    assert [n for _, n, _ in read_lines(instance)] == [4, 2]


@pytest.mark.stages("systemd")
def test_entries_carry_fields(stage):
    instance = stage.start("log")
    with instance.connect() as client:
        client.sendall(b"12345678abc")
        instance.wait_lines(VALUE, 2)
        peer = "{}:{}".format(*client.getsockname())
    entries = [entry for entry in instance.records() if "HOLDFAST_CONNECTION" in entry]
    assert [entry["HOLDFAST_OFFSET"] for entry in entries] == ["0", "8"]
    assert [entry["HOLDFAST_BYTES"] for entry in entries] == ["8", "3"]
    for entry in entries:
        assert entry["HOLDFAST_PEER"] == peer
        assert entry["HOLDFAST_LISTENER"] == instance.listen[0]
        assert entry["HOLDFAST_SERVICE"] == "log"
        assert re.fullmatch("[0-9a-f]{32}", entry["MESSAGE_ID"])
    assert len({entry["HOLDFAST_CONNECTION"] for entry in entries}) == 1


def log_numbers(instance, since=0):
    """The numbers that were logged as lines, each with its offset."""
    matches = [re.search(r"line: (\d+)$", line) for line in instance.lines(since)]
    return [int(match[1]) for match in matches if match]


@pytest.mark.slow
@pytest.mark.parametrize("disturb", [disturbances.killed, disturbances.restarted])
def test_log_repeats_at_most_the_last_entry_of_a_killed_process(stage, disturb):
    """Under a stream of numbered lines none is lost, and a repeat follows at once. What ends
    as planned repeats none."""
    n_disturbances, n_at_once = 40, 500
    # A start by systemd takes some 50 ms, and something has to come between two kills
    interval = 0.1 if stage.machine else 0.05
    instance = stage.start("log", options=["--frame=line"])
    n_lines = 0
    with instance.connect() as client, disturbances.Storm(instance, interval, disturb) as storm:
        while not storm.has_reached(n_disturbances):
            since = instance.mark()
            client.sendall(b"".join(b"%d\n" % (n_lines + i) for i in range(n_at_once)))
            n_lines += n_at_once
            instance.wait_line(rf"line: {n_lines - 1}$", timeout=120, since=since)
    numbers = log_numbers(instance)
    expected = 0
    repeats = 0
    for number in numbers:
        if number == expected:
            expected += 1
        else:
            assert number == expected - 1, f"{number} where {expected} was due"
            repeats += 1
    assert expected == n_lines
    assert storm.n_disturbances >= n_disturbances
    assert repeats <= (storm.n_disturbances if disturb is disturbances.killed else 0)


def test_one_process_holds_the_connection(stage):
    """Beside the service manager's parcel, in which lsof can't look either."""
    instance = stage.start("log")
    with instance.connect() as client:
        client.sendall(b"1234\n")
        instance.wait_line(VALUE)
        instance.restart()
        port = client.getsockname()[1]
        inode = socket_inode(instance, port)
        assert holders_of(inode) == {instance.proc().name}


def socket_inode(instance, peer_port):
    for row in tcp_sockets(instance):
        fields = row.split()
        if int(fields[2].rpartition(":")[2], 16) == peer_port:
            return fields[9]
    raise LookupError("the connection is in no table")


def holders_of(inode):
    """What lsof looks at as well: every process's open files."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if f"socket:[{inode}]" in links:
            found.add(pid)
    return found


def test_status_tells_connections_and_restarts(stage):
    instance = stage.start("log")
    with instance.connect() as client:
        client.sendall(b"1234\n")
        instance.wait_line(VALUE)
        instance.restart()
        assert instance.status_text() == (
            "log: 1 connection, 1 adopted at start, 1 restart survived"
        )


def test_adopt_is_told_in_one_line(stage):
    instance = stage.start("echo")
    with instance.connect() as client:
        client.sendall(b"1")
        assert client.recv(1) == b"1"
        instance.restart()
        instance.wait_line(
            r"^Adopted 1 connection with 0 pending bytes, refused 0, in \d+\.\d ms$"
        )
