# SPDX-License-Identifier: LGPL-2.1-or-later
"""What comes back from the store is input: damage costs connections, never the service."""

import contextlib
import random
import signal
import socket

import pytest

import ledger
import stages
import streams
from questions import echoes, wait_until


def is_reset(connection):
    connection.settimeout(stages.PATIENCE_SECONDS)
    try:
        return connection.recv(1) is None
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "field, value, line",
    [
        (ledger.MAGIC, 1, "ledger is damaged"),
        (ledger.VERSION, 0, "ledger is damaged"),
        (ledger.SLOT_SIZE_FIELD, 64, "ledger is damaged"),
        (ledger.N_SLOTS_USED, 1 << 30, "ledger is damaged"),
        (ledger.MIN_READER, 99, "from a newer version that this one can't read"),
    ],
)
def test_ledger_that_can_not_be_used_resets_its_connections(stage, field, value, line):
    instance = stage.start("echo")
    with instance.connect() as connection:
        assert echoes(connection)
        with ledger.Ledger(instance) as damaged:
            if field == ledger.MIN_READER:
                damaged.set(ledger.VERSION, 99)
            damaged.set(field, value)
            instance.kill()
        assert is_reset(connection)
    instance.wait_line(line)
    with instance.connect() as connection:
        assert echoes(connection)
        instance.restart()
        assert echoes(connection)
    assert instance.n_stored_fds() < 16


def test_newer_ledger_that_can_still_be_read_is_adopted(stage):
    instance = stage.start("echo")
    with instance.connect() as connection:
        assert echoes(connection)
        with ledger.Ledger(instance) as newer:
            newer.set(ledger.VERSION, 2)
            instance.kill()
        assert echoes(connection)


@pytest.mark.damages
@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_cost_no_more_than_connections(stage, seed):
    """Each goes on exactly or is reset; the service lives, and serves new ones."""
    chance = random.Random(seed)
    instance = stage.start("echo")
    with streams.Loop() as loop:
        pumps = [
            loop.add(streams.Pump(connection, streams.Stream(i), streams.Stream(i)))
            for i, connection in enumerate(instance.connect_many(20))
        ]
        for pump in pumps:
            loop.wait_received(pump, 1000)
        with ledger.Ledger(instance) as damaged:
            bases = damaged.connections()
            assert len(bases) == 20
            for _ in range(12):
                base = chance.choice(bases)
                damaged.flip(base + chance.randrange(ledger.SLOT_SIZE), chance.randrange(8))
            instance.kill()
        instance.wait_ready()
        loop.finish(*pumps)
        loop.wait_ended(*pumps)
    for pump in pumps:
        if pump.error is None:
            assert pump.received_digest == pump.sent_digest
        else:
            assert streams.is_reset(pump.error), pump.error
    assert sum(pump.error is None for pump in pumps) >= 8
    with instance.connect() as connection:
        assert echoes(connection)


# Crashes


def stop(instance):
    """All threads of the service stand still when this returns."""
    instance.kill(signal.SIGSTOP, wait=False)
    tasks = instance.proc() / "task"
    wait_until(
        lambda: all(
            "State:\tT" in (task / "status").read_text("utf-8") for task in tasks.iterdir()
        )
    )


def crash_with_in_hand(instance, base):
    """As the crash handler of a worker that was handling this connection would leave it."""
    stop(instance)  # for a worker may yet be at it, and say that it is done
    with ledger.Ledger(instance) as crashed:
        crashed.set(ledger.CRASH_SIGNAL, signal.SIGSEGV)
        crashed.set(ledger.CRASH_WORKER, 1)
        crashed.set(ledger.IN_HAND, crashed.reference(base))
        instance.kill()
    instance.wait_ready()


def test_connection_in_hand_at_three_crashes_is_quarantined(stage):
    """It would crash the next process too; its neighbour goes on."""
    instance = stage.start("echo", options=["--threads=1"])
    with instance.connect() as poisonous, instance.connect() as neighbour:
        assert echoes(poisonous) and echoes(neighbour)
        with ledger.Ledger(instance) as records:
            base = min(records.connections(), key=lambda base: records.get(ledger.ID, base))
        for _ in range(2):
            crash_with_in_hand(instance, base)
            assert echoes(poisonous) and echoes(neighbour)
        crash_with_in_hand(instance, base)
        assert is_reset(poisonous)
        instance.wait_line("Connection 1 was being handled at 3 crashes in a row: it was reset")
        assert echoes(neighbour)


def test_crashes_in_a_row_must_be_in_a_row(stage):
    instance = stage.start("echo", options=["--threads=1"])
    with contextlib.ExitStack() as stack:
        first, second = (stack.enter_context(instance.connect()) for _ in range(2))
        assert echoes(first) and echoes(second)
        with ledger.Ledger(instance) as records:
            bases = records.connections()
        for base in (bases[0], bases[0], bases[1], bases[0], bases[0]):
            crash_with_in_hand(instance, base)
        assert echoes(first) and echoes(second)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_crash_is_told_by_the_next_process_and_loses_nothing(stage, number):
    instance = stage.start("echo")
    with instance.connect() as connection:
        assert echoes(connection)
        instance.kill(number)
        assert echoes(connection)
    instance.wait_line(r"The last process crashed \((Segmentation fault|Aborted)\); 1 in a row")


def test_kills_are_no_crashes(stage):
    instance = stage.start("echo")
    with instance.connect() as connection:
        assert echoes(connection)
        for _ in range(3):
            instance.kill()
            assert echoes(connection)
    assert not [line for line in instance.lines() if "crashed" in line]
