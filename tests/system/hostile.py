# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hostile peers, and what they may cost the service that they meet.

What may be used follows from the limits that the sources name, read from there: so a bound
of a test is never another than the program's.
"""

import contextlib
import os
import re
import resource
import select
import socket
import struct
import sys
import threading
import time

import pytest

import openmetrics
import stages
from controlled import Controlled
from questions import echoes, wait_until

LINGER_ZERO = struct.pack("ii", 1, 0)

# Sockets of a connection, and as many flows, each of which may borrow a pipe
SIDES = {"log": 1, "echo": 1, "relay": 2}

# The span in which a busy loop would use all of a processor
IDLE_SECONDS = 0.4


def constant(header, name):
    """The number that a header, or a source, of the program defines."""
    text = (stages.source_directory() / "src" / header).read_text(encoding="utf-8")
    return int(re.search(rf"^#define {name} \(?(\d+)", text, re.MULTILINE)[1])


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    sock.close()


def _swap(path, text):
    """Writes text to the file; returns what was there."""
    with open(path, "r+", encoding="ascii") as file:
        old = file.read()
        file.seek(0)
        file.write(text)
    return old


@contextlib.contextmanager
def small_buffers(net):
    """Sockets made in the network from now on hold little, so that few bytes fill them."""
    if not net.is_private:
        pytest.skip("the buffers of sockets are those of all the host")
    sizes = {"tcp_wmem": "4096 16384 65536", "tcp_rmem": "4096 65536 65536"}
    paths = {f"/proc/sys/net/ipv4/{name}": text for name, text in sizes.items()}
    old = net.call(lambda: {path: _swap(path, text) for path, text in paths.items()})
    try:
        yield
    finally:
        net.call(lambda: [_swap(path, text) for path, text in old.items()])


class Attacked:
    """A service with one good client, whose peers to come may do what they like.

    A relay goes on to an echo, so that it returns what it gets, as the echo does.
    """

    def __init__(self, stage, service, upstream=None, options=(), **settings):
        self.sides = SIDES[service]
        self.upstream = None
        if service == "relay":
            if upstream is None:
                self.upstream = stage.start("echo", limit_nofile=20000)
                upstream = self.upstream.listen[0]
            service = f"relay {upstream}"
        settings.setdefault("limit_nofile", 20000)
        self.controlled = Controlled(
            stage, service, options=["--threads=2", *options], **settings
        )
        self.instance = self.controlled.instance
        self.good = None
        self._memory = 0
        self._pid = self.instance.main_pid()
        self._crowd = []

    def __enter__(self):
        self.good = self.instance.connect()
        if not self.instance.service.startswith("log"):
            self.serves()
        self._memory = self.resident_bytes()
        return self

    def __exit__(self, *_):
        self.good.close()
        self.disperse(self._crowd)

    # Peers

    def crowd(self, n, receive_buffer=None):
        """n connected sockets that don't block, closed in the end."""
        address = self.instance.address()

        def connect():
            for _ in range(n):
                sock = socket.socket()
                self._crowd.append(sock)
                if receive_buffer:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
                sock.settimeout(stages.PATIENCE_SECONDS)
                sock.connect(address)
                sock.setblocking(False)

        first = len(self._crowd)
        self.instance.stage.network.call(connect)
        return self._crowd[first:]

    @staticmethod
    def disperse(peers):
        """Every other one resets, the others close."""
        for i, sock in enumerate(peers):
            if sock.fileno() >= 0:
                (reset if i % 2 else socket.socket.close)(sock)

    def serves(self, n=30):
        """The good client gets its own bytes, n times in a row."""
        for i in range(n):
            assert echoes(self.good, b"%8d" % i)

    # Figures

    def metrics(self):
        families = openmetrics.parse(self.controlled.ask("metrics"))
        return {
            name.removeprefix("holdfast_"): next(iter(family.samples.values()))[0]
            for name, family in families.items()
        }

    def n_connections(self):
        return self.metrics()["connections"]

    def wait_connections(self, n):
        wait_until(lambda: self.n_connections() == n)

    def resident_bytes(self):
        pages = (self.instance.proc() / "statm").read_text(encoding="ascii").split()[1]
        return int(pages) * resource.getpagesize()

    def _cpu_seconds(self):
        fields = (self.instance.proc() / "stat").read_text(encoding="ascii")
        user, system = fields.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def check_idle(self):
        """Nothing can move now: then nothing is tried again and again."""
        before = self._cpu_seconds()
        # There is no event for what does not happen
        time.sleep(IDLE_SECONDS)
        assert self._cpu_seconds() - before < IDLE_SECONDS / 4

    def disturb(self, disturb):
        """Replaces the process: from now on the one that serves must stay."""
        assert self.instance.main_pid() == self._pid
        disturb(self.instance)
        # Connections are served before the control socket is
        self.instance.wait_ready()
        if not self.instance.service.startswith("log"):
            self.serves()
        self._pid = self.instance.wait_alone()

    def check_bounds(self, n):
        """What n connections may cost, whatever their peers do."""
        self._check_store(n)
        reserved = constant("holdfastd/capacity.c", "FILES_RESERVED")
        most = (reserved + n * 2 * self.sides) * 100 / 99
        most += 2 * self.metrics()["parcels"] + self._n_pipes_kept()
        assert self.instance.n_service_fds() <= most
        if not stages.has_sanitizer():
            # Bytes are in the kernel: a connection has no buffer, so less than a page
            grown = self.resident_bytes() - self._memory
            assert grown < (n + 256) * resource.getpagesize()

    def _n_pipes_kept(self):
        return self.instance.n_workers() * constant("vault/pipes.h", "PIPES_KEPT")

    def _check_store(self, n):
        metrics = self.metrics()
        assert metrics["pipes"] <= n * self.sides + self._n_pipes_kept()
        assert metrics["parcels"] <= self._n_parcels_max(n + metrics["pipes"])

    def _n_parcels_max(self, n_entries):
        """
        Those that are less than half full are merged, but for the one that was sealed last,
        which has until the next tick; and each packer has one in hand.
        """
        merged = constant("vault/parcel.h", "PARCEL_ENTRIES_MAX") // 2
        n_packers = self.instance.n_workers() + 1
        spares = n_packers + 1
        return n_entries / merged + 1 + n_packers + spares

    def check_recovered(self, n=1):
        """The hostile peers have gone: so has what they cost."""
        assert self.instance.main_pid() == self._pid
        self.wait_connections(n)
        if self.upstream:
            wait_until(lambda: self.upstream.n_service_fds() < 400)
        most = self._n_parcels_max(n + self._n_pipes_kept())
        wait_until(lambda: self.metrics()["parcels"] <= most)
        reserved = constant("holdfastd/capacity.c", "FILES_RESERVED")
        fds = reserved + n * 2 * self.sides + self._n_pipes_kept() + 2 * most
        wait_until(lambda: self.instance.n_service_fds() <= fds)
        self.serves()


