# SPDX-License-Identifier: LGPL-2.1-or-later
"""How connections end: no end hangs, truncates, or looks like another."""

import contextlib
import select
import socket
import struct
import threading
import time

import pytest

import disturbances
import ledger
import stages
import streams
from questions import echoes, wait_until

MEGABYTE = 1 << 20
LINGER_ZERO = struct.pack("ii", 1, 0)


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    sock.close()


def echoes_or_is_reset(connection):
    """True if it was reset; false if it goes on. Fails if it ended in another way."""
    try:
        assert echoes(connection)
    except (ConnectionResetError, BrokenPipeError):
        return True
    return False


def n_connections(instance):
    with ledger.Ledger(instance) as records:
        return len(records.connections())


def accept(listener):
    listener.settimeout(stages.PATIENCE_SECONDS)
    connection, _ = listener.accept()
    connection.settimeout(stages.PATIENCE_SECONDS)
    return connection


def read_to_end(connection):
    """What arrives, and whether a reset ended it."""
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except ConnectionResetError:
        return data, True
    return data, False


def fill(sock):
    """Sends until nothing more goes."""
    sock.setblocking(False)
    n = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            n += sock.send(b"x" * 65536)
    return n


@disturbances.each
def test_client_that_resets_frees_an_upstream_that_is_writing(stage, disturb):
    """The upstream waits to write before it reads on: what it writes has to go somewhere."""
    listener = stage.network.listen()
    instance = stage.start(f"relay 127.0.0.1:{listener.getsockname()[1]}")
    with listener, instance.connect() as client:
        client.sendall(b"1")
        upstream = accept(listener)
        with upstream:
            assert upstream.recv(1) == b"1"
            result = []

            def serve():
                # A plain blocking echo, which reads only when it has written
                try:
                    while chunk := upstream.recv(65536):
                        upstream.sendall(chunk)
                except ConnectionError:
                    result.append("reset")

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            while fill(client):
                # Room comes as long as something moves
                if not select.select([], [client], [], 0.5)[1]:
                    break
            disturb(instance)
            reset(client)
            thread.join(stages.PATIENCE_SECONDS)
            assert result == ["reset"]
    wait_until(lambda: n_connections(instance) == 0)


@pytest.mark.parametrize("n", [200])
def test_reset_in_the_middle_of_bulk_leaves_nothing_behind(stage, n):
    """The reset may be met by a write, by a read, or by epoll."""
    with stage.upstream() as upstream, streams.Loop() as loop:
        instance = stage.start(f"relay {upstream.address}")
        for seed in range(n // 20):
            pumps = []
            for i in range(20):
                stream = streams.Stream(seed * 1000 + i)
                pumps.append(
                    loop.add(
                        streams.Pump(instance.connect(), stream, streams.reply_to(stream))
                    )
                )
            for pump in pumps:
                loop.wait_received(pump, 100_000)
            loop.abort(*pumps)
            loop.wait_ended(*pumps)
        upstream.loop.wait_ended(*upstream.pumps)
        assert all(streams.is_reset(pump.error) for pump in upstream.pumps)
        wait_until(lambda: n_connections(instance) == 0)


def test_unix_client_that_reads_no_more_ends_its_connection(stage):
    """Only a write can tell, and then there is no event any more."""
    listener = stage.network.listen()
    instance = stage.start(
        f"relay 127.0.0.1:{listener.getsockname()[1]}",
        listen=[stage.socket_path("reads-no-more")],
    )
    with listener, instance.connect() as client:
        client.sendall(b"1")
        with accept(listener) as upstream:
            assert upstream.recv(1) == b"1"
            client.shutdown(socket.SHUT_RD)
            client.sendall(b"2")
            assert upstream.recv(1) == b"2"
            upstream.sendall(b"for nobody")
            assert read_to_end(upstream) == (b"", True)
    wait_until(lambda: n_connections(instance) == 0)


@pytest.mark.parametrize("family", ["unix", "tcp"])
@disturbances.each
def test_client_that_writes_and_closes_at_once_is_heard(stage, disturb, family):
    with stage.upstream() as upstream:
        listen = [stage.socket_path(f"writes-{disturb.__name__}")] if family == "unix" else None
        instance = stage.start(f"relay {upstream.address}", listen=listen)
        # It sends in return what it gets: too late for a client that has closed
        for seed in range(20):
            with instance.connect() as client:
                client.sendall(streams.Stream(seed).read(0, 1000))
                if family == "tcp":
                    client.shutdown(socket.SHUT_WR)
                    upstream.pump_of(streams.Stream(seed))
            pump = upstream.pump_of(streams.Stream(seed))
            if seed == 10:
                disturb(instance)
            upstream.loop.wait(lambda one=pump: one.n_received == 1000 or one.is_done)
            assert pump.n_received == 1000


def test_reset_does_not_wait_for_a_side_that_is_gone_too(stage):
    listener = stage.network.listen()
    instance = stage.start(f"relay 127.0.0.1:{listener.getsockname()[1]}")
    with listener:
        client = instance.connect()
        client.sendall(b"1")
        upstream = accept(listener)
        # It never reads: what is sent to it stays
        fill(client)
        reset(client)
        reset(upstream)
        wait_until(lambda: n_connections(instance) == 0, 10)


@disturbances.each
def test_tail_of_an_ended_connection_still_arrives(stage, disturb):
    """Its slot is free and its sockets are closed; what is in the kernel goes on."""
    listener = stage.network.listen()
    instance = stage.start(f"relay 127.0.0.1:{listener.getsockname()[1]}")
    with listener, instance.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"1")
        upstream = accept(listener)
        data = streams.Stream(5).read(0, 100_000)
        upstream.sendall(data)
        upstream.shutdown(socket.SHUT_WR)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(upstream) == (b"1", False)
        upstream.close()
        wait_until(lambda: n_connections(instance) == 0)
        disturb(instance)
        client.settimeout(stages.PATIENCE_SECONDS)
        assert read_to_end(client) == (data, False)


