# SPDX-License-Identifier: LGPL-2.1-or-later
"""The points at which crash-run kills a service or fails its calls, and what came of it.

crash-run (tests/crash) does one run of a service's scenario for each plan, a line of text.
Here plans are made of the calls that an undisturbed run has made, and answers are counted.
"""

import collections
import collections.abc
import dataclasses
import errno
import fcntl
import os
import random
import re
import struct
import subprocess

import network
import stages

SERVICES = ("echo", "relay", "log")
SIOCSIFMTU = 0x8922

# Small buffers, so that a few KiB that nobody reads are back-pressure
MTU = 1500
SYSCTLS = {
    "net/ipv4/tcp_rmem": "4096 16384 16384",
    "net/ipv4/tcp_wmem": "4096 16384 16384",
}

# A process more means so many calls, and whoever waits makes some more; a busy loop makes
# tens of thousands until crash-run gives up
CALLS_OF_A_PROCESS = 1000
CALLS_OF_WAITING = 1500

NEW_FDS = {"EMFILE": "the process has no fd left", "ENOMEM": "nor has the kernel memory"}

# Which errors a call can give by its manual page, in the way that the service uses it. No
# EINTR for close(2): Linux has closed the fd by then, and the call that is not made here has
# not. None for futex(2) and brk(2), which are glibc's. None for a call in whose page there
# is no error of these, or only for a use that the service does not make (fcntl: locks), and
# no EAGAIN where something is there for sure (recvmsg: before the end of a parcel; read by a
# worker: of what has just been copied to a pipe).
FAULTS = {
    "accept4": {
        "EINTR": "a signal",
        "EAGAIN": "the client has gone, or another worker was faster",
        **NEW_FDS,
        "ENOBUFS": "no memory for socket buffers",
    },
    "clone3": {"EAGAIN": "the limit of tasks (TasksMax=)", "ENOMEM": "no memory"},
    "connect": {"EAGAIN": "no local port is free"},  # see can_fail()
    "epoll_create1": NEW_FDS,
    "epoll_ctl_add": {"ENOMEM": "no memory"},
    "epoll_wait": {"EINTR": "a signal"},
    "eventfd2": NEW_FDS,
    "ftruncate": {"EINTR": "a signal"},
    "getpeername": {"ENOBUFS": "no memory"},
    "getsockname": {"ENOBUFS": "no memory"},
    "memfd_create": NEW_FDS,
    "mmap": {"ENOMEM": "no memory, or too many mappings", "EAGAIN": "locked memory"},
    "mprotect": {"ENOMEM": "too many mappings"},
    "openat": {"EINTR": "a signal", **NEW_FDS},
    "pipe2": {"EMFILE": "no fd left, or the user's pipes have too many pages"},
    "poll": {"EINTR": "a signal", "ENOMEM": "no memory"},
    "read": {"EINTR": "a signal"},
    "recvmsg": {"EINTR": "a signal", "ENOMEM": "no memory"},
    "sendmsg": {
        "EINTR": "a signal",
        "EAGAIN": "the queue is full",
        "ENOBUFS": "no memory",
        "ENOMEM": "no memory",
        "ETOOMANYREFS": "too many fds in flight (RLIMIT_NOFILE, unix(7))",
    },
    "signalfd4": NEW_FDS,
    "socket": {**NEW_FDS, "ENOBUFS": "no memory"},
    "socketpair": NEW_FDS,
    "splice": {
        "EINTR": "a signal (not in the page; the kernel's)",
        "EAGAIN": "it would block",
        "ENOMEM": "no memory",
    },
    "tee": {"EAGAIN": "it would block", "ENOMEM": "no memory"},
    "timerfd_create": NEW_FDS,
    "write": {"EINTR": "a signal", "EAGAIN": "it would block"},  # see can_fail()
}
EVENTFD_BYTES = 8

# Which of them may reset a connection, since there is no other way. All others must not be
# noticed by any peer.
UNPROTECTED = "what can't be put into the store is refused"
RESETS = {
    ("sendmsg", "EAGAIN"): "the same, for a parcel that is full and empty",
    ("sendmsg", "ENOBUFS"): UNPROTECTED,
    ("sendmsg", "ENOMEM"): UNPROTECTED,
    ("sendmsg", "ETOOMANYREFS"): UNPROTECTED,
    ("socket", "EMFILE"): "there is no upstream",
    ("socket", "ENOBUFS"): "there is no upstream",
    ("socket", "ENOMEM"): "there is no upstream",
    ("epoll_ctl_add", "ENOMEM"): "what can't be watched can't be served",
}
MAY_RESET = " may-reset"


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of an undisturbed run."""

    process: int
    thread: int
    number: int
    name: str
    number_of_name: int
    result: int

    def point(self, what):
        return f"{self.process}.{self.thread}.{self.number}:{what}"

    def point_of_name(self, what):
        """The same in runs with a call of another name more or less before it."""
        return f"{self.process}.{self.thread}.{self.name}.{self.number_of_name}:{what}"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a run has come to."""

    plan: str
    text: str
    said: str
    values: dict
    calls: tuple

    @property
    def survived(self):
        return self.text.startswith("survived ")

    @property
    def reached(self):
        """Whether all its points were."""
        return "at=not-reached" not in self.text

    def __str__(self):
        return f"{self.plan!r}: {self.text}\n{self.said}"


