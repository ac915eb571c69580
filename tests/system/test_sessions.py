# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real servers and clients through the relay while it is killed, restarted and taken over.

No client may fail, and no server may see another connection than the ones that there were:
a client that reconnects in silence would hide a loss.
"""

import contextlib
import filecmp
import itertools
import json
import os
import pwd
import re
import subprocess
import time

import pytest

import conftest
import disturbances
import programs
import stages

pytestmark = [pytest.mark.slow, pytest.mark.stages("keeper")]

INTERVAL = 0.2
SECONDS = 5  # that a client has to do
N_MIN = 6  # disturbances in that time, at the least: two of each


class InTurn:
    """A kill, a takeover, a restart, and so on."""

    def __init__(self):
        self._next = itertools.cycle(
            (disturbances.killed, disturbances.taken_over, disturbances.restarted)
        )

    def __call__(self, instance):
        next(self._next)(instance)


@pytest.fixture(name="tools")
def fixture_tools(stage, tmp_path):
    return conftest.or_cannot_run("programs", lambda: programs.Programs(stage, tmp_path))


@contextlib.contextmanager
def served(tools, *argv, port=None):
    """A server; gives a relay to it, and where the server's log is."""
    port = port or tools.stage.network.free_port()
    log = tools.shared / "server.log"
    with tools.running(*(word.replace("PORT", str(port)) for word in argv), log=log) as server:
        tools.wait_for_port(port, server)
        instance = tools.stage.start(f"relay 127.0.0.1:{port}")
        yield instance, port, log


@contextlib.contextmanager
def storm(instance, n_min=N_MIN):
    with disturbances.Storm(instance, INTERVAL, InTurn()) as falling:
        yield falling
    assert falling.n_disturbances >= n_min


def write_files(directory, n, size):
    directory.mkdir()
    for i in range(n):
        (directory / f"file-{i}").write_bytes(os.urandom(size))


def test_rsync_over_ssh(tools):
    write_files(tools.shared / "tree", 20, 2 << 20)
    for name in ("host", "user"):
        tools.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/mnt/{name}")
    server = ["/usr/sbin/sshd", "-D", "-e", "-p", "PORT", "-h", "/mnt/host", "-f", "/dev/null"]
    for option in ("AuthorizedKeysFile=/mnt/user.pub", "StrictModes=no", "UsePAM=no"):
        server += ["-o", option]
    with served(tools, *server) as (instance, _, log):
        ssh = f"ssh -p {instance.address()[1]} -i /mnt/user -o UserKnownHostsFile=/dev/null"
        ssh += " -o StrictHostKeyChecking=no -o BatchMode=yes"
        with storm(instance):
            tools.run(
                *("rsync", "-a", f"--bwlimit={40 // SECONDS}M", "-e", ssh),
                *("/mnt/tree/", "127.0.0.1:/mnt/copy/"),
            )
        assert log.read_text(encoding="utf-8").count("Accepted publickey") == 1
    names = sorted(os.listdir(tools.shared / "tree"))
    same = filecmp.cmpfiles(tools.shared / "tree", tools.shared / "copy", names, shallow=False)
    assert same == (names, [], [])


def test_mqtt(tools):
    """QoS 1 in order, a retained message for whom comes later, one connection each."""
    n = 1500
    port = tools.stage.network.free_port()
    (tools.shared / "conf").write_text(
        f"user root\nallow_anonymous true\nlistener {port} 127.0.0.1\n", encoding="utf-8"
    )
    with served(tools, "mosquitto", "-v", "-c", "/mnt/conf", port=port) as (instance, _, log):
        common = ["-h", "127.0.0.1", "-p", str(instance.address()[1]), "-q", "1"]
        reader = ["mosquitto_sub", *common, "-i", "reader", "-t", "numbers", "-C", str(n)]
        writer = ["mosquitto_pub", *common, "-i", "writer", "-t", "numbers", "-l"]
        with tools.running(*reader, stdout=subprocess.PIPE, text=True) as subscribed:
            wait_for_text(log, "reader 1 numbers")
            tools.run("mosquitto_pub", *common, "-t", "kept", "-r", "-m", "for later")
            with storm(instance) as falling:
                with tools.running(*writer, stdin=subprocess.PIPE, text=True) as publisher:
                    write_lines(publisher, falling, map(str, range(n)), n)
                    assert publisher.wait(stages.PATIENCE_SECONDS) == 0
                lines = subscribed.communicate(timeout=stages.PATIENCE_SECONDS)[0].split()
                kept = tools.run("mosquitto_sub", *common, "-t", "kept", "-C", "1")
        text = log.read_text(encoding="utf-8")
    assert lines == [str(i) for i in range(n)]
    assert kept == "for later\n"
    for name in ("reader", "writer"):
        assert len(re.findall(rf"New client connected from .* as {name} ", text)) == 1


