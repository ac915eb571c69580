# SPDX-License-Identifier: LGPL-2.1-or-later
"""The audit: never wrong about a connection that is right, never blind to one that is not.

That it is never wrong, all other tests show too: none passes if a service has said in it that
bytes do not add up (conftest.py).
"""

import concurrent.futures
import fcntl
import json
import os
import re
import select
import socket
import struct
import subprocess
import termios

import pytest

import disturbances
import ledger
import stages
import streams
from questions import echoes, wait_until
from test_ends import LINGER_ZERO, fill, read_to_end

MESSAGE_AUDIT_WRONG = "ca08a558b6be4e56a09077fb003fb2e0"
N_BEFORE = 1 << 20


class Audited:
    """An instance with a control socket, and how to ask it for an audit."""

    def __init__(self, stage, service="echo", **settings):
        self.stage = stage
        if stage.machine:
            self.instance = stage.start(service, **settings)
            self.path = f"/run/holdfast/{self.instance.name}/control"
        else:
            self.path = stage.socket_path("control")
            options = [f"--control={self.path}", *settings.pop("options", ())]
            self.instance = stage.start(service, options=options, **settings)

    def ctl(self, *arguments):
        if self.stage.machine:
            return self.stage.machine.run(["holdfastctl", *arguments], check=False)
        return subprocess.run(
            [stages.built_program("holdfastctl"), *arguments],
            capture_output=True,
            text=True,
            timeout=stages.PATIENCE_SECONDS,
            check=False,
        )

    def audit(self, *options):
        return self.ctl("audit", f"--socket={self.path}", *options)

    def is_right(self, n_audited, n_not_auditable=0):
        """Fails unless so many connections were audited, with nothing wrong."""
        self.instance.wait_ready()
        result = self.audit()
        expected = f"{n_audited} connection{'s' * (n_audited != 1)} audited, all right"
        if n_not_auditable:
            expected += f"; {n_not_auditable} not auditable"
        assert (result.returncode, result.stdout) == (0, expected + "\n"), result.stderr


def receive(sock, n):
    data = b""
    while len(data) < n and (chunk := sock.recv(n - len(data))):
        data += chunk
    return data


def upstream_of(stage):
    listener = stage.network.listen()
    return listener, f"relay 127.0.0.1:{listener.getsockname()[1]}"


# Nothing is wrong


@pytest.mark.parametrize("service", ["echo", "relay"])
@disturbances.each
def test_streams_pass_while_they_flow(stage, service, disturb):
    with stage.upstream() as upstream, streams.Loop() as loop:
        relayed = service == "relay"
        audited = Audited(stage, f"relay {upstream.address}" if relayed else service)
        instance = audited.instance
        pumps = []
        for seed in range(4):
            stream = streams.Stream(seed)
            expected = streams.reply_to(stream) if relayed else stream
            pumps.append(loop.add(streams.Pump(instance.connect(), stream, expected)))
        # This one stands before a full window
        loop.set_receiving(pumps[0], False)
        for pump in pumps[1:]:
            loop.wait_received(pump, N_BEFORE)
        audited.is_right(4)
        disturb(instance)
        for pump in pumps[1:]:
            loop.wait_received(pump, pump.n_received + N_BEFORE)
        audited.is_right(4)
        loop.set_receiving(pumps[0], True)
        loop.finish(*pumps)
        loop.wait_done(*pumps)
        audited.is_right(0)


@pytest.mark.stages("keeper")
@disturbances.each
def test_half_closed_connections_pass(stage, disturb):
    """Either side has ended its direction, and the other may have more."""
    listener, service = upstream_of(stage)
    audited = Audited(stage, service)
    with listener:
        pairs = []
        for ends_first in (0, 1):
            client = audited.instance.connect()
            client.sendall(b"from the client")
            listener.settimeout(stages.PATIENCE_SECONDS)
            upstream, _ = listener.accept()
            assert upstream.recv(100) == b"from the client"
            pair = (client, upstream)
            pair[ends_first].shutdown(socket.SHUT_WR)
            assert pair[1 - ends_first].recv(1) == b""
            pair[1 - ends_first].sendall(b"more")
            assert receive(pair[ends_first], 4) == b"more"
            pairs.append(pair)
        audited.is_right(2)
        disturb(audited.instance)
        audited.is_right(2)
        for pair in pairs:
            for one in pair:
                one.close()


@pytest.mark.stages("keeper")
@disturbances.each
def test_urgent_bytes_pass(stage, disturb):
    audited = Audited(stage)
    with audited.instance.connect() as client:
        client.settimeout(stages.PATIENCE_SECONDS)
        for _ in range(2):
            client.sendall(b"before")
            client.send(b"!", socket.MSG_OOB)
            client.sendall(b"behind")
            assert receive(client, 13) == b"before!behind"
            audited.is_right(1)
            client.send(b"?", socket.MSG_OOB)
            assert client.recv(1) == b"?"
            disturb(audited.instance)
            audited.is_right(1)


