# SPDX-License-Identifier: LGPL-2.1-or-later
"""Streams through a service that is restarted or killed in their middle.

Every byte is checked against its position, in both directions, at both ends.
"""

import contextlib
import os
import signal
import socket
import time

import pytest

import disturbances
import stages
import streams

MEGABYTE = 1 << 20
N_BYTES = 24 * MEGABYTE
N_BEFORE = 4 * MEGABYTE
# What certainly doesn't fit into the buffers between a writer and a reader that has stopped
N_STUCK = 64 * MEGABYTE


def relay_through(stage, upstream, options=()):
    return stage.start(f"relay {upstream.address}", options=list(options))


def equal_streams(pump, other):
    """Both ends of a relay agree on both directions, by number and by hash."""
    assert (pump.n_sent, pump.sent_digest) == (other.n_received, other.received_digest)
    assert (other.n_sent, other.sent_digest) == (pump.n_received, pump.received_digest)


@disturbances.each
def test_echo_returns_each_byte_once_and_in_order(stage, disturb):
    instance = stage.start("echo")
    with streams.Loop() as loop:
        pump = streams.Pump(
            instance.connect(), streams.Stream(1), streams.Stream(1), n_send=N_BYTES
        )
        loop.add(pump)
        loop.wait_received(pump, N_BEFORE)
        disturb(instance)
        loop.wait_done(pump)
    assert pump.n_received == N_BYTES
    assert pump.received_digest == pump.sent_digest


def relay_disturbed(loop, upstream, instance, stream, disturb):
    """Both directions go on from before the disturbance until after it."""
    pump = streams.Pump(instance.connect(), stream, streams.reply_to(stream))
    loop.add(pump)
    loop.wait_received(pump, N_BEFORE)
    disturb(instance)
    loop.wait_received(pump, pump.n_received + N_BEFORE)
    loop.finish(pump)
    loop.wait_done(pump)
    other = upstream.pump_of(stream)
    upstream.loop.wait_done(other)
    equal_streams(pump, other)


@disturbances.each
def test_relay_carries_both_directions(stage, disturb):
    with stage.upstream() as upstream, streams.Loop() as loop:
        instance = relay_through(stage, upstream)
        stream = streams.Stream(2)
        relay_disturbed(loop, upstream, instance, stream, disturb)


@disturbances.each
def test_relay_reaches_an_upstream_of_another_family(stage, disturb):
    path = stage.socket_path(f"upstream-{disturb.__name__}")
    outside = str(stage.outside_path(path))
    with streams.Upstream(stage.network, outside) as upstream:
        # The service is a dynamic user, the upstream is root's
        os.chmod(outside, 0o666)
        instance = stage.start(f"relay {path}")
        stream = streams.Stream(3)
        with streams.Loop() as loop:
            relay_disturbed(loop, upstream, instance, stream, disturb)


@disturbances.each
def test_unix_clients_are_served(stage, disturb):
    instance = stage.start("echo", listen=[stage.socket_path("listener")])
    with streams.Loop() as loop:
        pump = streams.Pump(
            instance.connect(), streams.Stream(4), streams.Stream(4), n_send=N_BYTES
        )
        loop.add(pump)
        loop.wait_received(pump, N_BEFORE)
        disturb(instance)
        loop.wait_done(pump)
    assert pump.received_digest == pump.sent_digest


@disturbances.each
def test_client_that_has_half_closed_still_receives(stage, disturb):
    """The end of one direction is passed on, and is no end of the other."""

    def make_pump(connection):
        # Sends only after all of the client has arrived
        return streams.Pump(connection, streams.Stream(6), streams.Stream(5))

    with stage.upstream(make_pump=make_pump) as upstream, streams.Loop() as loop:
        instance = relay_through(stage, upstream)
        pump = streams.Pump(
            instance.connect(), streams.Stream(5), streams.Stream(6), n_send=MEGABYTE
        )
        loop.add(pump)
        upstream.loop.wait(lambda: upstream.pumps and upstream.pumps[0].receive_ended)
        assert not pump.is_done
        disturb(instance)
        loop.wait_received(pump, pump.n_received + N_BEFORE)
        upstream.loop.finish(upstream.pumps[0])
        loop.wait_done(pump)
        upstream.loop.wait_done(upstream.pumps[0])
        equal_streams(pump, upstream.pumps[0])


