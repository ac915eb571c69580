# SPDX-License-Identifier: LGPL-2.1-or-later
"""What many scenarios do and ask."""

import contextlib
import socket
import time

import stages
import streams


def echoes(connection, data=b"1234"):
    connection.settimeout(stages.PATIENCE_SECONDS)
    connection.sendall(data)
    return connection.recv(len(data), socket.MSG_WAITALL) == data


def wait_until(predicate, seconds=stages.PATIENCE_SECONDS):
    """For what the kernel or another process does without telling."""
    deadline = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def replace_program(path, content, mode=0o755):
    """As an upgrade does: the old file stays for the process that runs it."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(mode)
    new.rename(path)


def _goes_on(loop, pump):
    loop.wait_received(pump, pump.n_received + (1 << 20))


@contextlib.contextmanager
def serving_stream(instance, seed=50):
    """A stream through an echo; gives what waits until more of it has come back."""
    stream = streams.Stream(seed)
    with streams.Loop() as loop:
        pump = loop.add(streams.Pump(instance.connect(), stream, stream))
        _goes_on(loop, pump)
        yield lambda: _goes_on(loop, pump)
        loop.finish(pump)
        loop.wait_done(pump)
    assert pump.received_digest == pump.sent_digest
