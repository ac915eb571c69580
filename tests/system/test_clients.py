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

# Five times a second, as the promise is worded
INTERVAL = 0.2
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


def count_of(stage, port, section, name):
    """A number that Redis tells of itself."""
    text = redis_command(stage, port, "INFO", section)
    return int(re.search(rf"{name}:(\d+)", text)[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "disturb, seconds_min, n_min",
    # A sanitizer makes a takeover take longer than a second
    [(disturbances.killed, 10, 10), (disturbances.taken_over, 6, 2)],
)
def test_redis_benchmark_sees_no_failure_and_no_reconnect(
    stage, disturb, seconds_min, n_min
):
    """Five times a second and more often; Redis itself counts the connections."""
    with redis_server(stage) as port:
        instance = stage.start(f"relay 127.0.0.1:{port}")
        relay_port = instance.address()[1]
        n = requests_for(stage, relay_port, seconds_min)
        before = count_of(stage, port, "stats", "total_connections_received")
        with benchmark(stage, relay_port, n) as client:
            # What is killed while it is being accepted is reset: all must be in the store
            n_looks = wait_for_clients(stage, port, client)
            began = time.monotonic()
            with disturbances.Storm(instance, INTERVAL, disturb) as storm:
                output, errors = client.communicate(timeout=200)
            seconds = time.monotonic() - began
        assert client.returncode == 0, output + errors
        assert "SET" in output
        assert "rror" not in errors, errors
        received = count_of(stage, port, "stats", "total_connections_received") - before
    # Its clients, one that asks for the configuration, and those that looked for them
    assert received == N_CLIENTS + 1 + n_looks + 1
    assert storm.n_disturbances > n_min
    print(f"{n} requests in {seconds:.0f} s, {storm.n_disturbances} times {disturb.__name__}")


def wait_for_clients(stage, port, client):
    """Until all clients of the benchmark are connected, through the relay, to Redis.

    Returns how often that was asked, since each look is a connection too.
    """
    for n_looks in range(1, 1000):
        if count_of(stage, port, "clients", "connected_clients") >= N_CLIENTS + 1:
            return n_looks
        assert client.poll() is None, client.communicate()
    raise TimeoutError("the benchmark's clients do not connect")


def benchmark(stage, port, n):
    """Ends with an error of its own at the first reply that fails, or at a lost connection."""
    command = [needed("redis-benchmark"), "-h", "127.0.0.1", "-p", str(port)]
    command += ["-c", str(N_CLIENTS), "-n", str(n), "-t", "set", "-d", "200", "--csv"]
    return subprocess.Popen(
        stage.network.command(command),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def requests_for(stage, port, seconds):
    """So many that they take so long even if nobody disturbs them."""
    n = 50_000
    began = time.monotonic()
    with benchmark(stage, port, n) as client:
        output, errors = client.communicate(timeout=200)
        assert client.returncode == 0, output + errors
    return int(n / (time.monotonic() - began) * seconds)
