# SPDX-License-Identifier: LGPL-2.1-or-later
"""Limits and bad input: each has a name and a refusal, is said once, and loses nothing."""

import contextlib
import json
import os
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

import disturbances
import ledger
import stages
import streams
from controlled import Controlled
from questions import echoes, serving_stream, wait_until

# Of a process that can't start for want of memory, before it ends: as in main.c
RESTART_DELAY_SECONDS = 1


def stays_unserved(connection, seconds=0.5):
    """Nothing comes back for a while; there is no event for what doesn't happen."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return not poll.poll(seconds * 1000)


# The command line


@pytest.mark.parametrize(
    "arguments, line",
    [
        ([], "no service was named: give log, echo or relay UPSTREAM (see --help)"),
        (["sing"], "unknown service 'sing': give log, echo or relay UPSTREAM"),
        (["log", "loud"], "unexpected argument 'loud' after the service"),
        (["--threads=0", "log"], "--threads=0: give a number from 1 to 64"),
        (["--threads=many", "log"], "--threads=many: give a number from 1 to 64"),
        (["--buffer=65537", "log"], "--buffer=65537: give a number from 1 to 65536"),
        (["--frame=word", "log"], "--frame=word: give read or line"),
        (["--loud", "log"], "unknown option --loud (see --help)"),
        (["--threads"], "option --threads needs a value (see --help)"),
        (
            ["--idle-timeout=soon", "log"],
            "--idle-timeout=soon: give a time above 0 such as 500ms, 30s, 5min, or infinity",
        ),
        (
            ["relay", "example"],
            "upstream 'example': the port (1 to 65535) is missing or wrong; "
            "give HOST:PORT, [IPv6]:PORT or /path",
        ),
    ],
)
def test_bad_command_line_is_told_in_one_line(arguments, line):
    result = run(arguments)
    assert (result.returncode, result.stderr) == (2, f"<3>{line}\n")


def run(arguments):
    return subprocess.run(
        [stages.built_program("holdfastd"), *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        env={},
        check=False,
    )


def test_start_by_hand_says_how_to_start_it():
    result = run(["log"])
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "systemctl enable --now holdfast@8888.socket" in result.stderr


def run_activated(environment=""):
    """As systemd-socket-activate passes a listener; $LISTEN_PID has to be the process's own."""
    program = stages.built_program("holdfastd")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return subprocess.run(
            ["sh", "-c", f"LISTEN_PID=$$ LISTEN_FDS=1 {environment} exec {program} log 3<&0"],
            stdin=listener,
            capture_output=True,
            text=True,
            timeout=stages.PATIENCE_SECONDS,
            env={},
            check=False,
        )


def test_listener_without_a_store_is_not_served():
    result = run_activated()
    assert result.returncode == 2
    assert "No service manager would keep the connections ($NOTIFY_SOCKET" in result.stderr


def test_names_that_do_not_fit_what_was_passed_are_told():
    """A colon in FileDescriptorName= looks like one more name."""
    result = run_activated("LISTEN_FDNAMES=two:names")
    assert result.returncode == 1
    assert "(does a FileDescriptorName= have a colon?)" in result.stderr


def test_help_and_version():
    assert run(["--help"]).returncode == 0
    assert "--exit-idle-time=TIME" in run(["--help"]).stdout
    assert run(["--version"]).stdout.startswith("holdfastd ")


def test_mistake_in_the_configuration_loses_no_connection(stage):
    """The service can't start, but what it held waits until the mistake is mended."""
    instance = stage.start("echo")
    with instance.connect() as connection:
        assert echoes(connection)
        if stage.machine:
            with pytest.raises(Exception, match="failed"):
                instance.restart(options=["--threads=many"])
        else:
            instance.restart(options=["--threads=many"], wait=False)
        instance.wait_line("--threads=many: give a number")
        instance.restart(options=["--threads=1"])
        assert echoes(connection)


# Connections


