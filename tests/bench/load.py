# SPDX-License-Identifier: LGPL-2.1-or-later
"""load-client and load-server as Python has them, and the memory that connections take."""

import contextlib
import json
import pathlib
import subprocess

import stages


class LoadFailed(Exception):
    """A connection was lost, or its bytes were; load-client has said what."""


@contextlib.contextmanager
def listening(network, program, *arguments, **options):
    """A program of the bench that listens at its first argument; gives this HOST:PORT and its
    process. options: of subprocess.Popen()."""
    address = f"127.0.0.1:{network.free_port()}"
    with subprocess.Popen(
        network.command([stages.built_program(program), address, *arguments]),
        stdout=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        try:
            if process.stdout.readline() != "ready\n":
                raise LoadFailed(f"{program} does not listen at {address}")
            yield address, process
        finally:
            process.kill()


def server(network):
    """A load-server in the network."""
    return listening(network, "load-server")


def _client(network, mode, address, options):
    command = [stages.built_program("load-client"), *options, mode, address]
    # pylint: disable=consider-using-with # the callers end it
    return subprocess.Popen(
        network.command(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _check(process, errors):
    if process.returncode != 0:
        raise LoadFailed(errors.strip() or f"load-client has ended with {process.returncode}")


def window(network, mode, address, n_connections, pids, seconds):
    """One window of load; what load-client says of it. pids: whose CPU time is wanted."""
    options = [
        f"--connections={n_connections}",
        f"--window={max(1, round(seconds * 1000))}",
        # Long enough for a relay to have made its pipes and buffers
        f"--warm-up={max(1, round(seconds * 200))}",
        *(f"--pid={pid}" for pid in pids),
    ]
    with _client(network, mode, address, options) as process:
        output, errors = process.communicate()
    _check(process, errors)
    return json.loads(output)


@contextlib.contextmanager
def held(network, address, n_connections):
    """n_connections that have had a round trip and are idle meanwhile."""
    with _client(network, "hold", address, [f"--connections={n_connections}"]) as process:
        try:
            is_held = process.stdout.readline() == "held\n"
            if is_held:
                yield
            _, errors = process.communicate()
        except BaseException:
            process.kill()
            raise
    _check(process, errors)


def _kib(path, name):
    """The value of a line like "Slab:   123 kB"."""
    for line in pathlib.Path(path).read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise KeyError(f"{path} has no {name}")


def memory_kib(pids):
    """(of the processes, of the kernel).

    The processes' is their PSS, which counts once what they share. The kernel's is all slab
    memory of the machine: sockets, files, epoll items, what is parked in a queue. Nothing tells
    whose it is, hence differences.
    """
    user = sum(_kib(f"/proc/{pid}/smaps_rollup", "Pss") for pid in pids)
    return user, _kib("/proc/meminfo", "Slab")
