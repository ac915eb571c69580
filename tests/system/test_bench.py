# SPDX-License-Identifier: LGPL-2.1-or-later
"""The benchmark works: nothing is lost, and what it prints can be read. Nothing of time."""

import json
import socket
import subprocess
import sys
import threading

import pytest

import stages

MESSAGE_BYTES = 64
TIMEOUT_SECONDS = 120


def run_pause(*arguments):
    command = stages.source_directory() / "tests/bench/pause.py"
    return subprocess.run(
        [sys.executable, str(command), *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )


def test_pauses_are_measured_and_nothing_is_lost(tmp_path):
    report = tmp_path / "pauses.json"
    result = run_pause(
        "--connections=20",
        "--active=10",
        "--rounds=1",
        "--window=0.2",
        "--disturb=restart,kill",
        f"--json={report}",
    )
    assert result.returncode == 0, result.stderr
    (run,) = json.loads(report.read_text(encoding="utf-8"))
    windows = {window["disturbance"]: window for window in run["windows"]}
    assert set(windows) == {"undisturbed", "restart", "kill"}
    for window in windows.values():
        assert window["n_messages"] > 0
        assert (
            window["p50_usec"]
            <= window["p99_usec"]
            <= window["p999_usec"]
            <= window["max_usec"]
        )
    assert [row["disturbance"] for row in run["summary"]] == ["restart", "kill"]
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("     20")]
    assert [len(row) for row in rows] == [8, 8]


def drop(_message):
    return b""


def repeat(message):
    return message * 2


def change(message):
    return message[:40] + bytes([message[40] ^ 1]) + message[41:]


class BadEcho:
    """Echoes the messages of one connection, but what is wrong with its tenth."""

    def __init__(self, spoil):
        self._spoil = spoil
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self):
        connection, _ = self.listener.accept()
        with connection:
            n = 0
            while message := connection.recv(MESSAGE_BYTES, socket.MSG_WAITALL):
                n += 1
                try:
                    connection.sendall(self._spoil(message) if n == 10 else message)
                except OSError:
                    return  # the client has seen enough

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        self._thread.join()


@pytest.mark.parametrize(
    "spoil, complaint",
    [
        (drop, "message 9 was lost: the next is 10"),
        (repeat, "message 9 has returned again"),
        (change, "wrong byte at 40 of message 9"),
    ],
)
def test_client_notices(spoil, complaint):
    with BadEcho(spoil) as service:
        result = subprocess.run(
            [
                stages.built_program("pause-client"),
                "--connections=1",
                f"--bytes={MESSAGE_BYTES}",
                "--seconds=60",
                service.address,
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
    assert result.returncode == 1
    assert complaint in result.stderr
