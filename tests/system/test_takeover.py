# SPDX-License-Identifier: LGPL-2.1-or-later
"""Takeover: another process goes on with the connections, or the one that serves stays."""

import contextlib
import os
import random
import re
import shutil
import signal
import struct
import threading

import pytest

import disturbances
import stages
import streams
from questions import echoes, replace_program, serving_stream, wait_until

PAUSED = r"Took over (\d+) connections? with \d+ pending bytes? from pid (\d+), refused 0; paused for (\S+) ms"
FAILED = r"The takeover by pid \d+ has failed: (.*)\. Pid (\d+) goes on"

# As struct handover of src/holdfastd/handover.h
HANDOVER = struct.Struct("=IIIIQQ1008x")
HEADER = (stages.source_directory() / "src/holdfastd/handover.h").read_text(encoding="utf-8")


@pytest.fixture
def program(stage, tmp_path):
    """Settings for a service whose program can be replaced, and what puts it back."""
    if stage.machine is None:
        # Its own copy, at a path where no other test looks
        copy = tmp_path / "holdfastd"
        shutil.copy(stages.built_program("holdfastd"), copy)
        yield {"program": str(copy)}
        return
    path = stage.machine.path("/usr/bin/holdfastd")
    saved = tmp_path / "saved"
    shutil.copy(path, saved)
    yield {}
    replace_program(path, saved.read_bytes())


def script(text):
    return f"#!/bin/sh\n{text}\n".encode()


# What the journal tells


def test_journal_tells_it_as_the_demonstration_did(stage):
    instance = stage.start("log")
    with instance.connect() as client:
        client.sendall(b"1234\n")
        instance.wait_line(r"val: \[49 50 51 52 10 0 0 0\]")
        old, since = instance.main_pid(), instance.mark()
        new = instance.takeover()
        client.sendall(b"5678\n")
        instance.wait_line(r"val: \[53 54 55 56 10 0 0 0\]", since=since)
        instance.wait_line(rf"Handed over to pid {new}", since=since)
        n_connections, from_pid, _ = instance.wait_line(PAUSED, since=since).groups()
        lines = instance.lines(since)
    told = ["ready to restart and pass connfd", f"forked pid: {new}", f"pid: {new}"]
    told += ["recv tcpconn and read"]
    assert [line for line in lines if line in told].count(told[3]) == 1
    assert set(told) <= set(lines)
    assert lines.index(told[0]) < lines.index(told[1])
    assert lines.index(told[2]) < lines.index(told[3])
    assert f"pid: {new}, conn read 5 bytes, val: [53 54 55 56 10 0 0 0]" in lines
    assert (n_connections, from_pid) == ("1", str(old))


def tasks_of(instance):
    """Its main thread, the workers and the log: a sanitizer has a thread of its own."""

    def is_named(task):
        return (task / "comm").read_text(encoding="ascii").strip() != "holdfastd"

    tasks = (instance.proc() / "task").iterdir()
    return [task for task in tasks if task.name == instance.proc().name or is_named(task)]


def slices(instance):
    texts = [(task / "sched").read_text(encoding="ascii") for task in tasks_of(instance)]
    return {match for text in texts for match in re.findall(r"se\.slice +: +(\d+)", text)}


def cpus(tasks):
    """By the threads' names, the sets of CPUs that they may use."""
    found = {}
    for task in tasks:
        name = (task / "comm").read_text(encoding="ascii").strip()
        found.setdefault(name.partition("/")[0], set()).add(
            frozenset(os.sched_getaffinity(int(task.name)))
        )
    return found


@pytest.mark.parametrize("service", ["echo", "relay"])
def test_new_process_serves_with_the_slices_and_cpus_of_the_old_one(stage, service):
    """It gets ready with long slices and on one CPU, so that others go first."""
    with stage.upstream() as upstream:
        port = upstream.address.rpartition(":")[2]
        name = service if service == "echo" else f"relay localhost:{port}"
        instance = stage.start(name)
        before = slices(instance), cpus(tasks_of(instance))
        for _ in range(3):
            instance.takeover()
            wait_until(lambda: (slices(instance), cpus(tasks_of(instance))) == before)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU only")
def test_new_process_gets_ready_on_a_cpu_that_the_workers_leave_to_it(stage, program):
    instance = stage.start(
        "echo", options=["--takeover-timeout=5s", "--threads=2"], **program
    )
    mine = frozenset(os.sched_getaffinity(0))
    old = int(instance.proc().name)
    tasks = tasks_of(instance)
    before = cpus(tasks)
    assert before["worker"] == {mine}
    replace_program(instance.program_path(), script("exec sleep 1000"))
    with instance.connect() as client:
        instance.begin_takeover()
        instance.wait_line("forked pid:")
        (new,) = [pid for pid, _, _ in instance.processes() if pid != old]
        (its,) = {frozenset(os.sched_getaffinity(new))}
        assert len(its) == 1
        assert cpus(tasks) == before | {"worker": {mine - its}}
        assert echoes(client)
        instance.wait_line(FAILED)
        assert cpus(tasks) == before
        assert echoes(client)


