#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Measures the longest pause that the peers of a service see when its process is replaced.

holdfastd echo runs under a manager in a network of its own, with N connections, some of them
with a message all the time. Windows of a second each take turns: one in which nothing
happens and one for each disturbance, as often as there are rounds. The pause of a window is
its slowest message, from when the client went to send it, whether the socket took it or not,
until the kernel had its echo for the client. The messages are due at times that no pause
delays. What the client waits for a processor, which peers elsewhere would not share with the
service, is in max_usec of --json=, which counts from the due time to the reading of the echo.
The table compares the pauses of disturbed windows with those of undisturbed ones of the same
run: these show what the machine itself does to a message, so a run on a busy machine can be
told from a slow service. The last column is the CPU time that the service manager (the keeper,
or systemd's PID 1) takes for it.

  takeover  SIGUSR2 to the service
  restart   SIGHUP to the keeper, systemctl restart
  kill      SIGKILL to the service; the manager waits before it starts it again (under the
            keeper 10 ms, under systemd RestartSec= of the unit), and the pause contains that
  reload    of a --peer, which keeps its old process for the open connections

With --service=relay or --peer=NAME what is disturbed relays to a holdfastd echo that is not.

A lost, repeated or changed byte, or a reset, ends the run with status 1. Not run by tests/run,
which asserts nothing of time; tests/system/test_bench.py tries whether this works.

As root each run has a network namespace of its own; else it is this host's loopback.
"""

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))

# pylint: disable=wrong-import-position
import chart
import measurement
import peers
import report
import stage_keeper
import stage_systemd
import stages

REST_SECONDS = 12


def disturbance(text):
    if text not in measurement.DISTURBANCES:
        raise argparse.ArgumentTypeError(
            f"{text}: not of {', '.join(measurement.DISTURBANCES)}"
        )
    return text


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--build", metavar="DIRECTORY", help="default: $HOLDFAST_BUILD, or build")
    add("--stage", choices=stages.NAMES, default="keeper", help="the manager")
    add(
        "--connections",
        type=report.list_of(report.positive),
        default=[100, 1000, 9000],
        metavar="N[,N...]",
        help="one run each (default: 100,1000,9000)",
    )
    add("--rounds", type=report.positive, default=10, metavar="N", help="default: 10")
    add(
        "--disturb",
        type=report.list_of(disturbance),
        metavar="NAME[,NAME...]",
        help=f"of {', '.join(measurement.DISTURBANCES)} (default: all that work)",
    )
    subject = parser.add_mutually_exclusive_group()
    subject.add_argument("--service", choices=("echo", "relay"), default="echo")
    subject.add_argument(
        "--peer",
        choices=[name for name, kind in peers.KINDS.items() if kind.reload_signal],
        help="another program in the place of the service",
    )
    add("--window", type=float, default=1.0, metavar="SECONDS", help="default: 1")
    add("--threads", type=report.positive, metavar="N", help="of holdfastd (default: its own)")
    add("--active", type=report.positive, default=50, metavar="N", help="default: 50")
    add("--bytes", type=report.positive, default=64, metavar="N", help="default: 64")
    add("--interval", type=report.positive, default=5, metavar="MSEC", help="default: 5")
    add(
        "--rest",
        type=float,
        default=REST_SECONDS,
        metavar="SECONDS",
        help="between the last connect and the first window: for connections that are to be "
        f"packed, of which there are a thousand a second (default: {REST_SECONDS})",
    )
    add("--json", metavar="FILE", help="where to write everything")
    add("--plot", metavar="FILE", help="where to draw the table (SVG)")
    return parser.parse_args()


def make_stage(name):
    if name == "keeper":
        return stage_keeper.KeeperStage()
    return stage_systemd.SystemdStage(name)


def subject_name(arguments):
    if arguments.peer:
        return peers.version(arguments.peer)
    command = [stages.built_program("holdfastd"), "--version"]
    result = subprocess.run(command, capture_output=True, check=True, text=True)
    return f"{result.stdout.strip()} {arguments.service}"


def facts(arguments, instance):
    """What the numbers depend on."""
    return {
        "subject": subject_name(arguments),
        "stage": arguments.stage,
        "n_threads": len(os.listdir(instance.proc() / "task")),
        **report.machine_facts(),
        "n_rounds": arguments.rounds,
        "window_seconds": arguments.window,
        "n_active": arguments.active,
        "message_bytes": arguments.bytes,
        "interval_msec": arguments.interval,
    }


def print_facts(known):
    print(
        "{subject}, {n_threads} threads in the main process; services under {stage}\n"
        "{kernel}, {n_cpus} x {cpu_model}, load average {load_average:.1f} before\n"
        "{n_rounds} rounds of windows of {window_seconds:g} s; {message_bytes} bytes every "
        "{interval_msec} ms\non each of {n_active} connections (or all, if fewer)\n".format(
            **known
        )
    )


HEADING = """\
                         longest pause (ms)  undisturbed (ms)    of the medians     manager's
      N  disturbance       median       max  median       max   difference  ratio  CPU (ms)"""
ROW = (
    "{n_connections:7}  {disturbance:12} {median_msec:11.1f} {max_msec:9.1f} "
    "{undisturbed_median_msec:7.1f} {undisturbed_max_msec:9.1f} "
    "{difference_msec:12.1f} {ratio:6.1f} "
)


def panels(runs):
    for one in runs:
        rows = one["summary"]
        calm = (
            measurement.UNDISTURBED,
            rows[0]["undisturbed_median_msec"],
            chart.COLOUR_FLOOR,
        )
        bars = [
            (row["disturbance"], row["median_msec"], chart.COLOUR_SUBJECT)
            for row in rows
            if row["disturbance"] != measurement.UNDISTURBED
        ]
        yield {
            "title": f"longest pause in ms, {one['n_connections']} connections",
            "bars": [calm, *bars],
        }


def print_growth(runs):
    """By how much each further connection prolongs the pauses, from the fewest to the most."""
    ordered = sorted(runs, key=lambda one: one["n_connections"])
    few, many = (
        {row["disturbance"]: row for row in one["summary"]} for one in (ordered[0], ordered[-1])
    )
    for name in few:
        n_more = many[name]["n_connections"] - few[name]["n_connections"]
        if n_more:
            msec = many[name]["difference_msec"] - few[name]["difference_msec"]
            print(f"{name}: {msec / n_more * 1000:.1f} us more for each connection")


def choose(arguments, instance):
    """The disturbances of this run. One that was asked for and can't be had is an error."""
    if arguments.disturb is None:
        return [
            name for name in measurement.DISTURBANCES if measurement.works(instance, name)
        ]
    for name in arguments.disturb:
        if not measurement.works(instance, name):
            raise stages.StageUnavailable(f"{name}: what is measured does not know it")
    return arguments.disturb


@contextlib.contextmanager
def started(arguments, stage):
    """What is measured: an Instance, or a Peer. Stopped at the end, with what is behind it."""
    options = [f"--threads={arguments.threads}"] if arguments.threads else []
    try:
        if arguments.peer:
            peer = peers.start(
                arguments.peer, stage.network, stage.start("echo").listen[0]
            )
            try:
                yield peer
            finally:
                peer.stop()
        elif arguments.service == "relay":
            upstream = stage.start("echo").listen[0]
            yield stage.start(f"relay {upstream}", options=options)
        else:
            yield stage.start("echo", options=options)
    finally:
        stage.stop_all()


def run(arguments, instance, network, n_connections):
    """One client of one service; returns facts and windows."""
    options = [
        f"--active={arguments.active}",
        f"--bytes={arguments.bytes}",
        f"--interval={arguments.interval}",
    ]
    names = choose(arguments, instance)
    known = facts(arguments, instance)
    address = instance.address()
    with measurement.Client(network, address, n_connections, options) as client:
        time.sleep(arguments.rest)
        windows = measurement.measure(
            client, instance, names, arguments.rounds, arguments.window
        )
    return known, windows


def run_all(arguments, stage):
    runs = []
    for n_connections in arguments.connections:
        with started(arguments, stage) as instance:
            known, windows = run(arguments, instance, stage.network, n_connections)
        rows = measurement.summary(n_connections, windows)
        if not runs:
            print_facts(known)
            print(HEADING)
        for row in rows:
            cpu_msec = row["manager_cpu_msec"]
            print(
                ROW.format(**row) + ("" if cpu_msec is None else f"{cpu_msec:9.1f}"), flush=True
            )
        if arguments.peer:
            print(f"{'':7}  {windows[-1]['n_workers']} workers at the end, old ones included")
        runs.append(
            {
                "n_connections": n_connections,
                "facts": known,
                "summary": rows,
                "windows": windows,
            }
        )
    return runs


def main():
    arguments = parse_arguments()
    if arguments.build:
        os.environ["HOLDFAST_BUILD"] = arguments.build
    try:
        stage = make_stage(arguments.stage)
        try:
            runs = run_all(arguments, stage)
        finally:
            stage.close()
    except stages.StageUnavailable as error:
        print(f"pause.py: cannot run here: {error}", file=sys.stderr)
        return report.STATUS_CANNOT_RUN
    except measurement.ClientFailed as error:
        print(f"pause.py: {error}", file=sys.stderr)
        return report.STATUS_FAILED
    print_growth(runs)
    report.write_json(arguments.json, runs)
    if arguments.plot:
        pathlib.Path(arguments.plot).write_text(chart.draw(panels(runs)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
