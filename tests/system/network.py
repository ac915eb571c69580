# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sockets that live in a network namespace, made from this process.

setns(2) with CLONE_NEWNET moves one thread only. So a socket is made in a thread that
enters the namespace and ends; the socket stays in that namespace for life and is an
ordinary Python socket for every other thread.
"""

import ctypes
import fcntl
import os
import socket
import struct
import threading

from patience import PATIENCE_SECONDS

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def _call_in_thread(function):
    """Runs function in a thread of its own, and returns or raises what it does."""
    outcome = {}

    def run():
        try:
            outcome["value"] = function()
        except BaseException as error:  # pylint: disable=broad-except
            outcome["error"] = error

    thread = threading.Thread(target=run, name="network-namespace")
    thread.start()
    thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def family_of(address):
    """The address family that a Python socket address is of."""
    if isinstance(address, str):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


class Network:
    """The network that this process is in. Also the interface of NetworkNamespace."""

    is_private = False  # True: nobody else is in it

    def call(self, function):
        """Runs function so that the sockets it makes are in this network."""
        return function()

    def command(self, argv):
        """The command line that runs a program of this host in this network."""
        return list(argv)

    def socket(self, family=socket.AF_INET, kind=socket.SOCK_STREAM):
        return self.call(lambda: socket.socket(family, kind))

    def connect(self, address, timeout=PATIENCE_SECONDS):
        """A connected, blocking socket; timeout (seconds) bounds its operations too."""
        connection = self.socket(family_of(address))
        try:
            connection.settimeout(timeout)
            connection.connect(address)
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_many(self, address, n, timeout=PATIENCE_SECONDS):
        """n connected sockets. One thread makes them all: n may be thousands."""
        connections = self.call(
            lambda: [socket.socket(family_of(address)) for _ in range(n)]
        )
        try:
            for connection in connections:
                connection.settimeout(timeout)
                connection.connect(address)
        except BaseException:
            for connection in connections:
                connection.close()
            raise
        return connections

    def listen(self, address=("127.0.0.1", 0), backlog=1024, timeout=PATIENCE_SECONDS):
        """A listening socket; getsockname() tells the port that it got."""
        listener = self.socket(family_of(address))
        try:
            if family_of(address) != socket.AF_UNIX:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.settimeout(timeout)
            listener.bind(address)
            if isinstance(address, str) and address.startswith("/"):
                os.chmod(address, 0o666)  # services run as users of their own
            listener.listen(backlog)
        except BaseException:
            listener.close()
            raise
        return listener

    def free_port(self):
        """A TCP port that nothing was bound to a moment ago."""
        with self.listen() as listener:
            return listener.getsockname()[1]

    def close(self):
        """Lets go of the network. Sockets made in it keep it alive while they live."""


class NetworkNamespace(Network):
    """A network namespace, held by a file descriptor."""

    def __init__(self, fd):
        self.fd = fd

    @classmethod
    def of_process(cls, pid):
        return cls(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    @classmethod
    def new(cls):
        """A new namespace with nothing but its loopback interface, which is up."""

        def unshare():
            _check(_libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        namespace = cls(_call_in_thread(unshare))
        namespace.is_private = True
        try:
            namespace._set_loopback_up()
        except BaseException:
            namespace.close()
            raise
        return namespace

    def _set_loopback_up(self):
        with self.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            request = struct.pack("16sh", b"lo", 0)
            answer = fcntl.ioctl(control, SIOCGIFFLAGS, request.ljust(40, b"\0"))
            (flags,) = struct.unpack_from("h", answer, 16)
            request = struct.pack("16sh", b"lo", flags | IFF_UP)
            fcntl.ioctl(control, SIOCSIFFLAGS, request.ljust(40, b"\0"))

    def call(self, function):
        def enter_and_call():
            _check(_libc.setns(self.fd, CLONE_NEWNET), "setns(CLONE_NEWNET)")
            return function()

        return _call_in_thread(enter_and_call)

    def command(self, argv):
        # nsenter opens this path itself, so nothing has to be inherited
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.fd}", "--", *argv]

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
