# SPDX-License-Identifier: LGPL-2.1-or-later
"""The peers of the soak: a conversation acts as its plan says and checks every byte and end.

What must be, whatever happens to the service meanwhile:
- what a side receives is what the other one has sent, from its beginning and without a gap;
- an end is seen only where one was made, and behind the last byte;
- a reset is seen only where one was made, or a close with bytes unread;
- a service that logs says every line, in order; after a crash it may say one again.
"""

import collections
import errno
import itertools
import re
import select
import socket
import time

import stages
import streams
from positions import HEADER

LINE_SIZE = 64
N_DOTS = 32
LINE = re.compile(r"line: soak ([0-9a-f]{16}) (\d{8}) (\.*)$")
# Times that a client is refused between accept and put, in a row
REFUSED_MAX = 20
# A request that a dying process had in hand is made again after so long
ASK_AGAIN_SECONDS = 1


class Wrong(Exception):
    """What no peer may see."""


def was_reset(error):
    """A side that ends its direction just after it was reset finds no connection."""
    return streams.is_reset(error) or getattr(error, "errno", None) == errno.ENOTCONN


class Lines:
    """For a service that logs: a stream of lines, each of which tells its place."""

    def __init__(self, seed):
        self.seed = seed

    def read(self, position, n):
        first, skip = divmod(position, LINE_SIZE)
        last = (position + n + LINE_SIZE - 1) // LINE_SIZE
        text = b"".join(self._line(k) for k in range(first, last))
        return text[skip : skip + n]

    def _line(self, k):
        return f"soak {self.seed:016x} {k:08d} ".encode().ljust(LINE_SIZE - 1, b".") + b"\n"


class Peer(streams.Pump):
    """A pump that sends what it is allowed to, and a byte out of band where it is told to."""

    def __init__(self, sock, outgoing=None, incoming=None):
        super().__init__(sock, outgoing, incoming)
        self.is_unix = sock.family == socket.AF_UNIX
        self.n_allowed = 0
        self._urgent = collections.deque()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)

    # In the loop

    def allow(self, n):
        self.n_allowed += n

    def allow_urgent(self):
        self._urgent.append(self.n_allowed)
        self.n_allowed += 1

    def stop_sending(self):
        self.n_send = self.n_allowed

    def close_now(self):
        self.send_ended = self.receive_ended = True

    def end_when_peer_does(self):
        self.receiving = self.end_with_peer = True
        if self.receive_ended:
            super().stop_sending()

    def events(self):
        mask = super().events()
        if self.n_sent >= self.n_allowed and not self._has_sent_all():
            mask &= ~select.EPOLLOUT
        return mask

    def _n_next(self):
        bound = self._urgent[0] if self._urgent else self.n_allowed
        return min(streams.READ_SIZE, bound - self.n_sent)

    def _send(self):
        if self._urgent and self.n_sent == self._urgent[0]:
            byte = self.outgoing.read(self.n_sent, 1)
            self.sock.send(byte, socket.MSG_OOB)
            self._sent_hash.update(byte)
            self._urgent.popleft()
            self.n_sent += 1
        else:
            super()._send()


class Fars:
    """The server behind the relay: accepts, and tells by its first bytes whose far side it is."""

    def __init__(self, loop, listener):
        self.peers = []
        self.listener = listener
        loop.add_listener(listener, self._accept)

    def _accept(self, sock):
        self.peers.append(Peer(sock, incoming=streams.Pump.ANY))
        return self.peers[-1]

    def of(self, seed):
        return [p for p in self.peers if getattr(p.incoming, "seed", None) == seed]


