#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A service that does what a test tells it, and speaks sd_notify(3) by hand.

keeper_probe.py SOCKET: connects to the test's SOCK_SEQPACKET socket, says hello (who it is and
what it was given), and answers one JSON command per message until the test closes the
connection, when it exits with status 0. Its death is the end of that connection.
"""

import array
import json
import os
import signal
import socket
import sys

FIRST_FD = 3


def notify_socket():
    name = os.environ["NOTIFY_SOCKET"]
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.connect("\0" + name[1:] if name.startswith("@") else name)
    return sock


def notify(text, fds=()):
    """One message; text is str or, to break the protocol, a list of byte values."""
    data = text.encode() if isinstance(text, str) else bytes(text)
    ancillary = []
    if fds:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    with notify_socket() as sock:
        sock.sendmsg([data], ancillary)


def identity(fd):
    status = os.fstat(fd)
    return f"{status.st_dev}:{status.st_ino}"


def wait_for_end():
    """Of the test, by a signal; but not for ever, should that fail."""
    signal.alarm(60)
    signal.pause()


def passed():
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    names = os.environ["LISTEN_FDNAMES"].split(":")
    n_fds = int(os.environ["LISTEN_FDS"])
    fds = range(FIRST_FD, FIRST_FD + n_fds)
    assert len(names) == n_fds
    return [{"name": name, "fd": fd, "id": identity(fd)} for name, fd in zip(names, fds)]


class Probe:
    def __init__(self, control):
        self.control = control
        self.reading = None  # see hold_reading

    def hello(self):
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "session": os.getsid(0),
            "passed": passed(),
            "stray": [int(fd) for fd in os.listdir("/proc/self/fd")],
            "environment": dict(os.environ),
            "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
        }

    @staticmethod
    def notify(text, fds=()):
        notify(text, fds)

    @staticmethod
    def memfds(n):
        fds = [os.memfd_create("probe") for _ in range(n)]
        return [{"fd": fd, "id": identity(fd)} for fd in fds]

    @staticmethod
    def identify(fd):
        return identity(fd)

    @staticmethod
    def socketpair():
        return [sock.detach() for sock in socket.socketpair()]

    @staticmethod
    def close(fd):
        os.close(fd)

    @staticmethod
    def duplicate(fd):
        return os.dup(fd)

    @staticmethod
    def write(fd, text):
        os.write(fd, text.encode())

    @staticmethod
    def read(fd):
        return os.pread(fd, 4096, 0).decode()

    @staticmethod
    def barrier():
        """Returns once the keeper has handled all that was sent before."""
        reading, writing = os.pipe()
        notify("BARRIER=1", [writing])
        os.close(writing)
        data = os.read(reading, 1)
        os.close(reading)
        return data.decode()

    def hold_reading(self):
        """A pipe whose end is seen when all others have closed it. Returns its write end."""
        self.reading, writing = os.pipe()
        return writing

    def wait_closed(self):
        return os.read(self.reading, 1).decode()

    @staticmethod
    def notify_from_child(text):
        pid = os.fork()
        if pid == 0:
            notify(text)
            os._exit(0)
        os.waitpid(pid, 0)

    @staticmethod
    def notify_and_die(messages, fds, status):
        """Dies right after the last message."""
        for text in messages:
            notify(text, fds)
        if status is None:
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(status)

    def successor(self, n_between=0):
        """Another probe below this one, n_between processes further down."""
        pid = os.fork()
        if pid == 0:
            for _ in range(n_between):
                if os.fork() > 0:
                    wait_for_end()
            self.control.close()
            os.execv(sys.executable, [sys.executable, *sys.argv])

    @staticmethod
    def orphans(n):
        """n processes whose parent has gone, and which wait for their own end."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            pids = []
            for _ in range(n):
                orphan = os.fork()
                if orphan == 0:
                    os.close(writing)
                    signal.signal(signal.SIGTERM, signal.SIG_DFL)
                    wait_for_end()
                pids.append(orphan)
            os.write(writing, json.dumps(pids).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(pid, 0)
        with os.fdopen(reading) as pipe:
            return json.load(pipe)

    @staticmethod
    def zombie():
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return pid

    @staticmethod
    def reap(pid):
        os.waitpid(pid, 0)

    @staticmethod
    def kill_all():
        """All other processes of this pid namespace, but not pid 1."""
        with_handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(-1, signal.SIGTERM)
        signal.signal(signal.SIGTERM, with_handler)

    @staticmethod
    def count_processes():
        return sum(name.isdigit() for name in os.listdir("/proc"))

    @staticmethod
    def ignore(number):
        signal.signal(number, signal.SIG_IGN)

    def report(self, number):
        """From now on, this signal is told to the test as a message of its own."""
        signal.signal(number, lambda n, _: self.control.send(json.dumps({"signal": n}).encode()))

    @staticmethod
    def accept(fd):
        listener = socket.socket(fileno=os.dup(fd))
        listener.settimeout(10)
        with listener, listener.accept()[0] as connection:
            connection.sendall(f"{os.getpid()}\n".encode())

    @staticmethod
    def exit(status):
        os._exit(status)

    def serve(self):
        while True:
            data = self.control.recv(65536)
            if not data:
                return 0
            command = json.loads(data)
            result = getattr(self, command.pop("do"))(**command)
            self.control.send(json.dumps({"result": result}).encode())


def main():
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.connect(sys.argv[1])
    control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    control.send(json.dumps(Probe(control).hello()).encode())
    return Probe(control).serve()


if __name__ == "__main__":
    sys.exit(main())