def test_busy_log_connection_is_not_idle(stage):
    instance = stage.start("log", options=["--idle-timeout=3s"])
    with instance.connect() as client:
        for i in range(10):
            client.sendall(b"%d" % i)
            instance.wait_line(rf"val: \[{ord(str(i))} ")
            # Less than the timeout, again and again, and more than it in all
            assert not select.select([client], [], [], 0.4)[0]
        client.sendall(b"end")
        instance.wait_line(r"val: \[101 110 100 ")


def test_line_that_grows_is_not_idle(stage):
    """What waits for the line's end in the store has moved, too."""
    instance = stage.start("log", options=["--frame=line", "--idle-timeout=3s"])
    with instance.connect() as client:
        for _ in range(10):
            client.sendall(b".")
            assert not select.select([client], [], [], 0.4)[0]
        client.sendall(b"\n")
        instance.wait_line(r"line: \.{10}$")


@pytest.mark.stages("keeper")
def test_time_without_a_process_is_not_idle_time(stage):
    import test_streams  # pylint: disable=import-outside-toplevel

    instance = stage.start("echo", options=["--idle-timeout=1s"])
    with instance.connect() as client:
        assert echoes(client)
        with test_streams.service_down(instance):
            time.sleep(1.5)  # the pause is the test's input
            client.sendall(b"sent meanwhile")
        client.settimeout(stages.PATIENCE_SECONDS)
        assert client.recv(14, socket.MSG_WAITALL) == b"sent meanwhile"


# Damage that must look like what it is


def test_damaged_generation_is_a_reset_and_no_end(stage):
    instance = stage.start("echo")
    with instance.connect() as client:
        assert echoes(client)
        with ledger.Ledger(instance) as records:
            (base,) = records.connections()
            records.set(ledger.GENERATION, records.get(ledger.GENERATION, base) ^ 0x100, base)
            instance.kill()
        client.settimeout(stages.PATIENCE_SECONDS)
        assert read_to_end(client) == (b"", True)


def test_relay_that_forgot_that_it_was_connected_is_reset(stage):
    with stage.upstream() as upstream, streams.Loop() as loop:
        instance = stage.start(f"relay {upstream.address}")
        stream = streams.Stream(1)
        pump = streams.Pump(instance.connect(), stream, streams.reply_to(stream))
        loop.add(pump)
        loop.wait_received(pump, MEGABYTE)
        with ledger.Ledger(instance) as records:
            (base,) = records.connections()
            flags = records.get(ledger.FLAGS, base)
            records.set(ledger.FLAGS, flags & ~ledger.FLAG_CONNECTED, base)
            instance.kill()
        loop.wait_ended(pump)
        assert streams.is_reset(pump.error)
        upstream.loop.wait_ended(*upstream.pumps)


@pytest.mark.parametrize("n_used", [0, 1])
def test_damaged_number_of_slots_resets_what_is_beyond(stage, n_used):
    instance = stage.start("echo")
    connections = instance.connect_many(100)
    try:
        assert all(echoes(connection) for connection in connections)
        with ledger.Ledger(instance) as records:
            records.set(ledger.N_SLOTS_USED, n_used)
            instance.kill()
        instance.wait_ready()
        # The slots below the damaged number are as good as before
        assert sum(echoes_or_is_reset(connection) for connection in connections) >= 99
    finally:
        for connection in connections:
            connection.close()
    with instance.connect() as client:
        assert echoes(client)


# The store released


@pytest.mark.parametrize("service", ["echo", "relay"])
def test_stop_is_a_reset_and_no_end(stage, service):
    """What is cut off when the manager closes the store must not look like a whole."""
    with stage.upstream() as upstream, streams.Loop() as loop:
        relayed = service == "relay"
        instance = stage.start(f"relay {upstream.address}" if relayed else "echo")
        stream = streams.Stream(1)
        expected = streams.reply_to(stream) if relayed else stream
        pump = loop.add(streams.Pump(instance.connect(), stream, expected))
        with instance.connect() as idle:
            loop.wait_received(pump, MEGABYTE)
            instance.stop()
            loop.wait_ended(pump)
            assert streams.is_reset(pump.error), pump.error
            idle.settimeout(stages.PATIENCE_SECONDS)
            assert read_to_end(idle) == (b"", True)
        if relayed:
            upstream.loop.wait_ended(*upstream.pumps)
            assert all(streams.is_reset(one.error) for one in upstream.pumps)
