# SPDX-License-Identifier: LGPL-2.1-or-later
"""The benchmark works: nothing is lost, and what it prints can be read. Nothing of time."""

import json
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree

import pytest

import stages

MESSAGE_BYTES = 64
TIMEOUT_SECONDS = 120


def run_bench(name, *arguments):
    command = stages.source_directory() / "tests/bench" / name
    return subprocess.run(
        [sys.executable, str(command), *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )


def test_pauses_are_measured_and_nothing_is_lost(tmp_path):
    report = tmp_path / "pauses.json"
    plot = tmp_path / "pauses.svg"
    result = run_bench(
        "pause.py",
        "--connections=20,40",
        "--active=10",
        "--rounds=1",
        "--window=0.2",
        "--rest=0",
        "--disturb=restart,kill",
        f"--json={report}",
        f"--plot={plot}",
    )
    assert result.returncode == 0, result.stderr
    run, more = json.loads(report.read_text(encoding="utf-8"))
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
        assert 0 < window["peer_max_usec"] <= window["max_usec"]
    assert [row["disturbance"] for row in run["summary"]] == ["restart", "kill"]
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("     20")]
    assert [len(row) for row in rows] == [9, 9]
    assert all(row["manager_cpu_msec"] > 0 for row in run["summary"])
    growth = {line.split(":")[0] for line in result.stdout.splitlines() if "us more" in line}
    assert growth == {"restart", "kill"}
    assert more["n_connections"] == 40
    panels = xml.etree.ElementTree.parse(plot).getroot().findall("{*}g")
    assert [len(panel.findall("{*}rect")) for panel in panels] == [3, 3]


def test_relays_are_compared(tmp_path):
    # A window has to be longer than what a machine may stall, or nothing happens in it
    report = tmp_path / "speed.json"
    plot = tmp_path / "speed.svg"
    result = run_bench(
        "run",
        "--rounds=2",
        "--window=0.2",
        "--held=50",
        "--rest=0",
        "--subjects=direct,holdfast,unprotected,floor-splice,floor-copy",
        f"--json={report}",
        f"--plot={plot}",
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    # Six loads, each on five subjects in two rounds
    assert len(found["windows"]) == 6 * 5 * 2
    for window in found["windows"]:
        if window["load"]["mode"] != "hold":
            assert window["n_bytes" if window["load"]["mode"] == "bulk" else "n_operations"] > 0
            assert (window["cpu_usec"] > 0) == (window["subject"] != "direct")
    for row in found["summary"]:
        has_direct = row["more_is_better"]
        assert set(row["subjects"]) - {"direct"} == {
            "holdfast",
            "unprotected",
            "floor-splice",
            "floor-copy",
        }
        assert ("direct" in row["subjects"]) == has_direct
        for values in row["subjects"].values():
            assert values["min"] <= values["median"] <= values["max"]
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert [line.count("|") for line in rows] == [7] * (1 + len(found["summary"]))
    panels = xml.etree.ElementTree.parse(plot).getroot().findall("{*}g")
    assert len(panels) == len(found["summary"])


def test_neighbours_are_measured(tmp_path):
    report = tmp_path / "neighbours.json"
    result = run_bench(
        "neighbours.py",
        "--rounds=1",
        "--window=0.3",
        "--subjects=direct,holdfast",
        f"--json={report}",
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    # Four loads on two subjects
    assert len(found["windows"]) == len(found["summary"]) == 4 * 2
    for window in found["windows"]:
        assert window["n_messages"] > 0
    for row in found["summary"]:
        assert 0 < row["median"] <= row["p99"] <= row["longest"]
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert [line.count("|") for line in rows] == [4] * (1 + 4 * 3)


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
def test_pause_client_notices(spoil, complaint):
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


@pytest.mark.parametrize("spoil", [repeat, change])
def test_load_client_notices(spoil):
    with BadEcho(spoil) as service:
        result = subprocess.run(
            [stages.built_program("load-client"), "--window=60000", "echo", service.address],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
    assert result.returncode == 1
    assert "other than what was sent has returned" in result.stderr