def test_takeover_on_one_cpu(stage):
    """There is none to leave to the new process, nor to the old one for its end."""
    instance = stage.start("echo")
    cpu = min(os.sched_getaffinity(0))
    for task in tasks_of(instance):
        os.sched_setaffinity(int(task.name), {cpu})
    with instance.connect() as client:
        for _ in range(2):
            instance.takeover()
            assert echoes(client)
    found = cpus(tasks_of(instance))
    assert set().union(*found.values()) == {frozenset({cpu})}


def test_takeover_of_nothing_receives_nothing(stage):
    instance = stage.start("log")
    instance.takeover()
    instance.wait_line(PAUSED)
    assert "recv tcpconn and read" not in instance.lines()


def test_second_request_is_refused_and_said(stage, program):
    instance = stage.start("echo", options=["--takeover-timeout=5s"], **program)
    good = instance.program_path().read_bytes()
    replace_program(instance.program_path(), script("exec sleep 1000"))
    with instance.connect() as client:
        old = instance.begin_takeover()
        instance.wait_line("forked pid:")
        instance.begin_takeover()
        instance.wait_line("No takeover: one is under way already")
        assert echoes(client)
        instance.wait_line(FAILED)
        replace_program(instance.program_path(), good)
        assert instance.takeover() != old
        assert echoes(client)


# Whoever fails leaves the other one serving


def as_another_architecture(content):
    """e_machine of its ELF header (elf(5)) says s390."""
    return content[:18] + struct.pack("<H", 22) + content[20:]


def as_script(text):
    return lambda content: script(text)


BAD = {
    "exits": (as_script("exit 7"), "exited with status 7"),
    "crashes": (as_script("kill -SEGV $$"), "was killed by signal 11"),
    "hangs": (as_script("exec sleep 1000"), "was not ready after 5000 ms"),
    "hangs up": (as_script("exec sleep 1000 3>&-"), "hung up"),
    "speaks": (as_script("printf nonsense >&3; exec sleep 1000"), "another version of the handover"),
    "not a program": (lambda content: b"\x7fELF", "Exec format error"),
    "another architecture": (as_another_architecture, "Exec format error"),
}


@pytest.mark.parametrize("fault", BAD)
def test_program_that_can_not_take_over_changes_nothing(stage, program, fault):
    spoil, reason = BAD[fault]
    # Long enough for the good program, which gets ready in time, be it sanitized
    instance = stage.start("echo", options=["--takeover-timeout=5s"], **program)
    path = instance.program_path()
    good = path.read_bytes()
    with serving_stream(instance) as stream_goes_on:
        replace_program(path, spoil(good))
        since = instance.mark()
        old = instance.begin_takeover()
        line = instance.wait_line(f"{FAILED}|No takeover: .*", since=since)[0]
        assert reason in line
        assert instance.wait_alone() == old
        stream_goes_on()
        replace_program(path, good)
        assert instance.takeover() != old
        stream_goes_on()


@pytest.mark.parametrize("fault", ["missing", "not executable"])
def test_program_that_is_not_there_changes_nothing(stage, program, fault):
    instance = stage.start("echo", **program)
    path = instance.program_path()
    good = path.read_bytes()
    with serving_stream(instance) as stream_goes_on:
        if fault == "missing":
            path.unlink()
        else:
            path.chmod(0o644)
        old = instance.begin_takeover()
        instance.wait_line(r"No takeover: /.*/holdfastd can't be started: ")
        assert instance.wait_alone() == old
        stream_goes_on()
        replace_program(path, good)
        assert instance.takeover() != old
        stream_goes_on()


@pytest.mark.stages("keeper")
def test_program_that_refuses_its_options_says_why(stage, program):
    instance = stage.start("echo", **program)
    path = instance.program_path()
    good = path.with_name("good")
    shutil.copy(path, good)
    with serving_stream(instance) as stream_goes_on:
        replace_program(path, script(f"exec {good} --threads=many echo"))
        old = instance.begin_takeover()
        reason = instance.wait_line(FAILED)[1]
        assert reason.startswith("the new process says: --threads=many: give a number")
        assert instance.wait_alone() == old
        stream_goes_on()


@pytest.mark.stages("keeper")
def test_program_that_hangs_when_it_is_told_to_go_changes_nothing(stage, program):
    """It has said that it is ready; the old one has stopped, and goes on after a second."""
    instance = stage.start("echo", **program)
    path = instance.program_path()
    version = int(re.search(r"#define HANDOVER_VERSION (\d+)u", HEADER)[1])
    types = re.findall(r"^\t(HANDOVER_[A-Z_]+)(?: = 1)?,", HEADER, re.MULTILINE)
    ready = HANDOVER.pack(version, 1 + types.index("HANDOVER_READY"), 0, 0, 0, 0)
    message = path.with_name("ready")
    message.write_bytes(ready)
    with serving_stream(instance) as stream_goes_on:
        # One write is one message
        replace_program(
            path, script(f"dd if={message} bs={len(ready)} count=1 status=none >&3; exec sleep 1000")
        )
        old = instance.begin_takeover()
        assert instance.wait_line(FAILED)[1] == "the new process did not go on in time"
        assert instance.wait_alone() == old
        stream_goes_on()


