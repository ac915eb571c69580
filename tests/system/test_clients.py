# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real clients and servers through the relay, unmodified, while it is killed again and again."""

import contextlib
import re
import shutil
import subprocess
import tempfile
import time

import pytest

import disturbances
import stages

# As the promise is worded: five times a second, for twenty seconds
KILL_INTERVAL = 0.2
SECONDS = 20
N_CLIENTS = 50


def needed(program):
    path = shutil.which(program)
    if path is None:
        pytest.fail(f"{program} is not installed: tests/run does that", pytrace=False)
    return path


@contextlib.contextmanager
def redis_server(stage):
    """A Redis in the stage's network; gives its port."""
    port = stage.network.free_port()
    with tempfile.TemporaryDirectory() as directory:
        # pylint: disable=consider-using-with # ended below
        server = subprocess.Popen(
            stage.network.command(
                [needed("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
                + ["--save", "", "--appendonly", "no", "--dir", directory]
            ),
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for_pong(stage, port)
            yield port
        finally:
            server.terminate()
            server.wait()


def redis_command(stage, port, *words):
    return subprocess.run(
        stage.network.command([needed("redis-cli"), "-p", str(port), *words]),
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def wait_for_pong(stage, port):
    deadline = time.monotonic() + stages.PATIENCE_SECONDS
    while "PONG" not in redis_command(stage, port, "PING"):
        assert time.monotonic() < deadline, "the Redis server does not answer"


def n_connections_received(stage, port):
    text = redis_command(stage, port, "INFO", "stats")
    return int(re.search(r"total_connections_received:(\d+)", text)[1])


@pytest.mark.slow
def test_redis_benchmark_sees_no_failure_and_no_reconnect(stage):
    """Five kills a second for twenty seconds; Redis itself counts the connections."""
    with redis_server(stage) as port:
        instance = stage.start(f"relay 127.0.0.1:{port}")
        before = n_connections_received(stage, port)
        began = time.monotonic()
        n_runs = 0
        with disturbances.Killer(instance, KILL_INTERVAL) as killer:
            while time.monotonic() - began < SECONDS:
                run_benchmark(stage, instance.address()[1])
                n_runs += 1
        n_kills = killer.n_kills
        received = n_connections_received(stage, port) - before
    # A run has its clients and one that asks for the configuration; INFO is one as well
    assert received == n_runs * (N_CLIENTS + 1) + 1
    assert n_kills > 30
    print(f"{n_runs} runs, {n_kills} kills")


def run_benchmark(stage, port):
    """Ends with an error of its own at the first reply that fails, or at a lost connection."""
    command = [needed("redis-benchmark"), "-h", "127.0.0.1", "-p", str(port)]
    command += ["-c", str(N_CLIENTS), "-n", "150000", "-t", "set", "-d", "200", "--csv"]
    result = subprocess.run(
        stage.network.command(command),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "SET" in result.stdout
    assert "rror" not in result.stderr, result.stderr
