# SPDX-License-Identifier: LGPL-2.1-or-later
"""What holdfastctl tells of connections, and does to them."""

import errno
import json
import os
import pty
import re
import socket
import struct
import subprocess

import pytest

import openmetrics
import stages
import streams
from controlled import Controlled
from questions import echoes, wait_until

# More than one page of INSTANCE_PAGE_MAX, for each of two workers
MANY = 3000
NOBODY = 65534
COLUMNS = (
    "ID INSTANCE SERVICE PEER UPSTREAM AGE RECEIVED SENT PENDING RESTARTS STATE".split()
)


@pytest.fixture
def controlled(stage):
    return Controlled(stage)


def name_of(sock):
    return "%s:%d" % sock.getsockname()


def receive_all(sock):
    """All that comes until the end."""
    sock.settimeout(stages.PATIENCE_SECONDS)
    chunks = []
    while chunk := sock.recv(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def is_reset(sock):
    sock.settimeout(stages.PATIENCE_SECONDS)
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    return False


# What is told


def test_list_tells_of_each_connection(controlled):
    with controlled.instance.connect() as one, controlled.instance.connect() as other:
        assert echoes(one, b"12345") and echoes(other, b"1" * 5000)
        rows = {row["peer"]: row for row in controlled.connections()}
        assert set(rows) == {name_of(one), name_of(other)}
        row = rows[name_of(other)]
        assert row["listener"] == "%s:%d" % other.getpeername()
        assert (row["service"], row["upstream"], row["state"]) == ("echo", "", "open")
        assert (row["received_bytes"], row["sent_bytes"], row["pending_bytes"]) == (5000, 5000, 0)
        assert (row["restarts"], row["instance"]) == (0, controlled.path)
        assert row["age_usec"] >= row["idle_usec"] > 0
        assert rows[name_of(one)]["received_bytes"] == 5
    wait_until(lambda: controlled.connections() == [])


def test_table_is_sorted_and_has_a_legend(controlled):
    with controlled.instance.connect() as one, controlled.instance.connect() as other:
        assert echoes(one, b"1" * 2048) and echoes(other, b"1")
        for options, peers in (
            (("--sort=received",), [name_of(other), name_of(one)]),
            (("--sort=received", "--reverse"), [name_of(one), name_of(other)]),
        ):
            lines = controlled.ask("list", *options).splitlines()
            assert lines[0].split() == COLUMNS
            assert [line.split()[3] for line in lines[1:3]] == peers
            assert lines[3:] == ["", "2 connections of 1 instance listed."]
        assert "2K" in lines[1].split()
        lines = controlled.ask("list", "--no-legend", "--sort=sent").splitlines()
        assert [line.split()[3] for line in lines] == [name_of(other), name_of(one)]


def test_show_tells_of_one(controlled):
    with controlled.instance.connect() as client, controlled.instance.connect() as other:
        assert echoes(client) and echoes(other)
        number = str(controlled.connection_of(client)["id"])
        shown = json.loads(controlled.ask("show", number, "--json=pretty"))
        assert (shown["peer"], shown["sent_bytes"]) == (name_of(client), 4)
        lines = [line.strip() for line in controlled.ask("show", number).splitlines()]
        assert f"Connection: {number}" in lines and f"Peer: {name_of(client)}" in lines
        result = controlled.ctl("show", "4711", f"--socket={controlled.path}")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == "holdfastctl: there is no connection 4711\n"


@pytest.mark.parametrize("disturb", ["restart", "kill"])
def test_restarts_are_counted_and_ids_kept(controlled, disturb):
    with controlled.instance.connect() as client:
        assert echoes(client)
        before = controlled.connection_of(client)
        getattr(controlled.instance, disturb)()
        controlled.instance.wait_ready()
        assert echoes(client)
        after = controlled.connection_of(client)
        assert (before["restarts"], after["restarts"]) == (0, 1)
        assert (after["id"], after["received_bytes"]) == (before["id"], 8)
        (status,) = json.loads(controlled.ask("status", "--json=short"))
        assert status["pid"] == controlled.instance.main_pid()
        assert (status["n_connections"], status["n_restarts"]) == (1, 1)
        assert (status["adopt_kind"], status["adopt_n_connections"]) == ("restart", 1)
        text = controlled.ask("status")
        assert re.search(r"restart, 1 connection with 0B pending, 0 refused, in \d", text)


def test_takeover_and_its_pause_are_told(controlled):
    with controlled.instance.connect() as client:
        assert echoes(client)
        old = controlled.instance.main_pid()
        controlled.ask("takeover")
        controlled.instance.wait_alone(old)
        assert echoes(client)
        (status,) = json.loads(controlled.ask("status", "--json=short"))
        assert (status["adopt_kind"], status["adopt_n_connections"]) == ("takeover", 1)
        assert status["adopt_pause_usec"] > 0
        assert controlled.connection_of(client)["restarts"] == 1


def test_first_process_has_adopted_nothing(controlled):
    assert "Last adopt: none, nothing was there\n" in controlled.ask("status")
    (status,) = json.loads(controlled.ask("status", "--json=short"))
    assert (status["adopt_kind"], status["adopt_n_connections"]) == ("none", 0)


@pytest.mark.stages("keeper")
def test_metrics_are_well_formed_with_any_name(controlled, tmp_path):
    path = os.fsencode(tmp_path) + b'/a "quote", a \\, a\nline, \xc3\xa9 and \xff'
    os.symlink(controlled.path, path)
    result = controlled.ctl("metrics", b"--socket=" + path)
    assert (result.returncode, result.stderr) == (0, "")
    families = openmetrics.parse(result.stdout)
    name = path.decode(errors="replace")
    assert families["holdfast_up"].samples == {name: (1, {"instance": name})}


@pytest.mark.stages("keeper")
def test_nobody_at_the_socket_is_a_failure(controlled, tmp_path):
    nobody = f"--socket={tmp_path}/nobody"
    for verb in ("list", "status", "audit", "metrics"):
        result = controlled.ctl(verb, nobody)
        assert result.returncode == 1
        assert "can't ask" in result.stderr, result.stderr
    families = openmetrics.parse(result.stdout)
    assert families["holdfast_up"].samples[f"{tmp_path}/nobody"][0] == 0
    assert families["holdfast_connections"].samples == {}
    assert families["holdfast_build_info"].samples == {}


def test_metrics_are_well_formed(controlled):
    with controlled.instance.connect() as client:
        assert echoes(client, b"1" * 1000)
        families = openmetrics.parse(controlled.ask("metrics"))
        values = {
            name: family.samples[controlled.path][0] for name, family in families.items()
        }
        assert (values["holdfast_up"], values["holdfast_connections"]) == (1, 1)
        assert (values["holdfast_accepted_connections"], values["holdfast_moved_bytes"]) == (1, 1000)
        assert values["holdfast_uptime_seconds"] > 0
        assert all(set(family.about) >= {"HELP"} for family in families.values())
        labels = families["holdfast_build_info"].samples[controlled.path][1]
        assert labels["service"] == "echo" and labels["version"]


# What is done


def fill(client, n_most=1 << 26):
    """Writes until nothing moves any more; returns what was written."""
    chunk, written = bytes(range(256)) * 256, bytearray()
    client.settimeout(1)
    try:
        while len(written) < n_most:
            n = client.send(chunk[len(written) % 256 :])
            written += chunk[len(written) % 256 :][:n]
    except TimeoutError:
        return bytes(written)
    raise AssertionError("it goes on and on")


class Relayed:
    """A client of a relay, and what its upstream has accepted for it."""

    def __init__(self, stage):
        self.listener = stage.network.listen()
        self.controlled = Controlled(stage, f"relay {name_of(self.listener)}")
        self.client = self.controlled.instance.connect()
        self.upstream, _ = self.listener.accept()

    def row(self):
        return self.controlled.connection_of(self.client)

    def close(self):
        for sock in (self.client, self.upstream, self.listener):
            sock.close()


@pytest.fixture
def relayed(stage):
    made = Relayed(stage)
    yield made
    made.close()


def test_relay_tells_of_its_upstream_and_of_both_ways(relayed):
    relayed.client.sendall(b"12345")
    assert relayed.upstream.recv(5, socket.MSG_WAITALL) == b"12345"
    relayed.upstream.sendall(b"678")
    assert relayed.client.recv(3, socket.MSG_WAITALL) == b"678"
    row = relayed.row()
    assert row["upstream"] == name_of(relayed.listener)
    assert (row["received_bytes"], row["sent_bytes"]) == (5, 3)
    relayed.client.shutdown(socket.SHUT_WR)
    assert relayed.upstream.recv(1) == b""
    assert relayed.row()["state"] == "half-closed"


def test_close_delivers_what_is_pending_and_no_more(relayed):
    """Both peers see an orderly end; the bytes that were taken arrive, in their order."""
    written = fill(relayed.client)
    row = relayed.row()
    assert row["pending_bytes"] == row["pending_from_bytes"] > 0
    assert relayed.controlled.ask("close", str(row["id"])) == ""
    assert relayed.client.recv(1) == b""
    closing = relayed.row()
    assert (closing["state"], closing["received_bytes"]) == ("closing", row["received_bytes"])
    received = receive_all(relayed.upstream)
    assert len(received) == row["received_bytes"]
    assert received == written[: len(received)]
    wait_until(lambda: relayed.controlled.connections() == [])
    result = relayed.controlled.ctl(
        "close", str(row["id"]), f"--socket={relayed.controlled.path}"
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == f"holdfastctl: there is no connection {row['id']}\n"


def test_close_with_reset_resets_both_sides(relayed):
    fill(relayed.client)
    assert relayed.controlled.ask("close", "--reset", str(relayed.row()["id"])) == ""
    assert is_reset(relayed.client) and is_reset(relayed.upstream)
    assert relayed.controlled.connections() == []


def test_close_of_one_leaves_the_others_alone(controlled):
    with controlled.instance.connect() as one, controlled.instance.connect() as other:
        assert echoes(one) and echoes(other)
        controlled.ask("close", str(controlled.connection_of(one)["id"]))
        assert receive_all(one) == b""
        assert echoes(other)
        # Though its peer has not ended
        wait_until(lambda: len(controlled.connections()) == 1)


@pytest.mark.stages("keeper")
@pytest.mark.parametrize("options", [(), ("--reset",)])
def test_one_that_still_connects_can_be_closed(stage, options):
    """The upstream's queue is full, so that it answers no further connect."""
    with stage.network.listen(backlog=0) as listener:
        queued = stage.network.connect(listener.getsockname())
        controlled = Controlled(stage, f"relay {name_of(listener)}")
        with queued, controlled.instance.connect() as client:
            wait_until(lambda: len(controlled.connections()) == 1)
            row = controlled.connection_of(client)
            assert row["state"] == "connecting"
            controlled.ask("close", str(row["id"]), *options)
            if options:
                assert is_reset(client)
            else:
                assert receive_all(client) == b""
            assert controlled.connections() == []


def test_close_of_log_logs_the_unfinished_line(stage):
    controlled = Controlled(stage, "log", options=["--frame=line"])
    with controlled.instance.connect() as client:
        client.sendall(b"unfinished")
        wait_until(lambda: controlled.connection_of(client)["pending_bytes"] == 10)
        controlled.ask("close", str(controlled.connection_of(client)["id"]))
        controlled.instance.wait_line("conn read 10 bytes, line: unfinished")
        assert receive_all(client) == b""


# Who asks, and how


def test_other_users_are_refused(controlled):
    program = "holdfastctl"
    if not controlled.stage.machine:
        if os.geteuid() != 0:
            pytest.skip("not root: there is no other user to be")
        program = stages.built_program("holdfastctl")
    as_nobody = ("setpriv", f"--reuid={NOBODY}", "--clear-groups")
    if controlled.run(*as_nobody, program, "--version").returncode != 0:
        pytest.skip("another user can't run what was built")
    with controlled.instance.connect() as client:
        assert echoes(client)
        for verb in (("list",), ("close", "1"), ("status",), ("metrics",)):
            result = controlled.run(*as_nobody, program, *verb, f"--socket={controlled.path}")
            assert result.returncode == 1
            assert re.search("(only root|Permission denied)", result.stderr)
        assert echoes(client)


@pytest.mark.stages("systemd")
def test_all_instances_are_listed_and_a_dead_one_hides_none(stage):
    one, other = Controlled(stage), Controlled(stage)
    machine = stage.machine
    dead = "/run/holdfast/dead"
    with one.instance.connect() as client, other.instance.connect() as its_client:
        assert echoes(client) and echoes(its_client)
        listed = json.loads(one.run("holdfastctl", "--json=short").stdout)
        found = {(row["instance"], row["peer"]) for row in listed}
        assert found == {
            (one.instance.name, name_of(client)),
            (other.instance.name, name_of(its_client)),
        }
        machine.run(["mkdir", dead])
        # A socket that nobody listens on any more
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(machine.path(f"{dead}/control")))
        result = one.run("holdfastctl", "--json=short")
        assert result.returncode == 1
        assert {row["peer"] for row in json.loads(result.stdout)} == {peer for _, peer in found}
        assert result.stderr == (
            f"holdfastctl: can't ask {dead}/control: nobody listens: the service does not run\n"
        )
        metrics = openmetrics.parse(one.run("holdfastctl", "metrics").stdout)
        up = {name: value for name, (value, _) in metrics["holdfast_up"].samples.items()}
        assert up == {one.instance.name: 1, other.instance.name: 1, "dead": 0}
        # Ids are an instance's own: here both have the same
        ids = {row["id"] for row in listed}
        result = one.run("holdfastctl", "close", str(max(ids)))
        assert result.returncode == 1
        machine.run(["rm", "-r", dead])
        if len(ids) == 1:
            result = one.run("holdfastctl", "close", str(max(ids)))
            assert "more than one instance has a connection" in result.stderr
        assert echoes(client) and echoes(its_client)


@pytest.mark.stages("keeper")
def test_one_that_does_not_answer_is_given_up(stage):
    path = stage.socket_path("mute")
    with stage.network.listen(path):
        result = subprocess.run(
            [stages.built_program("holdfastctl"), f"--socket={path}"],
            capture_output=True,
            text=True,
            timeout=stages.PATIENCE_SECONDS,
            check=False,
        )
    assert result.returncode == 1
    assert result.stderr == f"holdfastctl: can't ask {path}: no answer in time\n"
    assert "0 connections" in result.stdout


def list_call(serial):
    """A call of ListConnections(0, 0), little-endian, as the D-Bus specification has it."""

    def field(code, signature, text):
        kind = bytes([len(signature)]) + signature.encode() + b"\0"
        value = text.encode() + b"\0"
        length = bytes([len(text)]) if signature == "g" else struct.pack("<I", len(text))
        return bytes([code]) + kind + length + value

    fields = b""
    for entry in (
        field(1, "o", "/holdfast"),
        field(2, "s", "holdfast.Instance1"),
        field(3, "s", "ListConnections"),
        field(8, "g", "uu"),
    ):
        fields += bytes(-len(fields) % 8) + entry
    header = b"l\1\0\1" + struct.pack("<III", 8, serial, len(fields)) + fields
    return header + bytes(-len(header) % 8) + struct.pack("<II", 0, 0)


class Deaf:
    """A control client that asks as fast as it can and never reads an answer."""

    def __init__(self, controlled):
        self._serial = 0
        self.is_closed = False
        self.sock = controlled.stage.network.connect(controlled.path)
        self.sock.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
        assert self.sock.recv(6) == b"DATA\r\n"
        self.sock.setblocking(False)

    def ask(self):
        """Asks until the service reads no more; whether it has closed the connection."""
        try:
            while not self.is_closed:
                self._serial += 1
                self.sock.sendall(list_call(self._serial))
        except BlockingIOError as error:
            # In the middle of a message, maybe: what follows is garbage then
            assert error.errno == errno.EAGAIN
        except OSError:
            self.is_closed = True
        return self.is_closed


@pytest.mark.stages("keeper")
def test_clients_that_never_read_delay_no_byte(stage):
    controlled = Controlled(stage)
    others = controlled.instance.connect_many(500)
    with streams.Loop() as loop, controlled.instance.connect() as client:
        pump = loop.add(
            streams.Pump(
                controlled.instance.connect(),
                outgoing=streams.Stream(1),
                incoming=streams.Stream(1),
                n_send=None,
            )
        )
        deaf = [Deaf(controlled) for _ in range(4)]
        n = 0
        while not all([one.ask() for one in deaf]):
            assert echoes(client)
            n += 1
            loop.wait_received(pump, n << 16)
        assert len(controlled.connections()) == 502
        loop.finish(pump)
        loop.wait_done(pump)
    for sock in [one.sock for one in deaf] + others:
        sock.close()


@pytest.mark.stages("keeper")
def test_all_of_many_are_listed_while_streams_go_on(stage):
    """Also over a restart in the middle: each exactly once."""
    controlled = Controlled(stage, options=["--threads=2"])
    with streams.Loop() as loop:
        pump = loop.add(
            streams.Pump(
                controlled.instance.connect(),
                outgoing=streams.Stream(2),
                incoming=streams.Stream(2),
                n_send=None,
            )
        )
        clients = controlled.instance.connect_many(MANY)
        peers = sorted(map(name_of, [*clients, pump.sock]))
        wait_until(lambda: len(controlled.connections()) == MANY + 1)
        for n_restarts in range(2):
            rows = controlled.connections()
            assert sorted(row["peer"] for row in rows) == peers
            assert len({row["id"] for row in rows}) == MANY + 1
            assert {row["restarts"] for row in rows} == {n_restarts}
            assert len({row["worker"] for row in rows}) == 2
            n = pump.n_received
            loop.wait_received(pump, n + (1 << 20))
            controlled.instance.restart()
        loop.finish(pump)
        loop.wait_done(pump)
    for client in clients:
        client.close()


# Terminals


def run_in_terminal(argv, keys=b"", until=b"", **environment):
    """What a program writes to a terminal; keys are typed when `until` was seen."""
    environment = dict(os.environ, TERM="xterm", **environment)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(argv[0], argv, environment)
    output = b""
    try:
        while chunk := os.read(terminal, 1 << 16):
            output += chunk
            if keys and until in output:
                os.write(terminal, keys)
                keys = b""
    except OSError as error:  # Linux tells the end of a terminal so
        assert error.errno == errno.EIO
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output.decode()


@pytest.mark.stages("keeper")
def test_terminals_get_colours_and_a_pager(controlled):
    argv = [stages.built_program("holdfastctl"), f"--socket={controlled.path}"]
    status, output = run_in_terminal(argv, PAGER="sed s/^/paged:/")
    assert status == 0
    assert output.startswith("paged:\x1b[0;1;4mID INSTANCE")
    for options, environment in (
        (["--no-pager"], {}),
        ([], {"SYSTEMD_PAGER": ""}),
        ([], {"PAGER": "cat"}),
    ):
        status, output = run_in_terminal(argv + options, NO_COLOR="1", **environment)
        assert status == 0
        assert output.startswith("ID INSTANCE")
    # One that is quit at once is no failure
    assert run_in_terminal(argv, PAGER="true") == (0, "")


@pytest.mark.stages("keeper")
def test_watch_shows_the_list_until_it_is_left(controlled):
    argv = [stages.built_program("holdfastctl"), "watch", f"--socket={controlled.path}"]
    with controlled.instance.connect() as client:
        assert echoes(client)
        for keys in (b"q", b"\x03"):
            status, output = run_in_terminal(argv, keys, b"q leaves")
            assert status == 0
            assert name_of(client) in output
            # The terminal is as it was
            assert output.endswith("\x1b[?25h\x1b[?1049l")


COMPLETE = """
holdfastctl() { printf ' 7 8888 echo\\n12 8888 echo\\n'; }
. "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDS=($2) COMP_CWORD=1
_holdfastctl
printf '%s\\n' "${COMPREPLY[@]}"
"""


OPTIONS = """--socket= --sort= --reverse --json= --reset --all --no-legend --no-pager --help
    --version"""


@pytest.mark.parametrize(
    "line, expected",
    [
        ("holdfastctl s", "show status"),
        ("holdfastctl --js", "--json="),
        ("holdfastctl --re", "--reverse --reset"),
        ("holdfastctl list --", OPTIONS),
        ("holdfastctl takeover 8888 -- --", ""),
        ("holdfastctl --json=s", "short"),
        ("holdfastctl list --sort=re", "received restarts"),
        ("holdfastctl close ", "7 12"),
        ("holdfastctl close --reset 1", "12"),
        ("holdfastctl takeover 8888 -- ", ""),
    ],
)
def test_bash_completes(line, expected):
    script = stages.source_directory() / "packaging/bash-completion/holdfastctl"
    result = subprocess.run(
        ["bash", "-c", COMPLETE, "bash", script, line],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == expected.split()


def test_every_verb_and_option_is_completed():
    program = stages.built_program("holdfastctl")
    shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
    script = stages.source_directory() / "packaging/bash-completion/holdfastctl"
    text = script.read_text(encoding="utf-8")
    verbs = re.findall(r"^  ([a-z]+) ", shown.stdout.partition("Verbs:")[2], re.MULTILINE)
    options = re.findall(r"^ .*(--[a-z-]+)", shown.stdout.partition("Options:")[2], re.MULTILINE)
    assert "close" in verbs and "--reset" in options
    assert set(verbs) == set(re.search("verbs='(.*)'", text)[1].split())
    for option in options:
        assert option in text