class Conversation:
    """One connection, from its connect to its end.

    house   what all of them share: plan, instance, loop, fars, counts, ask()
    seed    of its streams; its own
    """

    def __init__(self, house, seed, acts):
        self._house = house
        self._loop = house.loop
        self._seed = seed
        self._acts = acts
        self._stream = streams.Stream(seed)
        self._name = None
        self._peers = {}

    @property
    def _service(self):
        return self._house.plan.service

    def run(self):
        self._open()
        for act in self._acts[:-1]:
            self._do(act)
            self._fail_if_lost()
        last = self._acts[-1]
        {
            "shut": self._end_in_order,
            "half": self._end_in_order,
            "close": self._end_abruptly,
            "reset": self._end_abruptly,
            "ctl-close": self._end_from_outside,
            "ctl-reset": self._end_from_outside,
        }[last.name](last)
        if self._service == "log":
            self._check_lines(last)
        for peer in self._peers.values():
            self._house.counts["bytes received"] += peer.n_received

    def describe(self):
        """For a person: where its sides are."""
        sides = [
            f"{side} sent {peer.n_sent} of {peer.n_allowed}"
            f"{' ended' if peer.send_ended else ''}, received {peer.n_received}"
            f"{' ended' if peer.receive_ended else ''} {peer.error or ''}"
            for side, peer in self._peers.items()
        ]
        return f"{self._name}: " + "; ".join(sides)

    # Its beginning

    def _open(self):
        for _ in range(REFUSED_MAX):
            client = self._connect()
            if client and self._is_served(client):
                self._house.counts["connections"] += 1
                return
            if client and not was_reset(client.error):
                raise Wrong(f"{client.error!r} at its beginning")
            if self._was_read():
                raise Wrong("reset at its beginning, but it was read from")
            self._house.note_refused()
        raise Wrong(f"refused {REFUSED_MAX} times")

    def _connect(self):
        """Returns its client, or None if that was reset so early."""
        try:
            sock = self._house.instance.connect(timeout=stages.PATIENCE_SECONDS)
        except OSError as error:
            if was_reset(error):
                return None
            raise
        self._name = sock.getsockname()
        client = self._make_client(sock)
        self._peers = {"client": client}
        self._call(client.allow, HEADER.size)
        return self._loop.add(client)

    def _make_client(self, sock):
        if self._service == "log":
            return Peer(sock, Lines(self._seed))
        expected = self._stream
        return Peer(
            sock,
            self._stream,
            streams.reply_to(expected) if self._service == "relay" else expected,
        )

    def _is_served(self, client):
        """Waits until its first bytes have got through; False if it was reset."""
        if self._service == "log":
            # The service reads, or resets, before another line is said
            self._call(client.allow, LINE_SIZE - HEADER.size)
            return self._wait_logged(1)
        if self._service == "echo":
            arrived = lambda: client.n_received >= HEADER.size
        else:
            arrived = lambda: self._house.fars.of(self._seed)
        self._wait(lambda: arrived() or client.is_done)
        if client.is_done:
            return False
        if self._service == "relay":
            self._peers["far"] = self._house.fars.of(self._seed)[0]
        return True

    def _was_read(self):
        return self._house.fars and self._house.fars.of(self._seed)

    # What it does

    def _call(self, method, *arguments):
        self._loop.call(lambda: method(*arguments))

    def _wait(self, predicate):
        self._loop.wait(
            lambda: self._house.has_failed() or predicate(), 2 * stages.PATIENCE_SECONDS
        )
        if self._house.has_failed():
            raise Wrong("another one has failed")

    def _fail_if_lost(self):
        for side, peer in self._peers.items():
            if peer.is_done or peer.receive_ended:
                raise Wrong(f"the {side} has lost its connection: {peer.error!r}")

    def _other(self, side):
        """The one that receives what side sends; in an echo, itself."""
        return self._peers.get("client" if side == "far" else "far", self._peers["client"])

    def _do(self, act):
        peer = self._peers[act.side]
        if act.name in ("send", "flood"):
            self._call(peer.allow, act.n)
        elif act.name == "urgent":
            self._call(peer.allow_urgent)
        elif act.name in ("pause", "resume"):
            self._loop.set_receiving(peer, act.name == "resume")
        elif act.name == "rest":
            time.sleep(act.n / 1000)  # the pause is the test's input
        else:
            self._await(act.side)

    def _await(self, side):
        peer = self._peers[side]
        if self._service == "log":
            self._wait(lambda: not self._has_to_send(peer) or peer.is_done)
            self._wait_logged(peer.n_allowed // LINE_SIZE)
            return
        source = self._other(side)
        self._loop.set_receiving(peer, True)
        self._wait(lambda: self._has_arrived(source, peer) or peer.is_done or source.is_done)

    @staticmethod
    def _has_to_send(peer):
        return peer.n_sent < peer.n_allowed

    def _has_arrived(self, source, peer):
        return not self._has_to_send(source) and peer.n_received == source.n_sent

    # Its end

    def _end_in_order(self, act):
        first, second = self._peers[act.side], self._other(act.side)
        self._loop.finish(first)
        time.sleep(act.msec / 1000)  # the pause is the test's input
        for peer in (first, second):
            self._loop.set_receiving(peer, True)
        if second is not first:
            self._wait(lambda: second.receive_ended or second.error or first.error)
            self._fail_at_error()
            if act.name == "half":
                self._call(second.allow, act.n)
            self._loop.finish(second)
        self._wait(lambda: all(p.is_done or p.error for p in (first, second)))
        self._fail_at_error()
        if self._service != "log":
            for one, other in ((first, second), (second, first)):
                if (one.n_sent, one.sent_digest) != (other.n_received, other.received_digest):
                    raise Wrong(f"sent {one.n_sent} bytes, received {other.n_received} of them")

    def _fail_at_error(self):
        for side, peer in self._peers.items():
            if peer.error:
                raise Wrong(f"an error at the {side}: {peer.error!r}")

    def _end_abruptly(self, act):
        peer, other = self._peers[act.side], self._other(act.side)
        self._call(peer.abort if act.name == "reset" else peer.close_now)
        self._wait(lambda: peer.is_done)
        if other is peer:
            return
        time.sleep(act.msec / 1000)  # the pause is the test's input
        self._call(other.end_when_peer_does)
        self._wait(lambda: other.is_done)
        self._check_end(other, peer, may_be_end=act.name == "close" or peer.is_unix)

    def _check_end(self, peer, source, may_be_end):
        """Of a connection whose other side has ended it abruptly."""
        if peer.error and not was_reset(peer.error):
            raise Wrong(f"{peer.error!r} at an abrupt end")
        # The kernel has no reset for a UNIX socket: it sees an end
        if peer.error or peer.is_unix:
            return
        if not may_be_end:
            raise Wrong("an end where the other side had reset")
        if peer.n_received != source.n_sent:
            raise Wrong(f"an end after {peer.n_received} of {source.n_sent} bytes")

    def _end_from_outside(self, act):
        peers = list(self._peers.values())
        for peer in peers:
            self._call(peer.end_when_peer_does)
        while not all(peer.is_done for peer in peers):
            self._close_from_outside(["--reset"] if act.name == "ctl-reset" else [])
            try:
                self._loop.wait(lambda: all(p.is_done for p in peers), ASK_AGAIN_SECONDS)
            except TimeoutError:
                self._house.fail_if_late()
        for peer in peers:
            if peer.error and not was_reset(peer.error):
                raise Wrong(f"{peer.error!r} after holdfastctl close")
            if act.name == "ctl-reset" and not peer.error and not peer.is_unix:
                raise Wrong("an end after holdfastctl close --reset")

    def _close_from_outside(self, options):
        name = "%s:%d" % self._name
        for row in self._house.ask_list():
            if row["peer"] == name and row["state"] != "closing":
                self._house.ask("close", *options, str(row["id"]))

    # What is logged of it

    def _wait_logged(self, n):
        """Waits until n whole lines are; False if the client was reset before."""
        client = self._peers["client"]
        while self._house.n_logged(self._seed) < n:
            if client.is_done:
                return False
            self._house.wait_log()
        return True

    def _check_lines(self, last):
        client = self._peers["client"]
        n_lines, n_tail = divmod(client.n_sent, LINE_SIZE)
        if last.name in ("shut", "half"):
            while self._house.n_logged(self._seed) < n_lines:
                self._house.wait_log()
        entries = self._house.log_of(self._seed)
        once = [text for text, _ in itertools.groupby(entries)]
        for i, (number, text) in enumerate(once):
            is_last = i == len(once) - 1
            if number != i or (len(text) != N_DOTS and not is_last):
                raise Wrong(f"entry {i} is {number}, {text!r}")
        if len(once) > n_lines + bool(n_tail):
            raise Wrong(f"{len(once)} entries of {n_lines} lines")
        self._house.counts["log entries repeated"] += len(entries) - len(once)
