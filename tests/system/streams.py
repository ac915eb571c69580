# SPDX-License-Identifier: LGPL-2.1-or-later
"""Streams in which every byte is checked against its position, and what pumps them.

A Stream gives the byte at any position from a seed. So the receiver needs no copy of what was
sent, and a byte that is missing, repeated or out of place is found where it happened.

A Pump is one socket with a stream in each direction. A Loop is a thread that drives any number
of pumps with epoll, so one test can hold thousands of connections. An Upstream is the server
behind a relay: it learns from a stream's first bytes which one it is.

    with Loop() as loop:
        pump = loop.add(Pump(instance.connect(), Stream(1), Stream(1), n_send=10 << 20))
        loop.wait_received(pump, 5 << 20)
        instance.restart()
        loop.wait_done(pump)
"""

import errno
import hashlib
import os
import select
import socket
import struct
import threading
import time

import network
from patience import PATIENCE_SECONDS
from positions import BLOCK_SIZE, HEADER, Stream, StreamError

__all__ = (
    "BLOCK_SIZE",
    "HEADER",
    "Loop",
    "Pump",
    "Stream",
    "StreamError",
    "Upstream",
    "is_reset",
    "reply_to",
)

READ_SIZE = 256 * 1024
# How often a wait looks, should nothing move
TRY_AGAIN_SECONDS = 0.1


class Pump:
    """One socket, with a stream sent and a stream received and checked at the same time.

    sock        connected; the pump owns it from now on
    outgoing    the Stream to send, or None to send nothing
    incoming    the Stream to expect; None to expect an end with no byte before it; or
                Pump.ANY: the one that the first bytes name
    n_send      how many bytes to send before the half-close; None: until finish() is called
    end_with_peer  when the incoming stream ends, stop sending too

    It is done when both directions have ended, or with an error: a StreamError, or the
    OSError of a reset. Its Loop closes the socket then.
    """

    ANY = object()

    def __init__(self, sock, outgoing=None, incoming=None, n_send=None, end_with_peer=False):
        sock.setblocking(False)
        self.sock = sock
        self.outgoing = outgoing
        self.incoming = incoming
        self.n_send = 0 if outgoing is None and incoming is not Pump.ANY else n_send
        self.end_with_peer = end_with_peer
        self.receiving = True
        self.n_sent = 0
        self.n_received = 0
        self.send_ended = False
        self.receive_ended = False
        self.error = None
        self._sent_hash = hashlib.sha256()
        self._received_hash = hashlib.sha256()
        self._chunk = memoryview(b"")
        self._first_bytes = b""

    @property
    def is_done(self):
        return self.error is not None or (self.send_ended and self.receive_ended)

    @property
    def sent_digest(self):
        """The SHA-256 of what was sent; to compare with the other side's received_digest."""
        return self._sent_hash.hexdigest()

    @property
    def received_digest(self):
        return self._received_hash.hexdigest()

    def events(self):
        """What to wait for, from the state alone: a mask for epoll."""
        mask = 0
        if self.is_done:
            return mask
        if self.receiving and not self.receive_ended:
            mask |= select.EPOLLIN
        if not self.send_ended and (self.outgoing or self._has_sent_all()):
            mask |= select.EPOLLOUT
        return mask

    def _has_sent_all(self):
        return self.n_send is not None and self.n_sent >= self.n_send

    def handle(self, mask):
        """Does what the events of mask allow."""
        try:
            if mask & select.EPOLLERR:
                self._raise_socket_error()
            if mask & (select.EPOLLIN | select.EPOLLHUP) and not self.receive_ended:
                self._receive()
            if mask & select.EPOLLOUT and not self.send_ended:
                self._send()
        except BlockingIOError:
            pass
        except (OSError, StreamError) as error:
            self.error = error

    def _raise_socket_error(self):
        number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))

    def _receive(self):
        data = self.sock.recv(READ_SIZE)
        if not data:
            self._end_receiving()
            return
        if self.incoming is Pump.ANY:
            data = self._find_stream(self._first_bytes + data)
        if data:
            self._check(data)

    def _check(self, data):
        if self.incoming is None:
            raise StreamError(f"{len(data)} bytes received where none are expected")
        self.incoming.check(self.n_received, data)
        self._received_hash.update(data)
        self.n_received += len(data)

    def _find_stream(self, data):
        """Keeps data back until it is long enough to name the stream."""
        if len(data) < HEADER.size:
            self._first_bytes = data
            return b""
        self.incoming = Stream.of_header(data)
        self.outgoing = reply_to(self.incoming)
        return data

    def _end_receiving(self):
        self.receive_ended = True
        if self.end_with_peer:
            self.n_send = self.n_sent + len(self._chunk)

    def _send(self):
        if not self._chunk and not self._has_sent_all():
            self._chunk = memoryview(self.outgoing.read(self.n_sent, self._n_next()))
        if self._chunk:
            n = self.sock.send(self._chunk)
            self._sent_hash.update(self._chunk[:n])
            self._chunk = self._chunk[n:]
            self.n_sent += n
        if not self._chunk and self._has_sent_all():
            self.sock.shutdown(socket.SHUT_WR)
            self.send_ended = True

    def _n_next(self):
        if self.n_send is None:
            return READ_SIZE
        return min(READ_SIZE, self.n_send - self.n_sent)

    def abort(self):
        """Makes the close send a reset. Loop.abort() calls it, in the loop."""
        linger_zero = struct.pack("ii", 1, 0)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_zero)
        self.send_ended = True
        self.receive_ended = True

    def stop_sending(self):
        """Half-closes after what is on its way. Loop.finish() calls it, in the loop."""
        if not self.send_ended:
            self.n_send = self.n_sent + len(self._chunk)


