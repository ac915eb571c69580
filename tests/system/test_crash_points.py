# SPDX-License-Identifier: LGPL-2.1-or-later
"""SIGKILL at, and failure of, the system calls of a service: here a sample of them.

tests/crash/every-point tries them all. What is tried depends on a seed, which a failure
shows; HOLDFAST_CRASH_SEED= gives it to be tried again.
"""

import os
import random
import re
import subprocess

import pytest

import conftest
import crash_points
import stages

# Of each kind and service; a sanitizer makes each run a second long, and thousands of calls
SAMPLES = {"kills": 40, "two-kills": 15, "faults": 35}
N_OF_TWO_WORKERS = 12
SANITIZED_SAMPLES = {"kills": 15, "two-kills": 6}
# The calls of a worker differ a little from one run to the next, and what the second process
# adopts depends on where the first was killed
NOT_REACHED_MAX = {"kills": 0.1, "two-kills": 0.5, "faults": 0.1}
SANITIZED_NOT_REACHED_MAX = 0.5


@pytest.fixture(name="net", scope="module")
def fixture_net():
    net = conftest.or_cannot_run("crash-run", crash_points.make_network)
    yield net
    net.close()


@pytest.fixture(name="seed")
def fixture_seed():
    return int(os.environ.get("HOLDFAST_CRASH_SEED", random.randrange(1 << 32)))


def n_samples(what):
    if not stages.has_sanitizer():
        return SAMPLES[what]
    if what not in SANITIZED_SAMPLES:
        pytest.skip("a sanitizer's own calls would fail, and it ends the process")
    return SANITIZED_SAMPLES[what]


def check(total, what, seed):
    text = f"seed {seed}: {total}"
    print(text)
    assert not total.failures, text + "\n" + "\n".join(map(str, total.failures))
    share = SANITIZED_NOT_REACHED_MAX if stages.has_sanitizer() else NOT_REACHED_MAX[what]
    assert total.counts["not reached"] <= share * total.counts["points"] + 1, text


@pytest.mark.slow
@pytest.mark.stages("keeper")
@pytest.mark.usefixtures("stage")
@pytest.mark.parametrize("what", crash_points.PLANS)
@pytest.mark.parametrize("service", crash_points.SERVICES)
def test_peers_notice_no_point(net, service, what, seed):
    n = n_samples(what)
    with crash_points.Runner(net, service) as runner:
        check(crash_points.run_sample(runner, what, n, seed), what, seed)


@pytest.mark.slow
@pytest.mark.stages("keeper")
@pytest.mark.usefixtures("stage")
@pytest.mark.parametrize("service", crash_points.SERVICES)
def test_peers_notice_no_point_of_two_workers(net, service, seed):
    """Which of them accepts differs from run to run, so fewer points are reached."""
    n = N_OF_TWO_WORKERS
    with crash_points.Runner(net, service, threads=2) as runner:
        check(crash_points.run_sample(runner, "kills", n, seed), "two-kills", seed)


@pytest.mark.slow
@pytest.mark.stages("keeper")
@pytest.mark.usefixtures("stage")
@pytest.mark.parametrize(
    "service, calls_of",
    (("relay", "2.0.recvmsg"), ("relay", "2.0.mmap"), ("log", "1.2.tee")),
    ids=("recvmsg-at-adopt", "mmap-at-adopt", "tee-of-log"),
)
def test_want_of_memory_costs_no_connection(net, service, calls_of):
    """At none of these calls, of which a sample has few."""
    if stages.has_sanitizer():
        pytest.skip("a sanitizer's own calls would fail, and it ends the process")
    with crash_points.Runner(net, service) as runner:
        calls = runner.calls()
        total = crash_points.Sum(calls)
        for plan in crash_points.fault_plans(calls):
            if plan.startswith(calls_of + "."):
                total.add(runner.run(plan))
        assert total.counts["points"] > 5
        check(total, "faults", 0)


# crash-run itself


def test_point_that_is_not_reached_is_said_to_be_so(net):
    with crash_points.Runner(net, "echo") as runner:
        answer = runner.run("9.0.1:before")
        assert answer.survived and not answer.reached
        assert runner.run("").reached


@pytest.mark.parametrize("when", ("before", "after"))
def test_call_is_the_one_that_was_meant_by_name(net, when):
    with crash_points.Runner(net, "echo") as runner:
        first = next(call for call in runner.calls() if call.name == "accept4")
        answer = runner.run(first.point_of_name(when))
        assert answer.survived, answer
        assert "at=accept4" in answer.text
        # the first process, what came after the kill, and after the scenario's own
        assert answer.values["processes"] == 3
        assert ("unprotected" in answer.text) == (when == "after")
        assert answer.values["refused"] == (when == "after")


@pytest.mark.parametrize("when", ("before", "after"))
def test_call_is_the_one_that_was_meant_by_number(net, when):
    """Which call has this number is not the same in each run, so the run itself has to tell."""
    with crash_points.Runner(net, "echo") as runner:
        first = next(call for call in runner.calls() if call.name == "accept4")
        answer = runner.run(first.point(when) + " show")
        assert answer.survived, answer
        assert answer.values["processes"] == 3
        made = [call for call in answer.calls if (call.process, call.thread) == (1, first.thread)]
        if when == "before":  # and so it was not made
            assert made[-1].number == first.number - 1
        else:
            assert made[-1].number == first.number
            assert re.search(rf"at={made[-1].name}\b", answer.text), answer.text


def test_service_that_does_not_serve_fails(net, tmp_path):
    program = tmp_path / "no-service"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    with crash_points.Runner(net, "echo", program) as runner:
        answer = runner.run("")
        assert not answer.survived
        assert "why=" in answer.text


@pytest.mark.parametrize(
    "arguments, plan, status",
    ((("--sort",), "", 2), (("keeper", "service", "ftp"), "", 2), ((), "1.0:before", 2)),
)
def test_wrong_usage_fails(arguments, plan, status):
    command = [conftest.or_cannot_run("crash-run", lambda: stages.built_program("crash-run"))]
    result = subprocess.run(
        [*command, *arguments], input=plan, capture_output=True, text=True, check=False
    )
    assert result.returncode == status and result.stdout == ""
    assert result.stderr


def test_help_names_every_option_and_outcome():
    program = conftest.or_cannot_run("crash-run", lambda: stages.built_program("crash-run"))
    text = subprocess.run([program, "--help"], capture_output=True, text=True, check=True).stdout
    for word in "--listen --upstream --threads --help before after show may-reset survived failed".split():
        assert word in text
