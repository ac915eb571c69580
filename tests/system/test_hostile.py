# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hostile peers by the thousand: they cost what the limits allow, and nobody else anything.

Beside them all is a good client, which has to get its own bytes while they are there; and
they find a service that is replaced in the middle. What comes of one such peer is looked at
in test_streams, test_ends and test_limits.
"""

import contextlib
import os
import resource
import select
import socket
import struct
import subprocess
import time

import pytest

import disturbances
import stages
import streams
from hostile import (
    Attacked,
    Flood,
    constant,
    poll_all,
    read_exactly,
    read_to_end,
    reset,
    small_buffers,
)
from questions import echoes, wait_until

# How many peers are hostile at once
MANY = 2000
SOME = 300

SERVICES = ("echo", "relay")

each_service = pytest.mark.parametrize("service", SERVICES)
killed = pytest.mark.parametrize(
    "disturb",
    [disturbances.undisturbed, disturbances.killed],
    ids=lambda function: function.__name__,
)
some = pytest.mark.parametrize(
    "disturb",
    [disturbances.undisturbed, disturbances.killed, disturbances.taken_over],
    ids=lambda function: function.__name__,
)


def many(stage):
    """Under systemd it is about users' limits, not about numbers."""
    return MANY if not stage.machine else SOME


# Slow and deaf


@each_service
@some
def test_byte_at_a_time(stage, service, disturb):
    """Each third byte is urgent, too."""
    n = many(stage)
    with Attacked(stage, service) as attacked:
        crowd = attacked.crowd(n)
        for turn in range(6):
            if turn == 3:
                attacked.disturb(disturb)
            for i, sock in enumerate(crowd):
                urgent = socket.MSG_OOB if (i + turn) % 3 == 0 else 0
                assert sock.send(bytes([(i + turn) % 251]), urgent) == 1
            attacked.serves()
            for i, sock in enumerate(crowd):
                assert read_exactly(sock, 1) == bytes([(i + turn) % 251])
        assert attacked.n_connections() == n + 1
        attacked.check_bounds(n + 1)
        attacked.check_idle()
        attacked.disperse(crowd)
        attacked.check_recovered()


def fill(peers, data):
    """Each sends of data until nothing more goes; returns how much each has sent."""
    n_sent = dict.fromkeys(peers, 0)
    going = list(peers)
    while ready := poll_all(going, select.EPOLLOUT, 1):
        for sock in ready:
            with contextlib.suppress(BlockingIOError):
                n_sent[sock] += sock.send(data[n_sent[sock] :])
        going = [sock for sock in going if n_sent[sock] < len(data)]
    return n_sent


@pytest.mark.stages("keeper")
@each_service
@some
def test_peers_that_never_read(stage, service, disturb):
    """What they have sent stays in the kernel, and is exact for who reads it after all."""
    n = SOME
    stream = streams.Stream(7)
    data = stream.read(0, 4 << 20)
    with contextlib.ExitStack() as stack:
        stack.enter_context(small_buffers(stage.network))
        attacked = stack.enter_context(Attacked(stage, service))
        crowd = attacked.crowd(n, receive_buffer=4096)
        n_sent = fill(crowd, data)
        assert all(65536 < n < len(data) for n in n_sent.values())
        for turn in range(2):
            # All of them hold a pipe, and can do nothing about it
            assert attacked.metrics()["pipes"] >= n * attacked.sides
            attacked.check_idle()
            attacked.serves()
            attacked.check_bounds(n + 1)
            if turn == 0:
                attacked.disturb(disturb)
        for sock in crowd[:20]:
            sock.shutdown(socket.SHUT_WR)
        for sock in crowd[:20]:
            received, was_reset = read_to_end(sock)
            assert (len(received), was_reset) == (n_sent[sock], False)
            stream.check(0, received)
        attacked.disperse(crowd)
        attacked.check_recovered()


