# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of what the system tests stand on: machines, streams, followers, roots."""

import contextlib
import io
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time

import pytest

import journal
import machine
import network
import roots
import streams

# A service with a listener and an fd store that needs nothing but a shell: it tells its pid
# and how many fds it was given
SOCKET_UNIT = """\
[Socket]
ListenStream=127.0.0.1:7000
"""
SERVICE_UNIT = """\
[Service]
FileDescriptorStoreMax=8
NotifyAccess=all
Restart=always
RestartSec=5ms
ExecStart=/bin/sh -c 'echo "pid $$$$ fds $LISTEN_FDS"; exec sleep infinity'
"""


@pytest.fixture
def throwaway(booted_machine):
    booted_machine.write_file("/run/systemd/system/throwaway.socket", SOCKET_UNIT)
    booted_machine.write_file("/run/systemd/system/throwaway.service", SERVICE_UNIT)
    booted_machine.systemctl("daemon-reload")
    booted_machine.systemctl("start", "throwaway.socket")
    return booted_machine


# Machines


def test_machine_boots_and_nothing_in_it_fails(booted_machine):
    state = booted_machine.systemctl("is-system-running", check=False).strip()
    assert state == "running", booted_machine.failed_units()
    assert booted_machine.boot_seconds < machine.BOOT_SECONDS


def test_machine_has_the_version_that_its_stage_is_named_after(booted_machine, request):
    wanted = request.node.callspec.params["booted_machine"].rpartition("-")[2]
    assert booted_machine.systemctl("--version").split()[1] == wanted


def test_machine_cannot_change_settings_of_the_host(booted_machine):
    result = booted_machine.run("echo 1 >/proc/sys/kernel/panic", check=False)
    assert result.returncode != 0


def test_failing_command_says_what_it_printed(booted_machine):
    with pytest.raises(machine.CommandFailed, match="not here"):
        booted_machine.run("echo not here >&2; exit 3")


def test_connection_activates_a_service_and_the_journal_tells(throwaway):
    cursor = throwaway.journal_cursor()
    with throwaway.connect(("127.0.0.1", 7000)):
        entry = throwaway.wait_journal(
            lambda entry: "fds" in journal.message_of(entry), since=cursor
        )
    pid = throwaway.main_pid("throwaway.service")
    assert journal.message_of(entry) == f"pid {pid} fds 1"
    assert entry["_SYSTEMD_UNIT"] == "throwaway.service"
    assert entry in throwaway.journal(since=cursor, _SYSTEMD_UNIT="throwaway.service")


def test_killed_main_process_is_replaced(throwaway):
    throwaway.systemctl("start", "throwaway.service")
    first = throwaway.main_pid("throwaway.service")
    cursor = throwaway.journal_cursor()
    throwaway.kill_main("throwaway.service", signal.SIGKILL)
    throwaway.wait_journal(
        lambda entry: journal.message_of(entry).startswith("pid "), since=cursor
    )
    assert throwaway.main_pid("throwaway.service") not in (0, first)


def test_processes_of_a_unit_are_known_by_both_pids(throwaway):
    throwaway.systemctl("start", "throwaway.service")
    pid = throwaway.main_pid("throwaway.service")
    ((outside, inside, _),) = throwaway.processes("/system.slice/throwaway.service")
    assert inside == pid
    assert f"\t{pid}\n" in open(f"/proc/{outside}/status", encoding="utf-8").read()


@pytest.mark.stages("systemd-257")  # systemd-notify of 252 has no --fd
def test_fd_store_survives_a_restart(throwaway):
    """That is, notification and the store work across the namespaces."""
    throwaway.systemctl("start", "throwaway.service")
    throwaway.write_file(
        "/run/systemd/system/throwaway.service.d/store.conf",
        "[Service]\nExecStart=\nExecStart=/bin/sh -c 'echo \"fds $LISTEN_FDS\"; "
        "systemd-notify --fd=0 --fdname=x </etc/passwd; exec sleep infinity'\n",
    )
    throwaway.systemctl("daemon-reload")
    cursor = throwaway.journal_cursor()
    throwaway.systemctl("restart", "throwaway.service")
    throwaway.wait_journal(lambda e: journal.message_of(e) == "fds 1", since=cursor)
    wait_until(
        lambda: throwaway.show("throwaway.service", "NFileDescriptorStore")[
            "NFileDescriptorStore"
        ]
        == "1"
    )
    throwaway.systemctl("restart", "throwaway.service")
    throwaway.wait_journal(lambda e: journal.message_of(e) == "fds 2", since=cursor)


def test_binary_fields_of_the_journal_are_bytes(booted_machine):
    cursor = booted_machine.journal_cursor()
    booted_machine.run("printf 'a\\001\\377b\\n' | systemd-cat -t binary")
    entry = booted_machine.wait_journal(
        lambda entry: entry.get("SYSLOG_IDENTIFIER") == "binary", since=cursor
    )
    assert entry["MESSAGE"] == b"a\x01\xffb"