def test_connections_beyond_the_limit_wait(stage):
    instance = stage.start("echo", options=["--connections-max=2", "--threads=1"])
    with contextlib.ExitStack() as stack:
        first, second, third = (stack.enter_context(instance.connect()) for _ in range(3))
        assert echoes(first) and echoes(second)
        third.sendall(b"1234")
        assert stays_unserved(third)
        first.close()
        assert third.recv(4, socket.MSG_WAITALL) == b"1234"
        limit_lines = [line for line in instance.lines() if "--connections-max=" in line]
        assert len(limit_lines) == 1


def test_connections_beyond_the_open_files_wait(stage):
    instance = stage.start("echo", limit_nofile=128, options=["--threads=1"])
    # Few enough for the limit of files in flight, which is the same and another matter
    connections = instance.connect_many(60)
    try:
        for connection in connections:
            connection.sendall(b"1234")
        instance.wait_line(r"limit|descriptors")
        # All are served in the end, since each that was served makes room
        for connection in connections:
            connection.settimeout(stages.PATIENCE_SECONDS)
            assert connection.recv(4, socket.MSG_WAITALL) == b"1234"
            connection.close()
    finally:
        for connection in connections:
            connection.close()


@pytest.mark.stages("keeper")
@disturbances.each
@pytest.mark.parametrize("limit", [300, 600, 1500])
def test_as_many_as_the_open_files_allow_go_on(stage, disturb, limit):
    """Each with a byte in its pipe: the next process has room for all that, and for itself."""
    options = ["--frame=line", "--threads=2"]
    controlled = Controlled(stage, "log", limit_nofile=limit, options=options)
    instance, connections_of = controlled.instance, controlled.connections
    n = json.loads(controlled.ask("status", "--json=short"))[0]["connections_max"]
    connections = instance.connect_many(n)
    try:
        for i, connection in enumerate(connections):
            connection.sendall(b"%d begins, " % i)
        # Who is accepted and not yet stored may be reset by a crash: all have to be served
        wait_until(lambda: sum(c["pending_bytes"] > 0 for c in connections_of()) == n)
        disturb(instance)
        for i, connection in enumerate(connections):
            connection.sendall(b"%d ends\n" % i)
        instance.wait_lines(r"line: (\d+) begins, \1 ends$", n)
    finally:
        for connection in connections:
            connection.close()


# The keeper's services are root's, to whom the limit does not apply
@pytest.mark.stages("systemd")
def test_short_connections_do_not_use_up_the_files_in_flight(stage):
    """What has died in the store counts against the limit until it is swept, and with one that
    lives on among hundreds it is not all dead for long."""
    instance = stage.start("echo", limit_nofile=512, options=["--threads=1"])
    with contextlib.ExitStack() as living:
        for i in range(3000):
            connection = instance.connect()
            if i % 50 == 0:
                living.enter_context(connection)
            assert echoes(connection)
            if i % 50:
                connection.close()


@pytest.mark.stages("systemd")
def test_files_in_flight_of_another_instance_stop_no_start(stage):
    """All instances are one user's, whose stored files count together."""
    instance = stage.start("echo", limit_nofile=1024, options=["--threads=1"])
    another = stage.start("echo")
    with contextlib.ExitStack() as files:
        own = [files.enter_context(instance.connect()) for _ in range(3)]
        assert all(echoes(connection) for connection in own)
        crowd = another.connect_many(1100)
        assert echoes(crowd[-1])
        instance.kill()
        instance.wait_line("Nothing can be stored .*: new connections wait")
        assert all(echoes(connection) for connection in own)
        new = files.enter_context(instance.connect())
        assert stays_unserved(new)
        for connection in crowd:
            connection.close()
        assert echoes(new)


def answered(connections):
    return [connection for connection in connections if not stays_unserved(connection, 0)]


def test_store_that_is_full_makes_new_connections_wait(stage):
    """Those that are in it go on, over a restart too; room in it lets the others in."""
    instance = stage.start("echo", store_max=5, options=["--threads=1"])
    served = []
    try:
        # More than the parcels that fit can hold
        connections = instance.connect_many(1500)
        # Before a byte has needed a pipe, the connections have all the room that they get
        instance.wait_line("fd store is full")
        for connection in connections:
            connection.sendall(b"1234")
        served = answered(connections)
        while len(served) < 250 or len(answered(connections)) != len(served):
            served = answered(connections)
            # The rest waits, which has no event
            time.sleep(0.3)
        assert 250 < len(served) < 1500
        for connection in served:
            assert connection.recv(4, socket.MSG_WAITALL) == b"1234"
        instance.restart()
        for connection in served:
            assert echoes(connection)
        waiting = [c for c in connections if c not in set(served)]
        for connection in served:
            connection.close()
        for connection in waiting[:200]:
            connection.settimeout(stages.PATIENCE_SECONDS)
            assert connection.recv(4, socket.MSG_WAITALL) == b"1234"
    finally:
        for connection in connections:
            connection.close()