def make_network():
    """A network of its own whose TCP has little room."""
    if os.geteuid() != 0:
        raise stages.StageUnavailable("only root can make a network of its own")
    stages.built_program("crash-run")
    net = network.NetworkNamespace.new()

    def narrow():
        for name, value in SYSCTLS.items():
            with open(f"/proc/sys/{name}", "w", encoding="ascii") as sysctl:
                sysctl.write(value)

    net.call(narrow)
    with net.socket() as control:
        fcntl.ioctl(control, SIOCSIFMTU, struct.pack("16si", b"lo", MTU).ljust(40, b"\0"))
    return net


class Runner:
    """A crash-run for one service. Answers come in the order of the plans."""

    def __init__(self, net, service, program=None, threads=1):
        self.service = service
        command = [
            stages.built_program("crash-run"),
            f"--threads={threads}",
            stages.built_program("holdfast-keeper"),
            program or stages.built_program("holdfastd"),
            service,
        ]
        # pylint: disable=consider-using-with # close() ends it
        self._process = subprocess.Popen(
            net.command(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG": "C.UTF-8",
                **{name: os.environ[name] for name in os.environ if "SAN_OPTIONS" in name},
            },
        )

    def run(self, plan):
        self._process.stdin.write(plan + "\n")
        self._process.stdin.flush()
        calls, said, names = [], [], collections.Counter()
        for line in self._process.stdout:
            words = line.split()
            if words[:1] == ["call"]:
                process, thread, number = map(int, words[1].split("."))
                names[(process, thread, words[2])] += 1
                n_of_name = names[(process, thread, words[2])]
                calls.append(Call(process, thread, number, words[2], n_of_name, int(words[3])))
            elif words[:1] in (["survived"], ["failed"]):
                values = dict(re.findall(r"(\w+)=(\d+)", line.partition(" why=")[0]))
                values = {name: int(value) for name, value in values.items()}
                return Answer(plan, line.strip(), "".join(said), values, tuple(calls))
            elif words[:1] == ["|"]:
                said.append(line)
        raise RuntimeError(f"crash-run has ended with {self._process.wait()} at {plan!r}")

    def calls(self):
        """The calls of an undisturbed run, in their order."""
        answer = self.run("show")
        assert answer.survived, answer
        return answer.calls

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# Plans


def kill_plans(calls):
    return [call.point(when) for call in calls for when in ("before", "after")]


def from_first_accept(calls, process):
    """What a process does before it serves, and from then on."""
    mine = [call for call in calls if call.process == process]
    first = next(n for n, call in enumerate(mine) if call.name == "accept4")
    return mine[:first], mine[first:]


def two_kill_plans(calls):
    """A kill of the first process as it serves, and one of the next as it adopts."""
    _, serves = from_first_accept(calls, 1)
    adopts, _ = from_first_accept(calls, 2)
    return Product(kill_plans(serves), kill_plans(adopts))


class Product(collections.abc.Sequence):
    """All pairs of two lists of plans, which are too many to be kept."""

    def __init__(self, first, second):
        self._first = first
        self._second = second

    def __len__(self):
        return len(self._first) * len(self._second)

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError(index)
        first, second = divmod(index, len(self._second))
        return f"{self._first[first]} {self._second[second]}"


def own_calls(calls):
    """Without those of the dynamic linker, which comes before the first of these."""
    has_begun = set()
    for call in calls:
        if call.name == "rt_sigprocmask":
            has_begun.add(call.process)
        if call.process in has_begun:
            yield call


def can_fail(call):
    """Not all calls of a name can; what this one was, its result tells."""
    if call.name == "write":
        # An eventfd never waits for what a signal could interrupt, and says EAGAIN only
        # where there is enough to be read already
        return call.result != EVENTFD_BYTES
    if call.name == "connect":
        # Done at once, it is no connect, but a reset (AF_UNSPEC), which needs nothing
        return call.result != 0
    return True


def fault_plans(calls):
    for call in filter(can_fail, own_calls(calls)):
        for error in FAULTS.get(call.name, ()):
            may_reset = MAY_RESET if (call.name, error) in RESETS else ""
            yield call.point_of_name(getattr(errno, error)) + may_reset


PLANS = {"kills": kill_plans, "two-kills": two_kill_plans, "faults": fault_plans}


def sample(plans, n, chance):
    """n of them (0: all): a random one out of each of n equal parts.

    Not every n-th, which of pairs could all have the same second half."""
    plans = plans if isinstance(plans, Product) else list(plans)
    if n == 0 or n >= len(plans):
        return plans
    bounds = [i * len(plans) // n for i in range(n + 1)]
    return [plans[chance.randrange(*part)] for part in zip(bounds, bounds[1:])]


# Sums


class Sum:
    """What came of many runs."""

    def __init__(self, undisturbed_calls):
        self.counts = collections.Counter()
        self.failures = []
        self._n_calls = len(undisturbed_calls)

    def add(self, answer):
        self.counts["points"] += 1
        self.counts["not reached"] += not answer.reached
        self.counts["reset before a byte was read"] += answer.values["refused"]
        self.counts["reset by a failing call"] += answer.values["lost"]
        self.counts["log entries repeated"] += answer.values["repeated"]
        limit = self._n_calls + CALLS_OF_WAITING
        limit += CALLS_OF_A_PROCESS * (answer.values["processes"] - 2)
        if answer.survived and answer.values["calls"] <= limit:
            self.counts["survived"] += 1
        else:
            self.failures.append(answer)

    def __str__(self):
        return ", ".join(f"{n} {name}" for name, n in self.counts.items())


def run_sample(runner, what, n, seed):
    """Runs n plans of PLANS[what], 0 for all of them; returns the Sum."""
    calls = runner.calls()
    total = Sum(calls)
    for plan in sample(PLANS[what](calls), n, random.Random(seed)):
        total.add(runner.run(plan))
    return total