@pytest.mark.stages("keeper")
@disturbances.each
def test_logged_connections_pass(stage, disturb):
    audited = Audited(stage, "log", options=["--frame=line"])
    with audited.instance.connect() as client:
        client.sendall(b"one line\nand the beginning of")
        audited.instance.wait_line("line: one line$")
        wait_until(lambda: " 20 " in audited.audit("--all").stdout)
        audited.is_right(1)
        disturb(audited.instance)
        audited.is_right(1)
        client.sendall(b" another\n")
        audited.instance.wait_line("line: and the beginning of another$")
        audited.is_right(1)


def fill_until_stuck(sock):
    """Room comes as long as something moves."""
    n = fill(sock)
    while select.select([], [sock], [], 0.3)[1]:
        n += fill(sock)
    return n


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    sock.close()


@pytest.mark.stages("keeper")
@disturbances.each
def test_what_is_left_after_a_reset_is_not_called_wrong(stage, disturb):
    """The upstream has reset the connection; the client takes its time to get what is left."""
    listener, service = upstream_of(stage)
    audited = Audited(stage, service)
    with listener, audited.instance.connect() as client:
        client.sendall(b"1")
        upstream, _ = listener.accept()
        assert upstream.recv(1) == b"1"
        n = fill_until_stuck(upstream)
        client.sendall(b"for nobody")
        reset(upstream)
        audited.is_right(0, 1)
        disturb(audited.instance)
        audited.is_right(0, 1)
        client.settimeout(stages.PATIENCE_SECONDS)
        data, was_reset = read_to_end(client)
        assert was_reset and len(data) <= n


def test_what_has_no_counts_is_said_to_be_not_auditable(stage):
    audited = Audited(stage, listen=[stage.socket_path("no-counts")])
    with audited.instance.connect() as client:
        assert echoes(client)
        audited.instance.kill()
        audited.instance.wait_line("Audited the bytes of 1 connection: 0 all right, 1 not")
        assert echoes(client)
        audited.is_right(0, 1)
        assert "the kernel keeps no counts of such a socket" in audited.audit("--all").stdout


@pytest.mark.stages("keeper")
def test_names_of_peers_are_shown_as_text_of_one_line(stage):
    path = stage.socket_path("names")
    audited = Audited(stage, listen=[path])
    with socket.socket(socket.AF_UNIX) as client:
        client.bind(f"\0holdfast-test {os.getpid()}\né".encode())
        client.connect(path)
        assert echoes(client)
        assert f" @holdfast-test {os.getpid()}???: " in audited.audit("--all").stdout
        listed = audited.ctl("list", f"--socket={audited.path}").stdout
        assert f" @holdfast-test {os.getpid()}??? " in listed


@pytest.mark.stages("keeper")
def test_connections_are_shown_in_the_order_of_their_numbers(stage):
    """Whichever worker has them."""
    audited = Audited(stage, options=["--threads=4"])
    connections = audited.instance.connect_many(40)
    for connection in connections:
        assert echoes(connection)
    shown = re.findall(r"^ *([0-9]+) +echo ", audited.audit("--all").stdout, re.M)
    assert shown == [str(n) for n in range(1, 41)]
    for connection in connections:
        connection.close()


def test_each_direction_is_shown_with_its_figures(stage):
    listener, service = upstream_of(stage)
    audited = Audited(stage, service)
    with listener, audited.instance.connect() as client:
        client.sendall(bytes(5000))
        upstream, _ = listener.accept()
        with upstream:
            assert len(receive(upstream, 5000)) == 5000
            upstream.sendall(b"answer")
            assert receive(client, 6) == b"answer"
            shown = audited.audit("--all").stdout
        name, port = client.getsockname()
    for source, n in (("client", 5000), ("upstream", 6)):
        row = rf"^ +1 relay +{source} +{n} +{n} +0 +{n} right +{re.escape(name)}:{port}$"
        assert re.search(row, shown, re.M), shown


@pytest.mark.stages("keeper")
@pytest.mark.parametrize("mode", ["short", "pretty"])
def test_figures_are_there_for_programs_too(stage, mode):
    audited = Audited(stage)
    with audited.instance.connect() as client:
        assert echoes(client)
        name, port = client.getsockname()
        found = json.loads(audited.audit("--all", f"--json={mode}").stdout)
        summary = json.loads(audited.audit(f"--json={mode}").stdout)
        assert audited.audit("--json=off").stdout == "1 connection audited, all right\n"
    (flow,) = found.pop("flows")
    counts = {flow.pop(count) for count in ("consumed", "recorded", "delivered")}
    assert len(counts) == 1 and counts != {0}
    assert flow == {
        "connection": 1,
        "service": "echo",
        "from": "client",
        "pending": 0,
        "verdict": "right",
        "client": f"{name}:{port}",
        "why": "",
    }
    assert found == {"right": 1, "wrong": 0, "not_audited": 0, "unlisted": 0}
    assert summary == found | {"flows": []}