@pytest.mark.stages("keeper")
@pytest.mark.parametrize("disturb", [disturbances.killed])
def test_peers_that_never_send_and_never_close(stage, disturb):
    """They are let go after --idle-timeout=; who is not idle stays."""
    n = many(stage)
    with Attacked(stage, "relay", options=["--idle-timeout=10s"]) as attacked:
        left = attacked.crowd(n)
        attacked.serves()
        wait_until(lambda: attacked.metrics()["accepted_connections"] == n + 1)
        attacked.check_bounds(n + 1)
        attacked.disturb(disturb)
        while left:
            attacked.serves(1)
            ended = set(poll_all(left, select.EPOLLIN | select.EPOLLHUP, 0))
            assert all(read_to_end(sock) == (b"", True) for sock in ended)
            left = [sock for sock in left if sock not in ended]
        attacked.check_recovered()


@pytest.mark.stages("keeper")
def test_who_waits_for_a_pipe_is_not_idle(stage):
    """Peers that do not read have all that there are: it is they who are reset."""
    n = 12
    with contextlib.ExitStack() as stack:
        stack.enter_context(small_buffers(stage.network))
        attacked = stack.enter_context(
            Attacked(stage, "echo", options=["--idle-timeout=5s", "--threads=1"])
        )
        # Its time is the first to pass
        attacked.serves(1)
        crowd = attacked.crowd(n, receive_buffer=4096)
        attacked.wait_connections(n + 1)
        pid = attacked.instance.main_pid()
        n_files = 1 + max(int(fd) for fd in os.listdir(f"/proc/{pid}/fd"))
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (n_files, hard))
        fill(crowd, streams.Stream(7).read(0, 4 << 20))
        attacked.good.sendall(b"1234")
        attacked.instance.wait_line("No pipe can be made for a connection's bytes")
        assert read_exactly(attacked.good, 4) == b"1234"
        assert all(read_to_end(sock)[1] for sock in crowd)


@some
def test_unfinished_lines_by_the_hundred(stage, disturb):
    """Each waits in a pipe of its own while it comes byte by byte."""
    n = SOME
    attacked = Attacked(stage, "log", options=["--frame=line"])
    instance = attacked.instance
    with attacked:
        crowd = attacked.crowd(n)
        for turn in range(4):
            for i, sock in enumerate(crowd):
                sock.send(b"%04d" % i if turn == 0 else b"-")
            if turn == 2:
                attacked.disturb(disturb)
            attacked.good.sendall(b"good %d\n" % turn)
            instance.wait_line(rf"line: good {turn}$")
        attacked.check_idle()
        attacked.check_bounds(n + 1)
        for sock in crowd[::2]:
            sock.send(b"\n")
        for sock in crowd[1::2]:
            sock.shutdown(socket.SHUT_WR)
        found = instance.wait_lines(r"line: (\d{4})---$", n)
        assert sorted(int(match[1]) for match in found) == list(range(n))
        attacked.disperse(crowd)
        attacked.wait_connections(1)


# Floods

IS_LIMIT = "connections are served, which is the limit (--connections-max=)"


def rude(address, i):
    """One of the ways to come and to go, at any moment that it likes."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError, BlockingIOError):
        sock = socket.socket()
        try:
            if i % 7 == 0:
                # Not even waited for
                sock.setblocking(False)
                sock.connect_ex(address)
            else:
                sock.settimeout(stages.PATIENCE_SECONDS)
                sock.connect(address)
            if i % 3 == 1:
                sock.send(b"1234")
            if i % 5 == 1:
                sock.send(b"!", socket.MSG_OOB)
            if i % 11 == 1:
                sock.shutdown(socket.SHUT_WR)
        finally:
            (reset if i % 2 else socket.socket.close)(sock)


@pytest.mark.stages("keeper")
@each_service
@killed
def test_connect_flood(stage, service, disturb):
    n = many(stage)
    with Attacked(stage, service) as attacked:
        address = attacked.instance.address()
        with Flood(stage.network, lambda i: rude(address, i)) as flood:
            while not flood.has_reached(n // 2):
                attacked.serves(2)
            attacked.disturb(disturb)
            served_at = flood.n
            while not flood.has_reached(served_at + n // 2):
                attacked.serves(2)
                # A new one is as good
                with attacked.instance.connect() as another:
                    assert echoes(another)
        attacked.check_recovered()
        attacked.check_bounds(1)
        attacked.check_idle()


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def syn(source, source_port, port):
    """A packet that opens a connection in another's name; RFC 791 and 9293."""
    addresses = socket.inet_aton(source) + socket.inet_aton("127.0.0.1")
    fields = [source_port, port, 1, 0, 5 << 4, 0x02, 65535, 0, 0]
    pseudo = addresses + struct.pack("!BBH", 0, socket.IPPROTO_TCP, 20)
    fields[7] = checksum(pseudo + struct.pack("!HHIIBBHHH", *fields))
    # The kernel fills the length, the id and the checksum in
    header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0)
    return header + addresses + struct.pack("!HHIIBBHHH", *fields)


