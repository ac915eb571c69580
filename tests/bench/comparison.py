# SPDX-License-Identifier: LGPL-2.1-or-later
"""Windows of load on holdfast and on others by turns, and the figures that come of them."""

import contextlib
import dataclasses
import functools
import pathlib
import random
import statistics
import time
import typing

import load
import peers
import stages

HOLDFAST = "holdfast"
UNPROTECTED = "unprotected"
DIRECT = "direct"

# The least that a relay can do (floor-relay.c), and what it is told to do it by
FLOORS = {"floor-copy": "copy", "floor-splice": "splice"}

# In the order of the table's columns
NAMES = (HOLDFAST, UNPROTECTED, *peers.KINDS, *FLOORS, DIRECT)

TITLES = {
    HOLDFAST: "holdfast",
    UNPROTECTED: "holdfast without its store",
    "haproxy": "HAProxy copying",
    "haproxy-splice": "HAProxy splicing",
    "nginx": "nginx stream",
    "socket-proxyd": "systemd-socket-proxyd",
    "floor-copy": "the least: recv, send",
    "floor-splice": "the least: splice twice",
    DIRECT: "no relay",
}

PROGRAMS = {HOLDFAST: "holdfastd", UNPROTECTED: "holdfastd-unprotected"}


@dataclasses.dataclass
class Subject:
    """What is measured: something listens at address, done by the processes of pids()."""

    name: str
    address: str
    pids: typing.Callable


@contextlib.contextmanager
def subject(stage, name, upstream):
    """A Subject that runs, with one thread that moves bytes."""
    if name == DIRECT:
        yield Subject(name, upstream, lambda: [])
    elif name in FLOORS:
        how = FLOORS[name]
        with load.listening(
            stage.network, "floor-relay", upstream, how, start_new_session=True
        ) as (address, process):
            yield Subject(name, address, lambda: [process.pid])
    elif name in PROGRAMS:
        instance = stage.start(
            f"relay {upstream}",
            options=["--threads=1"],
            program=stages.built_program(PROGRAMS[name]),
        )
        try:
            # The keeper does what is the service manager's part
            yield Subject(
                name,
                instance.listen[0],
                lambda: [instance.keeper_pid(), int(instance.proc().name)],
            )
        finally:
            instance.stop()
    else:
        peer = peers.start(name, stage.network, upstream, 1)
        try:
            host, port = peer.address()
            yield Subject(name, f"{host}:{port}", peer.pids)
        finally:
            peer.stop()


# Loads and figures


@dataclasses.dataclass(frozen=True)
class Load:
    """What load-client is told."""

    mode: str
    n_connections: int


@dataclasses.dataclass(frozen=True)
class Figure:
    """A row of the table.

    of    its value in a window; None: there is none (no relay uses no CPU)
    bars  what is to be reached: its ratio to another subject's
    """

    title: str
    load: Load
    of: typing.Callable
    more_is_better: bool = False
    bars: tuple = ()

    def holds(self, ratio, bar):
        return ratio >= bar if self.more_is_better else ratio <= bar


GIB = 1 << 30
GBIT = 1e9
N_CONNECTING = 16  # connections at once, each with a message and an end
# Of no use if they are few: memory comes by the page, and a pool keeps some in advance
N_HELD = 2000
HOLD = Load("hold", N_HELD)

# What the protection may cost in each row
PROTECTION = (UNPROTECTED, 1.1)


def _cpu_per_gib(window):
    return window["cpu_usec"] / 1e6 / (window["n_bytes"] / GIB)


def _gbit_per_second(window):
    return window["n_bytes"] * 8 / GBIT / (window["usec"] / 1e6)


def _cpu_per_operation(window):
    return window["cpu_usec"] / window["n_operations"]


def _thousands_per_second(window):
    return window["n_operations"] / window["usec"] * 1e3


def _figures():
    for n, text in ((1, "one stream"), (8, "8 streams")):
        bulk = Load("bulk", n)
        yield Figure(
            f"{text}: CPU seconds per GiB",
            bulk,
            _cpu_per_gib,
            bars=(("socket-proxyd", 1.0), ("haproxy", 0.2), PROTECTION),
        )
        yield Figure(
            f"{text}: Gbit/s",
            bulk,
            _gbit_per_second,
            more_is_better=True,
            bars=(("socket-proxyd", 1.0), ("haproxy", 2.0)),
        )
    for n in (100, 1000):
        echo = Load("echo", n)
        text = f"64-byte round trips on {n:,} connections"
        yield Figure(
            f"{text}: CPU µs each",
            echo,
            _cpu_per_operation,
            bars=(("haproxy", 0.8), PROTECTION),
        )
        yield Figure(f"{text}: thousands/s", echo, _thousands_per_second, more_is_better=True)
    connect = Load("connect", N_CONNECTING)
    text = "connect, round trip, close"
    yield Figure(
        f"{text}: CPU µs each",
        connect,
        _cpu_per_operation,
        bars=(("haproxy", 1.0), PROTECTION),
    )
    yield Figure(f"{text}: thousands/s", connect, _thousands_per_second, more_is_better=True)
    text = "idle connection"
    yield Figure(f"{text}: KiB of the process", HOLD, lambda window: window["user_kib"])
    yield Figure(f"{text}: KiB of the kernel", HOLD, lambda window: window["kernel_kib"])
    yield Figure(
        f"{text}: KiB together",
        HOLD,
        lambda window: window["user_kib"] + window["kernel_kib"],
        bars=(("haproxy", 1.0),),
    )