def test_takeover_is_audited(stage):
    audited = Audited(stage)
    with audited.instance.connect() as client:
        assert echoes(client)
        audited.instance.takeover()
        audited.instance.wait_line("Audited the bytes of 1 connection: 1 all right, 0 not")
        assert echoes(client)


@pytest.mark.stages("keeper")
def test_of_those_who_ask_at_once_one_waits_and_others_are_refused(stage):
    audited = Audited(stage, options=["--threads=1"])
    clients = audited.instance.connect_many(3000)
    assert all(echoes(client) for client in clients)
    refused = (1, "", f"holdfastctl: Audit of {audited.path}: another audit waits already\n")
    right = (0, "3000 connections audited, all right\n", "")

    def ask_at_once():
        """Whether they came as close together as that."""
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(audited.audit) for _ in range(8)]
        results = [one.result() for one in asked]
        told = {(one.returncode, one.stdout, one.stderr) for one in results}
        assert told <= {right, refused} and right in told
        return refused in told

    wait_until(ask_at_once)
    audited.is_right(3000)


# Something is wrong


def ids_and_bases(instance):
    with ledger.Ledger(instance) as records:
        return sorted((records.get(ledger.ID, base), base) for base in records.connections())


def damage_count(instance, base):
    with ledger.Ledger(instance) as records:
        records.set(ledger.N_READ, records.get(ledger.N_READ, base) + 1, base)


def wait_said(instance, connection, why):
    line = rf"Connection {connection} does not pass its audit and is reset: {why}"
    instance.wait_line(line)
    if instance.stage.has_journal:
        (entry,) = instance.fields(MESSAGE_ID=MESSAGE_AUDIT_WRONG)
        assert entry["HOLDFAST_CONNECTION"] == str(connection)
        assert entry["PRIORITY"] == "3"
        assert {f"HOLDFAST_{name}" for name in ("CONSUMED", "RECORDED", "PENDING")} <= set(entry)


def end_by_kill(audited):
    audited.instance.kill()


def end_by_request(audited):
    result = audited.audit()
    assert result.returncode == 1
    assert " audited, 1 wrong: they were reset\n" in result.stdout
    assert len(re.findall(" wrong ", result.stdout)) == 1


ways = pytest.mark.parametrize("notice", [end_by_kill, end_by_request])


@pytest.mark.damages
@ways
def test_damaged_count_costs_its_connection(stage, notice):
    audited = Audited(stage)
    clients = audited.instance.connect_many(3)
    for client in clients:
        assert echoes(client)
    number, base = ids_and_bases(audited.instance)[1]
    damage_count(audited.instance, base)
    notice(audited)
    wait_said(audited.instance, number, "the ledger has another count")
    resets = []
    for client in clients:
        with client:
            client.settimeout(stages.PATIENCE_SECONDS)
            try:
                assert echoes(client)
                resets.append(False)
            except (ConnectionResetError, BrokenPipeError):
                resets.append(True)
    assert sum(resets) == 1


def find_pending_pipe(instance):
    """Another fd of a pipe of the service's that holds bytes, or None."""
    directory = instance.proc() / "fd"
    for name in os.listdir(directory):
        path = directory / name
        try:
            if not os.readlink(path).startswith("pipe:"):
                continue
            fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        except OSError:
            continue
        if struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0] > 0:
            return fd
        os.close(fd)
    return None


def steal_byte(instance):
    """Takes one byte of what is in a pipe. Returns whether one had any."""
    fd = find_pending_pipe(instance)
    if fd is None:
        return False
    try:
        return len(os.read(fd, 1)) == 1
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


@pytest.mark.damages
@ways
def test_stolen_byte_is_noticed_and_the_hole_not_continued(stage, notice):
    audited = Audited(stage)
    with audited.instance.connect() as client:
        assert echoes(client)
        ((number, _),) = ids_and_bases(audited.instance)
        wait_until(lambda: fill(client) + 1 and steal_byte(audited.instance))
        other = audited.instance.connect()
        assert echoes(other)
        notice(audited)
        wait_said(audited.instance, number, "bytes were lost or repeated")
        client.settimeout(stages.PATIENCE_SECONDS)
        assert read_to_end(client)[1]
        assert echoes(other)
        other.close()


@pytest.mark.damages
@ways
def test_byte_stolen_from_an_unfinished_line_is_noticed(stage, notice):
    audited = Audited(stage, "log", options=["--frame=line"])
    with audited.instance.connect() as client:
        client.sendall(b"one line\nand the beginning of")
        audited.instance.wait_line("line: one line$")
        number, _ = ids_and_bases(audited.instance)[0]
        wait_until(lambda: " 20 " in audited.audit("--all").stdout)
        assert steal_byte(audited.instance)
        notice(audited)
        wait_said(audited.instance, number, "bytes were lost or repeated")
        client.settimeout(stages.PATIENCE_SECONDS)
        assert read_to_end(client)[1]
