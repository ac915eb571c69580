# SPDX-License-Identifier: LGPL-2.1-or-later
"""Relays between hostile peers: both sides reset at any stage, and upstreams flap.

Beside them is a good client, as in test_hostile. What comes of one such connection is
looked at in test_streams, test_ends and test_limits.
"""

import contextlib
import itertools
import socket
import struct
import threading
import time

import pytest

import disturbances
import stages
from hostile import Attacked, constant, read_exactly, read_to_end, reset
from questions import echoes, wait_until

# Resets


class Pair:
    """A client and what it has reached behind the relay, in some stage of their lives."""

    def __init__(self, client, server):
        self.sides = {"client": client, "upstream": server}
        for sock in self.sides.values():
            sock.settimeout(stages.PATIENCE_SECONDS)

    def bring_to(self, stage_of_life):
        """E.g. "client half-closed": it has; "upstream writing": its bytes are not read."""
        name, _, what = stage_of_life.partition(" ")
        if what == "writing":
            self.sides[name].sendall(b"unread")
        elif what == "half-closed":
            self.sides[name].sendall(b"unread")
            self.sides[name].shutdown(socket.SHUT_WR)
        else:
            self.sides[name].send(b"!", socket.MSG_OOB)

    def reset(self, name):
        reset(self.sides.pop(name))

    def check_survivor(self, stage_of_life, resetting):
        """It gets all that came before the reset, and then nothing goes any more."""
        (survivor,) = self.sides.values()
        wait_until(lambda: is_closed(survivor))
        name, _, what = stage_of_life.partition(" ")
        sent = b"!" if what == "urgent" else b"unread"
        assert drain(survivor) == (sent if name == resetting else b"")
        survivor.close()


def is_closed(sock):
    """Whether the kernel has done with it: tcpi_state is TCP_CLOSE."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == b"\x07"


def drain(sock):
    """What has arrived."""
    return read_to_end(sock)[0]


def pairs(attacked, listener, n):
    """n clients, each with its connection behind the relay."""
    clients = attacked.crowd(n)
    for i, client in enumerate(clients):
        client.sendall(struct.pack("!I", i))
    result = []
    for _ in clients:
        server, _ = listener.accept()
        (i,) = struct.unpack("!I", read_exactly(server, 4))
        result.append(Pair(clients[i], server))
    return result


def echo_first(listener):
    """Returns what the next one to connect sends, until it ends; for the good client."""

    def run():
        server, _ = listener.accept()
        with server:
            server.settimeout(None)
            while data := server.recv(65536):
                server.sendall(data)

    threading.Thread(target=run, name="echo", daemon=True).start()


@contextlib.contextmanager
def relayed(stage, options=()):
    """A listener, and a relay to it with a good client that is served; for no other yet."""
    with stage.network.listen() as listener:
        echo_first(listener)
        port = listener.getsockname()[1]
        with Attacked(stage, "relay", f"127.0.0.1:{port}", options) as attacked:
            yield listener, attacked


STAGES_OF_LIFE = [
    f"{side} {what}"
    for side in ("client", "upstream")
    for what in ("writing", "half-closed", "urgent")
]


@pytest.mark.stages("keeper")
@disturbances.each
def test_resets_at_every_stage(stage, disturb):
    """Each kind in tens, half of them before the disturbance, half of them after."""
    kinds = list(itertools.product(STAGES_OF_LIFE, ("client", "upstream"))) * 10
    with relayed(stage) as (listener, attacked):
        crowd = list(zip(pairs(attacked, listener, len(kinds)), kinds))
        for pair, (stage_of_life, _) in crowd:
            pair.bring_to(stage_of_life)
        attacked.serves()
        for half in (crowd[: len(kinds) // 2], crowd[len(kinds) // 2 :]):
            for pair, (_, resetting) in half:
                pair.reset(resetting)
            if half[0] is crowd[0]:
                attacked.disturb(disturb)
            attacked.serves()
            for pair, kind in half:
                pair.check_survivor(*kind)
        attacked.check_recovered()


# Upstreams


def ends_of(attacked, n, while_waiting=lambda: None):
    """How n clients end, each of whom sends a byte: for each whether a reset has ended it."""
    address = attacked.instance.address()

    def connect():
        found = {}
        for _ in range(n):
            client = socket.socket()
            client.settimeout(stages.PATIENCE_SECONDS)
            try:
                client.connect(address)
                client.send(b"1")
                found[client] = False
            except (ConnectionResetError, BrokenPipeError):
                found[client] = True
        return found

    clients = attacked.instance.stage.network.call(connect)
    while_waiting()
    ends = []
    for client, was_reset in clients.items():
        with client:
            ends.append(was_reset or read_to_end(client)[1])
    return ends


@contextlib.contextmanager
def accepting(listener, treat):
    """Does something to each that connects, until the end of the block."""
    kept = []
    listener.settimeout(None)

    def run():
        with contextlib.suppress(OSError):
            while True:
                kept.append(listener.accept()[0])
                treat(kept[-1])

    thread = threading.Thread(target=run, name="accepting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(stages.PATIENCE_SECONDS)
        for sock in kept:
            sock.close()


def close_in_order(sock):
    """Only what is read before it makes an end of a close, and no reset."""
    read_exactly(sock, 1)
    sock.close()


@contextlib.contextmanager
def blackhole(stage, address):
    """A full backlog, so that a SYN gets no answer."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(stage.network.listen(address, backlog=0))
        for _ in range(2):
            filler = stack.enter_context(stage.network.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield


@pytest.mark.stages("keeper")
@disturbances.each
def test_upstream_that_flaps(stage, disturb):
    """It has the port, or not, again and again; the good client had come before."""
    n = 100
    began = time.monotonic()
    with relayed(stage, ["--connect-timeout=1s"]) as (listener, attacked):
        address = listener.getsockname()
        listener.close()
        for turn in range(2):
            assert ends_of(attacked, n) == [True] * n
            attacked.serves()
            with stage.network.listen(address) as back, accepting(back, reset):
                assert ends_of(attacked, n) == [True] * n
            attacked.serves()
            with stage.network.listen(address) as back, accepting(back, close_in_order):
                assert ends_of(attacked, n) == [False] * n
            if turn == 0:
                with blackhole(stage, address):
                    ends = ends_of(attacked, n, lambda: attacked.disturb(disturb))
                    assert ends == [True] * n
            attacked.serves()
        attacked.check_idle()
        with stage.network.listen(address) as back, attacked.instance.connect() as client:
            echo_first(back)
            assert echoes(client)
            client.shutdown(socket.SHUT_WR)
            assert read_to_end(client) == (b"", False)
        attacked.check_recovered()
        said = [x for x in attacked.instance.lines() if "no address of the upstream" in x]
        # Now and then by each of two processes, and not of each of so many connections
        often = constant("holdfastd/services/relay.c", "SAY_EVERY_USEC")
        assert 1 <= len(said) <= 2 * (1 + (time.monotonic() - began) / often)