# A long life


def n_takeovers(n):
    """Some are enough where the thread sanitizer makes each start of a process take a second."""
    return n // 4 if stages.has_sanitizer() else n


@pytest.mark.slow
def test_fifty_takeovers_leave_nothing_behind(stage):
    n = n_takeovers(50)
    instance = stage.start("echo", options=["--threads=2"])
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(instance.connect()) for _ in range(300)]

        def measure():
            status = (instance.proc() / "status").read_text(encoding="ascii")
            resident = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])
            return instance.n_service_fds(), instance.n_stored_fds(), resident

        for i in range(n):
            instance.takeover()
            assert all(echoes(client) for client in clients[i::n])
            if i == 5:
                n_fds, n_stored, resident = measure()
        instance.wait_ready()
        instance.wait_n_processes(1)
        after = measure()
    # A parcel more or less, by the moment of the look; the sanitizers' memory is their own
    assert after[0] <= n_fds + 32
    assert after[1] <= n_stored + 16
    if not stages.has_sanitizer():
        assert after[2] <= resident + 1024


@pytest.mark.slow
@pytest.mark.parametrize("service", ["echo", "relay"])
def test_no_byte_is_lost_under_continuous_takeovers(stage, service):
    carry_streams_through_storm(stage, service, disturbances.taken_over, n_takeovers(100))


@pytest.mark.slow
@pytest.mark.parametrize("service", ["echo", "relay"])
def test_no_byte_is_lost_when_either_is_killed_in_a_takeover(stage, service):
    seed = random.SystemRandom().randrange(1 << 32)
    carry_streams_through_storm(stage, service, disturbances.KilledInTakeover(seed), n_takeovers(100))


def carry_streams_through_storm(stage, service, disturb, n):
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(stage.upstream())
        loop = stack.enter_context(streams.Loop())
        name = "echo" if service == "echo" else f"relay {upstream.address}"
        instance = stage.start(name)
        pumps = []
        for seed in range(60, 64):
            stream = streams.Stream(seed)
            expected = stream if service == "echo" else streams.reply_to(stream)
            pumps.append(loop.add(streams.Pump(instance.connect(), stream, expected)))
        for pump in pumps:
            loop.wait_received(pump, 1)
        with disturbances.Storm(instance, disturb=disturb) as storm:
            loop.wait(
                lambda: storm.has_reached(n) or any(p.error for p in pumps), 200
            )
        loop.finish(*pumps)
        loop.wait_done(*pumps)
        for pump in pumps:
            if service == "echo":
                assert pump.received_digest == pump.sent_digest
            else:
                other = upstream.pump_of(pump.outgoing)
                upstream.loop.wait_done(other)
                assert pump.sent_digest == other.received_digest
                assert other.sent_digest == pump.received_digest


@pytest.mark.slow
@pytest.mark.parametrize("disturb", [disturbances.taken_over, disturbances.restarted])
def test_whoever_connects_meanwhile_is_served(stage, disturb):
    """The listeners never refuse, and no connection falls between the two processes: in what
    is planned, no process ends with one that it has accepted but not put."""
    n = 2000
    instance = stage.start("echo", limit_nofile=20000)
    connections = []

    def connect_all():
        while len(connections) < n:
            connections.extend(instance.connect_many(50))

    thread = threading.Thread(target=connect_all)
    thread.start()
    n_disturbances = 0
    while thread.is_alive():
        disturb(instance)
        n_disturbances += 1
    thread.join()
    disturb(instance)
    assert len(connections) == n
    for connection in connections:
        assert echoes(connection)
        connection.close()
    assert n_disturbances > 0


# Old and new are not the same


@pytest.mark.stages("keeper")
def test_successor_has_another_number_of_threads(stage, program):
    instance = stage.start("echo", options=["--threads=1"], **program)
    path = instance.program_path()
    good = path.with_name("good") / "holdfastd"
    good.parent.mkdir()
    shutil.copy(path, good)
    with serving_stream(instance) as stream_goes_on, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(instance.connect()) for _ in range(20)]
        replace_program(path, script(f'exec {good} --threads=3 echo'))
        instance.takeover()
        assert instance.n_workers() == 3
        assert all(echoes(client) for client in clients)
        stream_goes_on()
        # It was started from another path, which is where the next one comes from
        replace_program(good, script(f'exec {stages.built_program("holdfastd")} --threads=1 echo'))
        instance.takeover()
        assert instance.n_workers() == 1
        assert all(echoes(client) for client in clients)
        stream_goes_on()