@disturbances.each
def test_upstream_that_has_half_closed_still_receives(stage, disturb):
    def make_pump(connection):
        return streams.Pump(connection, streams.Stream(8), streams.Stream(7), n_send=MEGABYTE)

    with stage.upstream(make_pump=make_pump) as upstream, streams.Loop() as loop:
        instance = relay_through(stage, upstream)
        pump = streams.Pump(instance.connect(), streams.Stream(7), streams.Stream(8))
        loop.add(pump)
        loop.wait(lambda: pump.receive_ended)
        assert not pump.is_done
        disturb(instance)
        other = upstream.pumps[0]
        upstream.loop.wait_received(other, other.n_received + N_BEFORE)
        loop.finish(pump)
        loop.wait_done(pump)
        upstream.loop.wait_done(other)
        equal_streams(pump, other)


@disturbances.each
def test_bytes_that_wait_for_a_slow_reader_are_kept(stage, disturb):
    """The pipe is full and both sockets are: nothing moves while the service is away."""
    with stage.upstream() as upstream, streams.Loop() as loop:
        instance = relay_through(stage, upstream)
        stream = streams.Stream(9)
        pump = streams.Pump(
            instance.connect(), stream, streams.reply_to(stream), n_send=N_STUCK
        )
        loop.add(pump)
        other = upstream.pump_of(stream)
        upstream.loop.set_receiving(other, False)
        wait_until_stuck(loop, pump)
        disturb(instance)
        upstream.loop.set_receiving(other, True)
        loop.wait_done(pump)
        upstream.loop.wait_done(other)
        equal_streams(pump, other)


def wait_until_stuck(loop, pump):
    """Until nothing could be sent for a while: there is no event for what doesn't happen."""
    seen = -1
    while seen != pump.n_sent:
        seen = pump.n_sent
        with contextlib.suppress(TimeoutError):
            loop.wait(lambda before=seen: pump.n_sent != before, timeout=0.3)


@disturbances.each
def test_reset_by_the_client_reaches_the_upstream(stage, disturb):
    with stage.upstream() as upstream, streams.Loop() as loop:
        instance = relay_through(stage, upstream)
        stream = streams.Stream(10)
        pump = streams.Pump(instance.connect(), stream, streams.reply_to(stream))
        loop.add(pump)
        loop.wait_received(pump, N_BEFORE)
        disturb(instance)
        loop.abort(pump)
        other = upstream.pump_of(stream)
        upstream.loop.wait_ended(other)
        assert streams.is_reset(other.error), other.error
        assert 0 < other.n_received <= pump.n_sent


@disturbances.each
def test_reset_by_the_upstream_reaches_the_client(stage, disturb):
    with stage.upstream() as upstream, streams.Loop() as loop:
        instance = relay_through(stage, upstream)
        stream = streams.Stream(11)
        pump = streams.Pump(instance.connect(), stream, streams.reply_to(stream))
        loop.add(pump)
        loop.wait_received(pump, N_BEFORE)
        disturb(instance)
        upstream.loop.abort(upstream.pump_of(stream))
        loop.wait_ended(pump)
        assert streams.is_reset(pump.error), pump.error


@disturbances.each
def test_bytes_before_a_reset_arrive_before_it(stage, disturb):
    """What the client has sent when it resets is delivered; only then comes the reset."""
    with stage.upstream() as upstream, streams.Loop() as loop:
        instance = relay_through(stage, upstream)
        stream = streams.Stream(12)
        pump = streams.Pump(
            instance.connect(), stream, streams.reply_to(stream), n_send=100_000
        )
        # It reads nothing, so that its end is a reset, and doesn't end its own direction
        pump.receiving = False
        loop.add(pump)
        other = upstream.pump_of(stream)
        upstream.loop.wait_received(other, 100_000)
        disturb(instance)
        loop.abort(pump)
        upstream.loop.wait_ended(other)
        assert other.n_received == 100_000


@pytest.mark.stages("keeper")
def test_client_that_ends_while_the_service_is_down(stage):
    """Its last bytes and its end wait in the socket, and that in the store."""
    with stage.upstream() as upstream:
        instance = relay_through(stage, upstream)
        stream = streams.Stream(13)
        with instance.connect() as client:
            client.sendall(stream.read(0, 1000))
            other = upstream.pump_of(stream)
            with service_down(instance):
                client.sendall(stream.read(1000, 500))
                client.shutdown(socket.SHUT_WR)
            client.settimeout(stages.PATIENCE_SECONDS)
            received = b""
            while chunk := client.recv(MEGABYTE):
                received += chunk
        upstream.loop.wait_done(other)
        assert other.n_received == 1500
        assert len(received) == other.n_sent
        streams.reply_to(stream).check(0, received)


