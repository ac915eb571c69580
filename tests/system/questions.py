# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small questions that many scenarios ask."""

import socket
import time

import stages


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