def test_manager_that_stores_nothing_is_told_so(stage):
    options = {"keeper_options": ["--restart-prevent-exit-status=2"]}
    if stage.machine:
        options = {}
    instance = stage.start("echo", store_max=0, wait=False, **options)
    instance.wait_line("FileDescriptorStoreMax=4096")


@pytest.mark.slow
def test_churn_keeps_the_store_small(stage):
    """Hundreds of parcels' worth of connections, while one lives through all of them."""
    n, at_once = 30000 if not stage.machine else 12000, 100
    instance = stage.start("echo")
    most = 0
    with instance.connect() as survivor:
        assert echoes(survivor)
        n_fds = instance.n_service_fds()
        for i in range(n // at_once):
            connections = instance.connect_many(at_once)
            for connection in connections:
                connection.sendall(b"1")
            for connection in connections:
                assert connection.recv(1) == b"1"
                connection.close()
            if i % 20 == 0:
                most = max(most, instance.n_stored_fds())
        assert most < 40
        assert echoes(survivor)
        instance.kill()
        assert echoes(survivor)
        wait_until(lambda: instance.n_service_fds() <= n_fds + 16)


@pytest.mark.slow
@pytest.mark.stages("keeper")
def test_hundred_thousand_connections_leak_nothing(stage):
    # The address sanitizer keeps what was freed, by default more than all of it
    sanitizer = f"{os.environ.get('ASAN_OPTIONS', '')}:quarantine_size_mb=1"
    instance = stage.start("echo", environment={"ASAN_OPTIONS": sanitizer})

    def churn(n):
        for _ in range(n // 200):
            connections = instance.connect_many(200)
            for connection in connections:
                connection.sendall(b"1")
            for connection in connections:
                assert connection.recv(1) == b"1"
                connection.close()

    def resident_kib():
        status = (instance.proc() / "status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if "VmRSS" in line).split()[1])

    churn(20_000)
    fds, memory = instance.n_service_fds(), resident_kib()
    churn(80_000)
    wait_until(lambda: instance.n_service_fds() <= fds + 8)
    assert resident_kib() < memory + 2048


# Times


def test_idle_connection_is_reset_after_its_time(stage):
    instance = stage.start("echo", options=["--idle-timeout=500ms"])
    with instance.connect() as connection:
        assert echoes(connection)
        connection.settimeout(stages.PATIENCE_SECONDS)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


@pytest.mark.stages("keeper")
def test_idle_connection_is_reset_although_there_is_always_more_to_do(stage):
    """With more streams than one look at epoll tells of, no look ever tells of all."""
    instance = stage.start("echo", options=["--idle-timeout=2s", "--threads=1"])
    host, port = instance.address()
    load = [stages.built_program("load-client"), "--connections=2000", "--window=60000"]
    with instance.connect() as connection:
        assert echoes(connection)
        connection.settimeout(stages.PATIENCE_SECONDS)
        with subprocess.Popen(
            stage.network.command([*load, "echo", f"{host}:{port}"]), stdin=subprocess.DEVNULL
        ) as process:
            try:
                with pytest.raises(ConnectionResetError):
                    connection.recv(1)
                assert process.poll() is None
            finally:
                process.kill()


@pytest.mark.stages("keeper")
def test_what_came_while_the_process_was_stopped_was_not_idle(stage):
    """A wait that a signal has interrupted has told of nothing, though much may have come."""
    instance = stage.start("echo", options=["--idle-timeout=1s"])
    with instance.connect() as connection:
        assert echoes(connection)
        instance.kill(signal.SIGSTOP, wait=False)
        tasks = [task / "stat" for task in (instance.proc() / "task").iterdir()]
        wait_until(lambda: all(") T " in stat.read_text("ascii") for stat in tasks))
        connection.sendall(b"sent meanwhile")
        time.sleep(1.5)  # the pause is the test's input
        instance.kill(signal.SIGCONT, wait=False)
        connection.settimeout(stages.PATIENCE_SECONDS)
        assert connection.recv(14, socket.MSG_WAITALL) == b"sent meanwhile"


@pytest.mark.parametrize("disturb", [disturbances.killed, disturbances.taken_over])
def test_idle_time_is_counted_over_restarts(stage, disturb):
    instance = stage.start("echo", options=["--idle-timeout=2s"])
    with instance.connect() as connection:
        assert echoes(connection)
        began = time.monotonic()
        disturb(instance)
        connection.settimeout(stages.PATIENCE_SECONDS)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
        assert time.monotonic() - began > 1.5


@pytest.mark.stages("keeper")
def test_idle_connections_are_reset_in_the_order_they_came_to_rest(stage):
    """That of their last bytes, which a takeover keeps; not that in which they came."""
    instance = stage.start("echo", options=["--idle-timeout=5s", "--threads=1"])
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(instance.connect()) for _ in range(6)]
        at_rest = connections[3:] + connections[:3]
        with serving_stream(instance) as wait_more:
            assert all(echoes(connection) for connection in at_rest)
            instance.takeover()
            wait_more()
        epoll = stack.enter_context(select.epoll())
        for connection in connections:
            epoll.register(connection, 0)  # Its end is told all the same
        ended = []
        while len(ended) < len(connections):
            events = epoll.poll(stages.PATIENCE_SECONDS, 1)
            assert events
            ended += [fd for fd, _ in events]
            epoll.unregister(ended[-1])
        assert ended == [connection.fileno() for connection in at_rest]


def test_service_leaves_when_idle_and_is_started_by_the_next_connection(stage):
    instance = stage.start("echo", options=["--exit-idle-time=1s"])
    pid = instance.main_pid()
    with instance.connect() as connection:
        assert echoes(connection)
    wait_until(lambda: instance.main_pid() == 0)
    with instance.connect() as connection:
        assert echoes(connection)
        assert instance.main_pid() not in (0, pid)


def keepalive_timers(stage, which):
    """The timers of the connected sockets that ss knows as "sport = :80" or the like."""
    rows = subprocess.run(
        stage.network.command(["ss", "-tnoH", "state", "established", which]),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [row.partition("timer:(")[2].partition(",")[0] for row in rows]


@pytest.mark.parametrize("option, timer", [("60s", "keepalive"), ("no", "")])
def test_silent_peers_are_asked_whether_they_are_there(stage, option, timer):
    instance = stage.start("echo", options=[f"--keepalive={option}"])
    with instance.connect() as connection:
        assert echoes(connection)
        port = instance.address()[1]
        wait_until(lambda: keepalive_timers(stage, f"sport = :{port}") == [timer])


@disturbances.each
def test_silent_upstreams_are_asked_too(stage, disturb):
    """Not at once, since most connections end before; also by a process that came meanwhile."""
    host, port = stage.start("echo").address()
    instance = stage.start(f"relay {host}:{port}", options=["--keepalive=60s"])
    with instance.connect() as connection:
        assert echoes(connection)
        disturb(instance)
        wait_until(lambda: keepalive_timers(stage, f"dport = :{port}") == ["keepalive"])
        assert echoes(connection)
        # By now it is no longer looked whether a client has inherited the listener's options
        for _ in range(3):
            with instance.connect() as later:
                assert echoes(later)
                timers = keepalive_timers(stage, f"sport = :{instance.address()[1]}")
                assert timers == ["keepalive"] * 2


@disturbances.each
def test_no_upstream_is_asked_where_that_is_not_wanted(stage, disturb):
    ports, instances = [], []
    for option in ("no", "60s"):
        host, port = stage.start("echo", options=["--keepalive=no"]).address()
        ports.append(port)
        instances.append(
            stage.start(f"relay {host}:{port}", options=[f"--keepalive={option}"])
        )
    with instances[0].connect() as silent, instances[1].connect() as asked:
        assert echoes(silent)
        disturb(instances[0])
        assert echoes(silent)
        # It has come later, and is asked by now
        assert echoes(asked)
        wait_until(lambda: keepalive_timers(stage, f"dport = :{ports[1]}") == ["keepalive"])
        assert keepalive_timers(stage, f"dport = :{ports[0]}") == [""]


# Upstreams


def is_reset_at_once(instance):
    """The reset may be there before the client has looked whether it is connected."""
    try:
        with instance.connect() as connection:
            connection.settimeout(stages.PATIENCE_SECONDS)
            return connection.recv(1) is None
    except ConnectionResetError:
        return True


def test_upstream_that_refuses_is_told_and_resets_the_client(stage):
    port = stage.network.free_port()
    instance = stage.start(f"relay 127.0.0.1:{port}")
    assert is_reset_at_once(instance)
    instance.wait_line(r"no address of the upstream answered \(Connection refused\)")


@pytest.mark.stages("systemd")
def test_address_that_fails_is_followed_by_the_next(stage):
    """localhost is ::1 and 127.0.0.1, and this upstream listens on one of them."""
    with stage.upstream() as upstream, streams.Loop() as loop:
        port = upstream.address.rpartition(":")[2]
        instance = stage.start(f"relay localhost:{port}")
        stream = streams.Stream(1)
        pump = streams.Pump(instance.connect(), stream, streams.reply_to(stream), 10_000)
        loop.add(pump)
        loop.wait_done(pump)
        assert upstream.pump_of(stream).n_received == 10_000


def test_name_that_does_not_resolve_resets_clients_and_is_said(stage):
    instance = stage.start("relay does-not-exist.invalid:80")
    instance.wait_line("does-not-exist.invalid:80 can't be resolved")
    assert is_reset_at_once(instance)
    instance.wait_line("was reset: no address of the upstream is known")


@disturbances.each
def test_client_waits_for_an_upstream_that_is_slow_to_accept(stage, disturb):
    """Its backlog is full: the connect is under way while the service is replaced."""
    listener = stage.network.listen(("127.0.0.1", 0), backlog=0)
    port = listener.getsockname()[1]
    instance = stage.start(f"relay 127.0.0.1:{port}", options=["--connect-timeout=60s"])
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        fillers = [stack.enter_context(instance.connect()) for _ in range(4)]
        for i, filler in enumerate(fillers):
            filler.sendall(b"%d" % i)
        with ledger.Ledger(instance) as records:
            wait_until(lambda: len(records.connections()) == len(fillers))
        disturb(instance)
        seen = set()
        listener.settimeout(stages.PATIENCE_SECONDS)
        while len(seen) < len(fillers):
            accepted, _ = listener.accept()
            stack.enter_context(accepted)
            accepted.settimeout(stages.PATIENCE_SECONDS)
            data = accepted.recv(1)
            assert data not in seen
            seen.add(data)


def test_upstream_that_never_answers_is_given_up(stage):
    listener = stage.network.listen(("127.0.0.1", 0), backlog=0)
    port = listener.getsockname()[1]
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        for _ in range(2):
            # Fills the backlog: who comes now gets no answer
            filler = stack.enter_context(stage.network.socket(socket.AF_INET))
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        instance = stage.start(f"relay 127.0.0.1:{port}", options=["--connect-timeout=1s"])
        connection = stack.enter_context(instance.connect())
        connection.settimeout(stages.PATIENCE_SECONDS)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


# Urgent data


@disturbances.each
def test_urgent_bytes_stay_in_the_stream(stage, disturb):
    instance = stage.start("echo")
    with instance.connect() as connection:
        # Behind the one window in which a kill resets a connection
        assert echoes(connection)
        connection.sendall(b"before ")
        connection.send(b"!", socket.MSG_OOB)
        connection.sendall(b" between ")
        disturb(instance)
        connection.send(b"?", socket.MSG_OOB)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(stages.PATIENCE_SECONDS)
        received = b""
        while True:
            data = connection.recv(100)
            if not data:
                break
            received += data
        assert received == b"before ! between ?"


# The journal


@pytest.mark.stages("systemd")
def test_bytes_move_while_the_journal_is_stopped(stage):
    instance = stage.start("echo", options=["--log-level=debug"])
    units = ("systemd-journald.service",)
    stage.machine.systemctl("kill", "--signal=STOP", *units)
    try:
        # Each makes two lines: far more than the journal's socket takes
        for _ in range(30):
            connections = instance.connect_many(100)
            for connection in connections:
                assert echoes(connection)
                connection.close()
    finally:
        stage.machine.systemctl("kill", "--signal=CONT", *units)


@pytest.mark.stages("systemd")
@pytest.mark.parametrize("seconds", [0, 2.5], ids=["shortly", "beyond-idle-timeout"])
def test_log_waits_for_a_journal_that_is_stopped(stage, seconds):
    """Also for longer than a connection may be idle: it is not the client that moves no byte."""
    instance = stage.start("log", options=["--frame=line", "--idle-timeout=2s"])
    n = 3000
    with instance.connect() as connection:
        stage.machine.systemctl("kill", "--signal=STOP", "systemd-journald.service")
        try:
            thread = threading.Thread(
                target=connection.sendall, args=(b"".join(b"%d\n" % i for i in range(n)),)
            )
            thread.start()
            thread.join()
            time.sleep(seconds)  # the pause is the test's input
        finally:
            stage.machine.systemctl("kill", "--signal=CONT", "systemd-journald.service")
        instance.wait_line(rf"line: {n - 1}$")
    found = [line.rpartition(" ")[2] for line in instance.lines() if ", line: " in line]
    assert found == [str(i) for i in range(n)]


LINGER_ZERO = struct.pack("ii", 1, 0)


def test_reset_clients_by_the_thousand_leave_nothing(stage):
    instance = stage.start("echo")
    with instance.connect() as connection:
        assert echoes(connection)
        n_fds = instance.n_service_fds()
        for _ in range(10):
            connections = instance.connect_many(100)
            for other in connections:
                other.sendall(b"1234")
                other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
                other.close()
        wait_until(lambda: instance.n_service_fds() <= n_fds + 8)
        assert echoes(connection)


@pytest.mark.slow
@pytest.mark.stages("keeper")
def test_want_of_memory_at_the_start_costs_no_connection(stage):
    """The process says so and ends, whatever it was doing; the store keeps them all."""
    if stages.has_sanitizer():
        pytest.skip("its allocator does not ask the limit, and its own memory is no measure")
    instance = stage.start("echo", options=["--threads=1"])
    connections = instance.connect_many(2000)
    # What is killed while it is being accepted is reset: all must be in the store
    assert all(echoes(connection) for connection in connections)
    instance.kill()
    assert all(echoes(connection) for connection in connections)
    status = (instance.proc() / "status").read_text("ascii")
    most = int(re.search(r"VmData:\s+(\d+) kB", status)[1]) * 1024
    keeper = instance.keeper_pid()
    limits = resource.prlimit(keeper, resource.RLIMIT_DATA)
    outcomes = []
    began, first = time.monotonic(), instance.mark()
    # From too little for any of them to enough for all but a thread's stack (8 MiB)
    for lack in range(11 << 20, 7 << 20, -(128 << 10)):
        resource.prlimit(keeper, resource.RLIMIT_DATA, (most - lack, limits[1]))
        instance.wait_pid_change(0)
        since = instance.mark()
        instance.kill(wait=False)
        instance.wait_line("Can't start: (Cannot allocate memory|Resource temp)", since=since)
        instance.wait_line_of_keeper(r"pid \d+ exited with status 1", since)
        outcomes.append(any("Adopted 2000 connections" in line for line in instance.lines(since)))
    assert not outcomes[0] and outcomes[-1]
    # Or the manager would do nothing but start it again
    n_ended = sum("exited with status 1" in line for line in instance.records(first))
    assert len(outcomes) <= n_ended <= (time.monotonic() - began) / RESTART_DELAY_SECONDS
    resource.prlimit(keeper, resource.RLIMIT_DATA, limits)
    instance.wait_pid_change(0)
    instance.kill()
    assert all(echoes(connection) for connection in connections)
