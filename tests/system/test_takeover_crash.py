# SPDX-License-Identifier: LGPL-2.1-or-later
"""SIGKILL of either process of a takeover, before and after each of its system calls.

Whatever the moment: one process serves afterwards, and streams in both directions, which are
checked byte by byte, go on as if nothing had happened.
"""

import contextlib
import itertools
import re
import subprocess

import pytest

import stages
import streams

# Of so many equal calls in a row only the first and the last are tried: what lies between
# them is the same state (posix_spawn(3) alone resets more than a hundred signals)
RUN_MAX = 8
# A sanitizer makes thousands of calls of its own, before main() and in it: of those a sample
SANITIZED_POINTS = 12
# What the successor does after the old process has gone
CALLS_AFTER_EXIT = 8
REACHED, NOT_REACHED = 0, 3
# The number of calls differs from one takeover to the next, on a busy machine by a third
COUNTS = 3
REACHED_MIN = 0.6
ATTEMPTS_MAX = 10

ROLES = {"old": [], "new": ["--child", f"--after-exit={CALLS_AFTER_EXIT}"]}


def trace(instance, *arguments):
    """A takeover under kill-at-call; returns its exit status and what it has printed.

    What was killed the last time may take the old process with it a moment later.
    """
    for _ in range(ATTEMPTS_MAX):
        instance.wait_ready()
        family = instance.family()
        if not family:
            continue
        command = [stages.built_program("kill-at-call"), f"--pid={family[0][0]}"]
        result = subprocess.run(
            [*command, "--signal=USR2", "--timeout=10", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode in (REACHED, NOT_REACHED):
            return result.returncode, result.stdout
    raise AssertionError(result.stderr)


def points(instance, role):
    """The numbers of the calls to be tried, and their names, in a takeover that succeeds."""
    return min((points_once(instance, role) for _ in range(COUNTS)), key=len)


def points_once(instance, role):
    _, text = trace(instance, "--count", *ROLES[role])
    calls = [(int(n), name) for n, name in re.findall(r"^(\d+) (\S+)$", text, re.MULTILINE)]
    chosen = []
    for _, run in itertools.groupby(calls, key=lambda call: call[1]):
        run = list(run)
        chosen += run if len(run) <= RUN_MAX else [run[0], run[-1]]
    if stages.has_sanitizer():
        chosen = chosen[:: len(chosen) // SANITIZED_POINTS + 1]
    return chosen


@pytest.mark.slow
@pytest.mark.stages("keeper")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("service", ["echo", "relay"])
def test_either_process_may_die_at_any_system_call(stage, service, role, when):
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(stage.upstream())
        loop = stack.enter_context(streams.Loop())
        name = "echo" if service == "echo" else f"relay {upstream.address}"
        instance = stage.start(name, options=["--threads=2"])
        pumps = []
        for seed in range(70, 73):
            stream = streams.Stream(seed)
            expected = stream if service == "echo" else streams.reply_to(stream)
            pumps.append(loop.add(streams.Pump(instance.connect(), stream, expected)))
        for pump in pumps:
            loop.wait_received(pump, 1)
        chosen = points(instance, role)
        instance.wait_alone()
        n_killed = 0
        for call, _ in chosen:
            status, _ = trace(instance, f"--call={call}", f"--when={when}", *ROLES[role])
            n_killed += status == REACHED
            instance.wait_alone()
            for pump in pumps:
                loop.wait_received(pump, pump.n_received + 1)
        loop.finish(*pumps)
        loop.wait_done(*pumps)
        for pump in pumps:
            if service == "echo":
                assert pump.received_digest == pump.sent_digest
            else:
                other = upstream.pump_of(pump.outgoing)
                upstream.loop.wait_done(other)
                assert pump.sent_digest == other.received_digest
                assert other.sent_digest == pump.received_digest
    print(f"{n_killed} kills {when} {len(chosen)} calls of the {role} process")
    assert n_killed > REACHED_MIN * len(chosen)