def n_half_open(stage, port):
    command = ["ss", "-tnH", "state", "syn-recv", f"sport = :{port}"]
    result = subprocess.run(
        stage.network.command(command), capture_output=True, text=True, check=True
    )
    return result.stdout.count("\n")


@pytest.mark.stages("keeper")
@killed
def test_half_open_flood(stage, disturb):
    """Whoever opens connections in the name of others, who never answer."""
    if not stage.network.is_private:
        pytest.skip("packets of others' are for a network that nobody else is in")
    n, batch = 8000, 1000
    # What is sent to those others goes nowhere
    route = ["ip", "route", "replace", "198.18.0.0/15", "dev", "lo"]
    subprocess.run(stage.network.command(route), check=True)
    with Attacked(stage, "echo") as attacked:
        host, port = attacked.instance.address()
        sender = stage.network.call(
            lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        )
        with sender:
            for i in range(n):
                sender.sendto(syn(f"198.18.{i >> 8}.{i & 255}", 1024 + i, port), (host, 0))
                if i % batch == 0:
                    attacked.serves()
                if i == n // 2:
                    assert n_half_open(stage, port) > batch
                    attacked.disturb(disturb)
        assert n_half_open(stage, port) > batch
        attacked.check_idle()
        # Also who comes now, with the queue full of the others
        with attacked.instance.connect() as another:
            assert echoes(another)
            assert attacked.metrics()["accepted_connections"] == 2
        attacked.check_bounds(2)
        attacked.check_recovered()


@some
@pytest.mark.parametrize(
    "limit",
    [{"options": ["--connections-max=100"]}, {"limit_nofile": 300}],
    ids=["connections", "files"],
)
def test_flood_beyond_a_limit(stage, disturb, limit):
    """Those for whom there is no room wait, at no cost, and are served when there is."""
    n = min(many(stage), 1000)
    began = time.monotonic()
    with Attacked(stage, "echo", **limit) as attacked:
        crowd = attacked.crowd(n)
        for i, sock in enumerate(crowd):
            sock.send(b"%04d" % i)
        n_most = attacked.metrics()["connections_max"]
        assert n_most < n / 2
        for _ in range(2):
            attacked.wait_connections(n_most)
            attacked.check_idle()
            attacked.serves()
            attacked.check_bounds(n_most)
            attacked.disturb(disturb)
        n_reset = 0
        for i, sock in enumerate(crowd):
            try:
                assert read_exactly(sock, 4) == b"%04d" % i
            except ConnectionResetError:
                n_reset += 1
            sock.close()
        attacked.check_recovered()
        if n_reset:
            # Files that are parked count against a user's limit until they are swept
            assert stage.machine and "limit_nofile" in limit
            attacked.instance.wait_line("too many files parked: raise LimitNOFILE=")
        said = [line for line in attacked.instance.lines() if IS_LIMIT in line]
        assert said
        # Once by each process that has met it, and again after a while
        quiet = constant("holdfastd/worker.h", "LIMIT_QUIET_USEC")
        n_processes = 1 if disturb is disturbances.undisturbed else 3
        assert len(said) <= n_processes + (time.monotonic() - began) / quiet