FIGURES = tuple(_figures())
LOADS = tuple(dict.fromkeys(figure.load for figure in FIGURES if figure.load != HOLD))


# Measuring

# holdfast packs a thousand connections a second
REST_SECONDS = 4


@dataclasses.dataclass(frozen=True)
class Held:
    """Idle connections."""

    n_connections: int
    rest_seconds: float


SETTINGS = {
    # Every kernel has it, and unlike some that hosts prefer it does not pace: on loopback a
    # pause between segments is nothing but another wake-up
    "tcp_congestion_control": "reno",
    # What has ended keeps its port for a minute, and the search for a free one takes time
    "ip_local_port_range": "1024 65535",
}


def set_up(network):
    """Makes a namespace the same on every machine; what is the host's stays as it is."""
    for name, value in SETTINGS.items() if network.is_private else ():
        path = pathlib.Path("/proc/sys/net/ipv4", name)
        network.call(functools.partial(path.write_text, value, encoding="ascii"))


def _shuffled(items, generator):
    return generator.sample(list(items), len(items))


def _memory_window(network, subject_, held):
    """What idle connections of one that has just started take, each."""
    before = load.memory_kib(subject_.pids())
    with load.held(network, subject_.address, held.n_connections):
        time.sleep(held.rest_seconds)
        after = load.memory_kib(subject_.pids())
    user, slab = (end - begin for begin, end in zip(before, after))
    return {"user_kib": user / held.n_connections, "slab_kib": slab / held.n_connections}


def measure_memory(stage, names, upstream, held, generator):
    """A window for each name. The kernel's part is what there is beyond the same connections
    without a relay, with their two sockets, the client's and the server's."""
    windows = []
    for name in _shuffled({DIRECT, *names}, generator):
        with subject(stage, name, upstream) as one:
            # The first connection may have all kinds of things made that stay
            load.window(stage.network, "echo", one.address, 1, [], 0.01)
            window = _memory_window(stage.network, one, held)
        windows.append(dict(window, subject=name, load=dataclasses.asdict(HOLD)))
    (direct,) = (w["slab_kib"] for w in windows if w["subject"] == DIRECT)
    for window in windows:
        window["kernel_kib"] = window["slab_kib"] - direct
    return [w for w in windows if w["subject"] in names]


def measure_loads(network, subjects, seconds, generator):
    """A window for each load and subject."""
    windows = []
    for one_load in LOADS:
        for one in _shuffled(subjects, generator):
            window = load.window(
                network,
                one_load.mode,
                one.address,
                one_load.n_connections,
                one.pids(),
                seconds,
            )
            windows.append(
                dict(window, subject=one.name, load=dataclasses.asdict(one_load))
            )
    return windows


def measure(stage, names, n_rounds, seconds, held, told):
    """Runs all rounds; returns their windows. told(n) is called after each round."""
    generator = random.Random()
    windows = []
    set_up(stage.network)
    with contextlib.ExitStack() as stack:
        upstream, _ = stack.enter_context(load.server(stage.network))
        for number in range(n_rounds):
            memory = measure_memory(stage, names, upstream, held, generator)
            with contextlib.ExitStack() as running:
                subjects = [
                    running.enter_context(subject(stage, name, upstream)) for name in names
                ]
                loads = measure_loads(stage.network, subjects, seconds, generator)
            windows += [dict(window, round=number) for window in memory + loads]
            told(number + 1)
    return windows


# Figures


def _values(figure, windows):
    """By subject: its value in each round."""
    values = {}
    for window in windows:
        if window["load"] != dataclasses.asdict(figure.load):
            continue
        # Without a relay there is nothing whose CPU or memory it would be
        if window["subject"] == DIRECT and not figure.more_is_better:
            continue
        values.setdefault(window["subject"], []).append(figure.of(window))
    return values


def _ratio(values, name):
    """Of the same round's, since these saw the same machine; the median of all rounds."""
    pairs = zip(values[HOLDFAST], values[name])
    return statistics.median(mine / other if other else float("inf") for mine, other in pairs)


def summary(windows):
    """For each figure: each subject's median and spread, and how holdfast's compares."""
    rows = []
    for figure in FIGURES:
        values = _values(figure, windows)
        row = {"figure": figure.title, "more_is_better": figure.more_is_better}
        row["subjects"] = {
            name: {
                "median": statistics.median(values[name]),
                "min": min(values[name]),
                "max": max(values[name]),
                **({"ratio": _ratio(values, name)} if HOLDFAST in values else {}),
            }
            for name in NAMES
            if name in values
        }
        row["bars"] = [
            {
                "subject": name,
                "bar": bar,
                "ratio": row["subjects"][name]["ratio"],
                "holds": figure.holds(row["subjects"][name]["ratio"], bar),
            }
            for name, bar in figure.bars
            if name in values and HOLDFAST in values
        ]
        rows.append(row)
    return rows