def write_lines(process, falling, lines, n):
    """Spread over all the disturbances that there have to be."""
    for i, line in enumerate(lines):
        wait_until(lambda i=i: falling.has_reached(i * N_MIN // n))
        process.stdin.write(line + "\n")
        process.stdin.flush()
    wait_until(lambda: falling.has_reached(N_MIN))
    process.stdin.close()


def test_redis_publishes(tools):
    """All of a channel's messages in their order; Redis keeps none for who was away."""
    n = 1500
    server = ["redis-server", "--port", "PORT", "--bind", "127.0.0.1", "--save", ""]
    with served(tools, *server) as (instance, port, _):
        command = ["redis-cli", "-p", str(instance.address()[1])]
        reader = [*command, "SUBSCRIBE", "numbers"]
        with tools.running(*reader, stdout=subprocess.PIPE, text=True) as subscribed:
            lines = iter(line.rstrip("\n") for line in subscribed.stdout)
            assert [next(lines) for _ in range(3)] == ["subscribe", "numbers", "1"]
            before = redis_connections(tools, port)
            with storm(instance) as falling:
                pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
                with tools.running(*command, **pipes) as publisher:
                    write_lines(
                        publisher, falling, (f"PUBLISH numbers {i}" for i in range(n)), n
                    )
                    assert publisher.stdout.read().split() == ["1"] * n
                for i in range(n):
                    assert [next(lines) for _ in range(3)] == ["message", "numbers", str(i)]
            # The publisher's, and ours that asks
            assert redis_connections(tools, port) - before == 2


def redis_connections(tools, port):
    text = tools.run("redis-cli", "-p", str(port), "INFO", "stats")
    return int(re.search(r"total_connections_received:(\d+)", text)[1])


def wait_until(condition):
    deadline = time.monotonic() + stages.PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # What is waited for is in a thread or a file


def wait_for_text(path, text):
    wait_until(lambda: text in path.read_text(encoding="utf-8", errors="replace"))


@pytest.mark.parametrize("direction", [[], ["--reverse"]], ids=["up", "down"])
def test_iperf3(tools, direction):
    """The server's first test is the look whether it listens; it says when each is over."""
    with served(tools, "iperf3", "-s", "--forceflush", "-p", "PORT") as (instance, _, log):
        wait_for_text(log, "(test #2)")
        with storm(instance):
            port = str(instance.address()[1])
            text = tools.run(
                *("iperf3", "-c", "127.0.0.1", "-p", port, "-t", str(SECONDS)),
                *("-P", "2", "-J", *direction),
            )
        wait_for_text(log, "(test #3)")
        server = log.read_text(encoding="utf-8").partition("(test #2)")[2]
    result = json.loads(text)
    assert "error" not in result
    assert result["end"]["sum_received"]["bytes"] > 0
    assert (server.count("Accepted connection"), server.count("connected to")) == (1, 2)
    assert "error" not in server


def test_http_2(tools):
    write_files(tools.shared / "www", 1, 5000)
    server = ["nghttpd", "--no-tls", "-d", "/mnt/www", "PORT"]
    with served(tools, *server) as (instance, _, _log):
        url = f"http://127.0.0.1:{instance.address()[1]}/file-0"
        with storm(instance):
            text = tools.run("h2load", "-c", "20", "-m", "5", "-D", str(SECONDS), url)
    line = next(line for line in text.splitlines() if line.startswith("requests:"))
    n = {what: int(number) for number, what in re.findall(r"(\d+) ([a-z]+)", line)}
    assert (n["failed"], n["errored"], n["timeout"]) == (0, 0, 0), text
    assert n["succeeded"] > 0


NGINX = """
daemon off;
user root;
pid /run/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    keepalive_requests 100000000;
    server {
        listen 127.0.0.1:PORT;
        root /mnt/www;
        location /status { stub_status; }
    }
}
"""


def test_http_1_keep_alive(tools):
    write_files(tools.shared / "www", 1, 5000)
    port = tools.stage.network.free_port()
    (tools.shared / "conf").write_text(NGINX.replace("PORT", str(port)), encoding="utf-8")
    with served(tools, "nginx", "-c", "/mnt/conf", port=port) as (instance, _, _log):
        before = n_accepted(tools, port)
        with storm(instance):
            url = f"http://127.0.0.1:{instance.address()[1]}/file-0"
            text = tools.run(
                *("ab", "-q", "-k", "-c", "20", "-t", str(SECONDS), "-n", "9999999", url)
            )
        accepted = n_accepted(tools, port) - before
    n = {name: int(value) for name, value in re.findall(r"^(.+?): +(\d+)", text, re.M)}
    assert n["Failed requests"] == 0, text
    assert n["Keep-Alive requests"] == n["Complete requests"] > 0, text
    # Its own, and the second of our two looks
    assert accepted == 20 + 1, text


def n_accepted(tools, port):
    with tools.stage.network.connect(("127.0.0.1", port)) as client:
        client.sendall(b"GET /status HTTP/1.0\r\n\r\n")
        text = b"".join(iter(lambda: client.recv(65536), b"")).decode()
    return int(re.search(r"requests\s+(\d+)", text)[1])


WEBSOCKET_SERVER = """
import asyncio, sys, websockets
async def echo(peer):
    print("connected", flush=True)
    async for message in peer:
        await peer.send(message)
async def main():
    async with websockets.serve(echo, "127.0.0.1", int(sys.argv[1]), ping_interval=1):
        await asyncio.Future()
asyncio.run(main())
"""

WEBSOCKET_CLIENT = """
import asyncio, os, random, sys, time, websockets
async def main():
    end = time.monotonic() + float(sys.argv[2])
    n = 0
    async with websockets.connect(f"ws://127.0.0.1:{sys.argv[1]}", ping_interval=1) as peer:
        while time.monotonic() < end:
            sent = os.urandom(random.choice((1, 100, 60000)))
            await peer.send(sent)
            assert await peer.recv() == sent
            n += 1
    print(n)
asyncio.run(main())
"""


def test_websocket(tools):
    server = ["python3", "-c", WEBSOCKET_SERVER, "PORT"]
    with served(tools, *server) as (instance, _, log):
        client = ["python3", "-c", WEBSOCKET_CLIENT, str(instance.address()[1]), str(SECONDS)]
        with storm(instance):
            n = int(tools.run(*client).split()[0])
        assert log.read_text(encoding="utf-8").count("connected") == 1
    assert n > N_MIN


POSTGRES = "/usr/lib/postgresql/15/bin"


# The server refuses to be root
NOBODY = pwd.getpwnam("nobody").pw_uid
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


def test_pgbench(tools):
    """No transaction fails, each is there once, and nobody has connected again."""
    (tools.shared / "data").mkdir()
    os.chown(tools.shared / "data", NOBODY, NOBODY)
    tools.run(
        *(*AS_NOBODY, f"{POSTGRES}/initdb", "-D", "/mnt/data", "-A", "trust"),
        *("-U", "bench", "-N"),
    )
    server = [*AS_NOBODY, f"{POSTGRES}/postgres", "-D", "/mnt/data", "-p", "PORT", "-F"]
    for setting in ("log_connections=on", "unix_socket_directories="):
        server += ["-c", setting]
    with served(tools, *server) as (instance, port, log):
        at = ["-h", "127.0.0.1", "-U", "bench"]
        wait_for_text(log, "ready to accept connections")
        direct = [*at, "-p", str(port)]
        tools.run(f"{POSTGRES}/pgbench", "-q", "-i", "-s", "4", *direct, "postgres")
        before = log.read_text(encoding="utf-8").count("connection authorized")
        with storm(instance):
            text = tools.run(
                *(f"{POSTGRES}/pgbench", "-n", "-c", "8", "-j", "2", "-T", str(SECONDS), *at),
                *("-p", str(instance.address()[1]), "postgres"),
            )
        accepted = log.read_text(encoding="utf-8").count("connection authorized") - before
        sums = tools.run(
            *(f"{POSTGRES}/psql", *direct, "-AtF", " ", "postgres", "-c"),
            "SELECT (SELECT count(*) FROM pgbench_history),"
            " (SELECT sum(delta) FROM pgbench_history),"
            " (SELECT sum(abalance) FROM pgbench_accounts),"
            " (SELECT sum(tbalance) FROM pgbench_tellers),"
            " (SELECT sum(bbalance) FROM pgbench_branches)",
        )
    n, *balances = map(int, sums.split())
    assert n == int(re.search(r"actually processed: (\d+)", text)[1]) > 0
    assert re.search(r"failed transactions: 0 ", text), text
    assert len(set(balances)) == 1
    # One that asks for the sizes of the tables, and the clients
    assert accepted == 8 + 1, text
