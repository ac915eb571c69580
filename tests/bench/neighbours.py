#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures how long the messages of some connections of a relay take while others are at work.

All relays have one thread (nginx: one worker process) and relay to the same server in one
network namespace of their own, over its loopback. On 50 connections a message of 64 bytes goes
to and fro every 20 ms; meanwhile there is, by turns, nothing else, a flood of connections that
come and go, or streams that send as much as they can, or connections that have a round trip
after the other. Relays and loads take turns in random order: what the machine does meanwhile
hits all alike. Latency counts from the time at which a message was due. The table has the
medians over the rounds of each window's median, 99th percentile and longest.

Client, server and load share the processors with the relay. "no relay" shows what that makes of
the latency all by itself.

A byte that was lost or changed ends the run with status 1. Not run by tests/run, which asserts
nothing of time; tests/system/test_bench.py tries whether this works.
"""

import argparse
import pathlib
import random
import statistics
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))

# pylint: disable=wrong-import-position
import comparison
import load
import measurement
import on_keeper
import peers
import report

N_MEASURED = 50
OPTIONS = [f"--active={N_MEASURED}", "--bytes=64", "--interval=20"]

ALONE = "alone"

# What the others do: load-client's mode, and how many of them do it
NEIGHBOURS = {
    ALONE: None,
    "connect flood": comparison.Load("connect", 64),
    "8 streams": comparison.Load("bulk", 8),
    "1,000 with round trips": comparison.Load("echo", 1000),
}

QUANTILES = {"median": "p50_usec", "p99": "p99_usec", "longest": "max_usec"}

NAMES = (comparison.HOLDFAST, *peers.KINDS, comparison.DIRECT)


def subject_name(text):
    if text not in NAMES:
        raise argparse.ArgumentTypeError(f"{text}: not of {', '.join(NAMES)}")
    return text


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--build", metavar="DIRECTORY", help="default: $HOLDFAST_BUILD, or build")
    add("--rounds", type=report.positive, default=10, metavar="N", help="default: 10")
    add("--window", type=float, default=2.0, metavar="SECONDS", help="default: 2")
    add(
        "--subjects",
        type=report.list_of(subject_name),
        metavar="NAME[,NAME...]",
        help=f"of {', '.join(NAMES)} (default: all that are installed)",
    )
    add("--table", metavar="FILE", help="where to write the table (Markdown) as well")
    add("--json", metavar="FILE", help="where to write everything")
    return parser.parse_args()


def shuffled(items, generator):
    return generator.sample(list(items), len(items))


def put_load(network, address, neighbours, seconds):
    if neighbours:
        load.window(
            network, neighbours.mode, address, neighbours.n_connections, [], seconds
        )
    else:
        # The length of a window is the measurement's input, not something that is waited for
        time.sleep(seconds)


def measure_subject(network, one, seconds, generator):
    """A window for each load."""
    names = shuffled(NEIGHBOURS, generator)
    host, _, port = one.address.rpartition(":")
    windows = []
    with measurement.Client(network, (host, port), N_MEASURED, OPTIONS) as client:
        for i, name in enumerate(names):
            windows.append(client.mark(f"window-{i}"))
            put_load(network, one.address, NEIGHBOURS[name], seconds)
        windows.append(client.end())
    # The first is what passed before the first mark
    return [
        dict(window, subject=one.name, neighbours=name)
        for window, name in zip(windows[1:], names)
    ]


def measure(stage, names, n_rounds, seconds):
    generator = random.Random()
    windows = []
    comparison.set_up(stage.network)
    with load.server(stage.network) as (upstream, _):
        for number in range(n_rounds):
            for name in shuffled(names, generator):
                with comparison.subject(stage, name, upstream) as one:
                    windows += [
                        dict(window, round=number)
                        for window in measure_subject(stage.network, one, seconds, generator)
                    ]
            print(f"neighbours.py: {number + 1} of {n_rounds} rounds", file=sys.stderr)
    return windows


def summary(windows, names):
    """For each load and subject the medians over the rounds, in milliseconds."""
    return [
        {
            "neighbours": neighbours,
            "subject": name,
            **{
                title: statistics.median(
                    window[key] / 1000
                    for window in windows
                    if (window["neighbours"], window["subject"]) == (neighbours, name)
                )
                for title, key in QUANTILES.items()
            },
        }
        for neighbours in NEIGHBOURS
        for name in names
    ]


def table(rows, names):
    """Markdown: a line for each load and quantile, a column for each subject."""
    lines = [
        "| ms | " + " | ".join(comparison.TITLES[name] for name in names) + " |",
        "|---|" + "---|" * len(names),
    ]
    for neighbours in NEIGHBOURS:
        for title in QUANTILES:
            cells = [f"{row[title]:.2f}" for row in rows if row["neighbours"] == neighbours]
            lines.append(f"| {neighbours}: {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def run(arguments, stage):
    names = [
        name
        for name in arguments.subjects or NAMES
        if name not in peers.KINDS or peers.is_installed(name)
    ]
    known = {
        **report.machine_facts(),
        "n_rounds": arguments.rounds,
        "window_seconds": arguments.window,
    }
    print(
        "{kernel}, {n_cpus} x {cpu_model}, load average {load_average:.1f} before\n"
        "{n_rounds} rounds, windows of {window_seconds:g} s\n".format(**known)
    )
    windows = measure(stage, names, arguments.rounds, arguments.window)
    rows = summary(windows, names)
    text = table(rows, names)
    print(text, end="")
    if arguments.table:
        pathlib.Path(arguments.table).write_text(text, encoding="utf-8")
    report.write_json(
        arguments.json, {"facts": known, "summary": rows, "windows": windows}
    )


if __name__ == "__main__":
    sys.exit(on_keeper.main("neighbours.py", parse_arguments(), run))