def test_sockets_of_the_machine_are_not_those_of_the_host(booted_machine):
    with booted_machine.listen() as listener:
        address = listener.getsockname()
        with booted_machine.connect(address) as client:
            accepted, _ = listener.accept()
            with accepted:
                client.sendall(b"1234")
                assert accepted.recv(8) == b"1234"
        with pytest.raises(ConnectionRefusedError):
            network.Network().connect(address)


def test_programs_of_the_host_run_in_the_network_of_the_machine(booted_machine):
    with booted_machine.listen() as listener:
        port = listener.getsockname()[1]
        program = f"import socket; socket.create_connection(('127.0.0.1', {port}))"
        process = booted_machine.popen_outside([sys.executable, "-c", program])
        listener.accept()[0].close()
        assert process.wait(10) == 0


def leftovers():
    """Cgroups and directories of machines."""
    directories = (machine.cgroup2_mount(), pathlib.Path(tempfile.gettempdir()))
    return [path for d in directories for path in d.glob(f"{machine.NAME_PREFIX}*")]


def test_poweroff_leaves_nothing(booted_machine):
    directory = booted_machine.path("/")
    before = set(leftovers())
    booted_machine.poweroff()
    assert len(before - set(leftovers())) == 2
    assert not directory.exists()


def test_machine_dies_with_a_killed_test_run(booted_machine):
    """booted_machine is here only to skip where there are no machines."""
    program = f"""
        import sys, time
        sys.path.insert(0, {os.path.dirname(machine.__file__)!r})
        import machine
        booted = machine.Machine.boot({booted_machine.suite!r})
        print(booted._init_pid, flush=True)
        time.sleep(60)
    """
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    )
    init = os.pidfd_open(int(run.stdout.readline()))
    try:
        run.kill()
        run.wait()
        assert wait_readable(init, 10)
        machine.remove_abandoned()
        assert not [path for path in leftovers() if f".{run.pid}." in path.name]
    finally:
        os.close(init)
        run.stdout.close()


# Roots


def test_aborted_making_of_a_root_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLDFAST_TEST_CACHE", str(tmp_path))
    recipe = roots.Recipe("no-such-suite")

    def abort(self, root):
        root.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(roots.Recipe, "_bootstrap", abort)
    monkeypatch.setattr(roots.shutil, "which", lambda name: name)
    with pytest.raises(KeyboardInterrupt):
        recipe.ensure()
    assert not list(tmp_path.iterdir())


def test_what_a_killed_making_left_is_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOLDFAST_TEST_CACHE", str(tmp_path))
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f"unfinished-{dead.pid}-x").mkdir()
    monkeypatch.setattr(
        roots.Recipe,
        "_bootstrap",
        lambda self, root: (root / "etc/systemd/system").mkdir(parents=True),
    )
    monkeypatch.setattr(roots.shutil, "which", lambda name: name)
    recipe = roots.Recipe("no-such-suite")
    assert list(tmp_path.iterdir()) != [recipe.ensure()]
    assert list(tmp_path.iterdir()) == [recipe.path()]


def test_another_recipe_is_another_root():
    assert roots.Recipe("x").path() != roots.Recipe("x", packages=("a",)).path()
    assert roots.Recipe("x").path() == roots.Recipe("x").path()


# Streams

SIZE = 5 * streams.BLOCK_SIZE + 123


@pytest.fixture
def loop():
    with streams.Loop() as running:
        yield running


@pytest.fixture
def two_loops():
    with streams.Loop() as first, streams.Loop() as second:
        yield first, second


def test_stream_does_not_depend_on_how_it_is_read():
    stream = streams.Stream(3)
    whole = stream.read(0, SIZE)
    assert len(whole) == SIZE
    for position in (0, 1, 15, 16, 17, streams.BLOCK_SIZE - 1, streams.BLOCK_SIZE, 200_000):
        assert stream.read(position, 70_000) == whole[position : position + 70_000]
    assert streams.Stream(4).read(0, 1000) != whole[:1000]
    assert streams.Stream.of_header(whole).seed == 3


@pytest.mark.parametrize(
    "corrupt, complaint",
    (
        (lambda data: data[:100_000] + data[100_001:], "byte 100000: 1 bytes are missing"),
        (lambda data: data[:100_000] + data[99_995:], "byte 100000: 5 bytes are repeated"),
        (lambda data: data[:70_000] + data[140_000:], "byte 70000: 70000 bytes are missing"),
        (lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:], "byte 9: .* is not of"),
        (lambda data: data[65536:131072] + data[:65536], "bytes are missing"),
    ),
)
def test_corrupted_stream_is_found_at_its_position(corrupt, complaint):
    stream = streams.Stream(5)
    data = corrupt(stream.read(0, SIZE))
    with pytest.raises(streams.StreamError, match=complaint):
        stream.check(0, data)