@pytest.mark.stages("keeper")
def test_client_that_resets_while_the_service_is_down(stage):
    with stage.upstream() as upstream, streams.Loop() as loop:
        instance = relay_through(stage, upstream)
        stream = streams.Stream(14)
        pump = streams.Pump(instance.connect(), stream, streams.reply_to(stream))
        loop.add(pump)
        loop.wait_received(pump, N_BEFORE)
        other = upstream.pump_of(stream)
        with service_down(instance):
            loop.abort(pump)
            loop.wait_ended(pump)
        upstream.loop.wait_ended(other)
        assert streams.is_reset(other.error), other.error


@contextlib.contextmanager
def service_down(instance):
    """The service is dead, and its manager is kept from starting it again."""
    os.kill(instance.keeper_pid(), signal.SIGSTOP)
    try:
        outside = instance.processes()[0][0]
        os.kill(outside, signal.SIGKILL)
        wait_for_zombie(outside)
        yield
    finally:
        os.kill(instance.keeper_pid(), signal.SIGCONT)


def wait_for_zombie(pid):
    deadline = time.monotonic() + stages.PATIENCE_SECONDS
    while open(f"/proc/{pid}/stat", encoding="ascii").read().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        # Only its parent, which is stopped, is told of its end
        time.sleep(0.001)


@pytest.mark.slow
@pytest.mark.parametrize("service", ["echo", "relay"])
def test_no_byte_is_lost_under_continuous_kills(stage, service):
    """SIGKILL again and again, wherever it hits, under streams that never rest."""
    # A restart takes systemd some 100 ms, the keeper a few
    n_kills = 100 if stage.machine else 300
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(stage.upstream())
        loop = stack.enter_context(streams.Loop())
        name = "echo" if service == "echo" else f"relay {upstream.address}"
        instance = stage.start(name)
        pumps = []
        for seed in range(20, 24):
            stream = streams.Stream(seed)
            expected = stream if service == "echo" else streams.reply_to(stream)
            pumps.append(loop.add(streams.Pump(instance.connect(), stream, expected)))
        for pump in pumps:
            loop.wait_received(pump, 1)
        with disturbances.Storm(instance) as storm:
            loop.wait(lambda: storm.has_reached(n_kills) or any(p.error for p in pumps), 200)
        loop.finish(*pumps)
        loop.wait_done(*pumps)
        for pump in pumps:
            if service == "echo":
                assert pump.received_digest == pump.sent_digest
            else:
                other = upstream.pump_of(pump.outgoing)
                upstream.loop.wait_done(other)
                equal_streams(pump, other)
        # Each process leaves a parcel or two behind; they must not add up
        instance.wait_ready()
        assert instance.n_stored_fds() < 40


def test_restart_with_another_number_of_threads(stage):
    """Of so many connections that the new process takes them up in several threads."""
    instance = stage.start("echo", options=["--threads=1"])
    with streams.Loop() as loop:
        pumps = [
            loop.add(
                streams.Pump(connection, streams.Stream(seed), streams.Stream(seed))
            )
            for seed, connection in enumerate(instance.connect_many(20))
        ]
        for n_threads in (4, 2, 1):
            for pump in pumps:
                loop.wait_received(pump, pump.n_received + 1000)
            instance.restart(options=[f"--threads={n_threads}"])
        loop.finish(*pumps)
        loop.wait_done(*pumps)
        assert all(pump.received_digest == pump.sent_digest for pump in pumps)


@pytest.mark.slow
def test_nine_thousand_connections_live_through_all_of_it(stage):
    n = 9000
    instance = stage.start("echo", limit_nofile=20000)
    with streams.Loop() as loop:
        pumps = [
            streams.Pump(connection, streams.Stream(i), streams.Stream(i), n_send=200)
            for i, connection in enumerate(instance.connect_many(n, timeout=60))
        ]
        # A byte each way shows that a connection is served, before, between and after
        sockets = [pump.sock for pump in pumps]
        for disturb in (
            disturbances.taken_over,
            disturbances.restarted,
            disturbances.taken_over,
            disturbances.killed,
        ):
            exchange(sockets)
            disturb(instance)
            if stage.machine:
                stage.machine.systemctl("daemon-reload")
                stage.machine.systemctl("daemon-reexec")
        exchange(sockets)
        for pump in pumps:
            loop.add(pump)
        loop.wait_done(*pumps, timeout=120)
        assert all(pump.n_received == 200 for pump in pumps)


def exchange(sockets):
    for sock in sockets:
        sock.setblocking(True)
        sock.settimeout(stages.PATIENCE_SECONDS)
        sock.sendall(b"x")
    for sock in sockets:
        assert sock.recv(1) == b"x"
        sock.setblocking(False)