class Flood:
    """Calls attack(i) for i = 0, 1, ... in a thread of the network, until the block's end."""

    def __init__(self, net, attack):
        self.n = 0
        self._attack = attack
        self._failure = None
        self._switch_interval = 0
        self._end = threading.Event()
        self._thread = threading.Thread(
            target=net.call, args=(self._run,), name="flood", daemon=True
        )

    def _run(self):
        try:
            while not self._end.is_set():
                self._attack(self.n)
                self.n += 1
        except BaseException as error:  # pylint: disable=broad-except
            self._failure = error

    def has_reached(self, n):
        if self._failure:
            raise self._failure
        return self.n >= n

    def __enter__(self):
        # Else what is measured is how this interpreter's threads wait for each other
        self._switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(0.0001)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join(stages.PATIENCE_SECONDS)
        sys.setswitchinterval(self._switch_interval)


def poll_all(peers, events, timeout_seconds):
    """Those of peers for which there are events now, or the first within that time."""
    with contextlib.closing(select.epoll()) as epoll:
        by_fd = {sock.fileno(): sock for sock in peers}
        for sock in peers:
            epoll.register(sock, events)
        return [by_fd[fd] for fd, _ in epoll.poll(timeout_seconds, len(peers) or 1)]


def read_exactly(sock, n):
    sock.settimeout(stages.PATIENCE_SECONDS)
    return sock.recv(n, socket.MSG_WAITALL)


def read_to_end(sock):
    """What arrives, and whether a reset ended it."""
    data = b""
    sock.settimeout(stages.PATIENCE_SECONDS)
    try:
        while chunk := sock.recv(65536):
            data += chunk
    except ConnectionResetError:
        return data, True
    return data, False