def reply_to(stream):
    """The stream with which an Upstream answers stream."""
    return Stream(stream.seed ^ (1 << 63))


class Loop:
    """A thread that drives pumps. Its methods may be called from any thread."""

    def __init__(self):
        self._epoll = select.epoll()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake_fd, select.EPOLLIN)
        self._pumps = {}
        self._masks = {}
        self._listeners = {}
        self._calls = []
        self._ending = False
        self._failure = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="pumps", daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # What tests call

    def add(self, pump):
        """Drives pump from now on. Returns it."""
        self.call(lambda: self._add(pump))
        return pump

    def add_listener(self, listener, make_pump):
        """Accepts from listener; make_pump(socket) returns each connection's pump."""
        listener.setblocking(False)

        def register():
            self._listeners[listener.fileno()] = (listener, make_pump)
            self._epoll.register(listener, select.EPOLLIN)

        self.call(register)

    def remove_listener(self, listener):
        """Accepts no more from listener, which is the caller's again."""

        def unregister():
            if self._listeners.pop(listener.fileno(), None):
                self._epoll.unregister(listener)

        self.call(unregister)

    def finish(self, *pumps):
        """Lets pumps that send without end come to theirs."""
        self.call(lambda: [pump.stop_sending() for pump in pumps])

    def abort(self, *pumps):
        """Resets the connections of pumps."""
        self.call(lambda: [pump.abort() for pump in pumps if not pump.is_done])

    def set_receiving(self, pump, receiving):
        """Makes pump stop reading (its peer then meets a full window), or go on."""

        def change():
            pump.receiving = receiving

        self.call(change)

    def call(self, function):
        """Runs function in the loop, and then looks anew at what each pump waits for."""
        with self._changed:
            self._calls.append(function)
        os.eventfd_write(self._wake_fd, 1)

    def wait(self, predicate, timeout=PATIENCE_SECONDS):
        """Waits until predicate() holds; it is tried whenever a pump has moved, and now and
        then, for what other threads do."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not predicate():
                if self._failure:
                    raise self._failure
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise TimeoutError(f"not in {timeout} s: {self.describe()}")
                self._changed.wait(min(remaining, TRY_AGAIN_SECONDS))

    def wait_received(self, pump, n, timeout=PATIENCE_SECONDS):
        """Waits until pump has received n bytes in all; raises its error if it has one."""
        self.wait(lambda: pump.n_received >= n or pump.error is not None, timeout)
        if pump.error is not None:
            raise pump.error

    def wait_ended(self, *pumps, timeout=2 * PATIENCE_SECONDS):
        """Waits until all pumps are done, well or with an error."""
        self.wait(lambda: all(pump.is_done for pump in pumps), timeout)

    def wait_done(self, *pumps, timeout=2 * PATIENCE_SECONDS):
        """Waits until all pumps are done, and raises the first error that one has.

        One that fails ends the wait: the others may then never end.
        """

        def failed():
            return next((pump for pump in pumps if pump.error is not None), None)

        self.wait(lambda: failed() or all(pump.is_done for pump in pumps), timeout)
        if failed():
            raise failed().error

    def describe(self):
        """One line on each pump that is not done, ten at most."""
        lines = [
            f"sent {pump.n_sent}{' ended' if pump.send_ended else ''}, "
            f"received {pump.n_received}{' ended' if pump.receive_ended else ''}"
            for pump in list(self._pumps.values())
        ]
        return f"{len(lines)} pumps going: " + "; ".join(lines[:10])

    def close(self):
        """Ends the thread and closes the sockets of all pumps."""
        self._ending = True
        os.eventfd_write(self._wake_fd, 1)
        self._thread.join()
        for pump in self._pumps.values():
            pump.sock.close()
        self._epoll.close()
        os.close(self._wake_fd)

    # What runs in the thread

    def _add(self, pump):
        fd = pump.sock.fileno()
        self._pumps[fd] = pump
        self._masks[fd] = 0
        self._update(fd)

    def _update(self, fd):
        """Brings the registration in line with what the pump waits for now."""
        pump = self._pumps[fd]
        old, new = self._masks[fd], pump.events()
        self._masks[fd] = new
        if new and not old:
            self._epoll.register(fd, new)
        elif old and not new:
            self._epoll.unregister(fd)
        elif old != new:
            self._epoll.modify(fd, new)
        if pump.is_done:
            del self._pumps[fd], self._masks[fd]
            pump.sock.close()

    def _accept(self, listener, make_pump):
        try:
            while True:
                connection, _ = listener.accept()
                self._add(make_pump(connection))
        except BlockingIOError:
            pass

    def _make_calls(self):
        os.eventfd_read(self._wake_fd)
        with self._changed:
            calls, self._calls = self._calls, []
        for function in calls:
            function()
        for fd in list(self._pumps):
            self._update(fd)

    def _handle(self, fd, mask):
        if fd == self._wake_fd:
            self._make_calls()
        elif fd in self._listeners:
            self._accept(*self._listeners[fd])
        elif self._masks.get(fd):
            self._pumps[fd].handle(mask)
            self._update(fd)

    def _run(self):
        try:
            while not self._ending:
                for fd, mask in self._epoll.poll():
                    self._handle(fd, mask)
                with self._changed:
                    self._changed.notify_all()
        except BaseException as error:  # pylint: disable=broad-except
            with self._changed:
                self._failure = error
                self._changed.notify_all()


class Upstream:
    """The server behind a relay: checks what each client sends and answers with reply_to() it.

    It sends for as long as its client does, then ends its own direction too.
    """

    def __init__(self, net=None, address=("127.0.0.1", 0), make_pump=None):
        self.pumps = []
        self._make_pump = make_pump or self._default_pump
        self.listener = (net or network.Network()).listen(address)
        self.loop = Loop()
        self.loop.add_listener(self.listener, self._accepted)

    @staticmethod
    def _default_pump(connection):
        return Pump(connection, incoming=Pump.ANY, end_with_peer=True)

    def _accepted(self, connection):
        pump = self._make_pump(connection)
        self.pumps.append(pump)
        return pump

    @property
    def address(self):
        """As holdfastd takes it: HOST:PORT, [IPv6]:PORT or a path."""
        name = self.listener.getsockname()
        if isinstance(name, str):
            return name
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    def pump_of(self, stream, timeout=PATIENCE_SECONDS):
        """The pump that receives stream, once its first bytes are there."""

        def find():
            return next(
                (
                    pump
                    for pump in self.pumps
                    if isinstance(pump.incoming, Stream)
                    and pump.incoming.seed == stream.seed
                ),
                None,
            )

        self.loop.wait(find, timeout)
        return find()

    def close(self):
        self.loop.close()
        self.listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def is_reset(error):
    """True for the error of a socket whose peer has reset the connection."""
    return isinstance(error, OSError) and error.errno in (
        errno.ECONNRESET,
        errno.EPIPE,
        errno.ECONNABORTED,
    )