def test_pumps_carry_streams_both_ways(two_loops):
    first, second = two_loops
    ends = socket.socketpair()
    there, back = streams.Stream(1), streams.Stream(2)
    left = first.add(streams.Pump(ends[0], there, back, n_send=3_000_000))
    right = second.add(streams.Pump(ends[1], back, there, n_send=1_000_000))
    first.wait_done(left)
    second.wait_done(right)
    assert (left.n_sent, left.n_received) == (3_000_000, 1_000_000)
    assert left.sent_digest == right.received_digest == there.digest(3_000_000)
    assert left.received_digest == right.sent_digest == back.digest(1_000_000)


@pytest.mark.parametrize("position", (0, 100_000))
def test_pump_finds_a_byte_that_is_lost_on_the_way(loop, position):
    near, far = socket.socketpair()
    stream = streams.Stream(1)
    pump = loop.add(streams.Pump(near, None, stream))
    data = stream.read(0, position) + stream.read(position + 1, 1000)
    with far:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            far.sendall(data)
        with pytest.raises(streams.StreamError, match=f"byte {position}: "):
            loop.wait_done(pump)


def test_pump_tells_a_reset_from_an_end(loop):
    net = network.Network()
    with net.listen() as listener:
        client = net.connect(listener.getsockname())
        accepted, _ = listener.accept()
    pump = loop.add(streams.Pump(client, None, streams.Stream(1)))
    other = loop.add(streams.Pump(accepted, streams.Stream(1)))
    loop.wait_received(pump, 1)
    loop.abort(other)
    loop.wait_ended(pump)
    assert streams.is_reset(pump.error)


def test_pump_sends_until_it_is_told_to_finish(loop):
    net = network.Network()
    with streams.Upstream(net) as upstream:
        stream = streams.Stream(9)
        client = net.connect(upstream.listener.getsockname())
        pump = loop.add(streams.Pump(client, stream, streams.reply_to(stream)))
        loop.wait_received(pump, 1_000_000)
        loop.finish(pump)
        loop.wait_done(pump)
        served = upstream.pump_of(stream)
        upstream.loop.wait_done(served)
    assert pump.sent_digest == served.received_digest
    assert pump.received_digest == served.sent_digest


def test_pump_that_does_not_receive_holds_its_peer_up(two_loops):
    first, second = two_loops
    ends = socket.socketpair()
    stream = streams.Stream(1)
    receiver = streams.Pump(ends[0], None, stream)
    receiver.receiving = False
    first.add(receiver)
    sender = second.add(streams.Pump(ends[1], stream, None, n_send=50_000_000))
    with pytest.raises(TimeoutError):
        second.wait(lambda: sender.n_sent == 50_000_000, timeout=0.3)
    assert receiver.n_received == 0
    first.set_receiving(receiver, True)
    first.wait_done(receiver)
    second.wait_done(sender)


def test_one_loop_drives_a_thousand_connections(loop):
    net = network.Network()
    with streams.Upstream(net) as upstream:
        address = upstream.listener.getsockname()
        pumps = []
        for seed, client in enumerate(net.connect_many(address, 1000)):
            stream = streams.Stream(seed)
            pumps.append(
                loop.add(streams.Pump(client, stream, streams.reply_to(stream), n_send=5000))
            )
        loop.wait_done(*pumps)
        upstream.loop.wait_done(*upstream.pumps)
        assert len(upstream.pumps) == 1000


# Followers


def test_follower_waits_for_a_line_that_is_not_there_yet():
    reader, writer = os.pipe()
    with open(reader, encoding="utf-8") as stream, open(writer, "w", encoding="utf-8") as out:
        follower = journal.LineFollower(stream, str.strip)
        out.write("one\ntwo\n")
        out.flush()
        assert follower.wait(lambda line: line == "two", 10) == "two"
        with pytest.raises(journal.WaitTimeout):
            follower.wait(lambda line: line == "one", 0.05, start=1)
        out.write("one\n")
        out.flush()
        assert follower.wait(lambda line: line == "one", 10, start=1) == "one"
        assert follower.wait_count(lambda line: line == "one", 2, 10) == ["one", "one"]
        out.close()
        follower.wait_end()


def test_follower_does_not_wait_for_what_can_no_longer_come():
    follower = journal.LineFollower(io.StringIO("one\n"), str.strip)
    started = time.monotonic()
    with pytest.raises(journal.WaitTimeout):
        follower.wait(lambda line: line == "two", 60)
    assert time.monotonic() - started < 30


# Network namespaces


def test_namespace_has_a_loopback_of_its_own():
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    namespace = network.NetworkNamespace.new()
    with contextlib.closing(namespace), namespace.listen(("127.0.0.1", 8888)) as listener:
        with namespace.connect(("127.0.0.1", 8888)):
            listener.accept()[0].close()
        names = subprocess.run(
            namespace.command(["cat", "/proc/self/net/dev"]),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert [line.split(":")[0].strip() for line in names.splitlines()[2:]] == ["lo"]


def wait_readable(fd, timeout):
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(timeout * 1000))


def wait_until(predicate, timeout=10):
    """For what only systemctl can tell, so that nothing can be waited for."""
    deadline = time.monotonic() + timeout
    while not predicate():
        assert time.monotonic() < deadline, "did not become true"
        time.sleep(0.01)
