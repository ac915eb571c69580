# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a round of the soak does: all its choices, made from one seed. soak.py does it.

A plan depends on its seed alone, and on nothing that happens: neither on the machine nor on
an earlier round. So a round is chosen again by its seed, and shown without being run.
"""

import dataclasses
import math
import random

SERVICES = ("echo", "relay", "log")
SIDES = ("client", "far")
N_CLIENTS = 6
CONVERSATIONS = (4, 8)  # of a client, one after the other
ACTS = (4, 12)
THREADS_MAX = 4

BYTES = (1, 150_000)
# More than sockets and pipe hold between them, so that the writer has to wait
FLOOD_BYTES = (3_000_000, 6_000_000)
LOG_BYTES = (1, 3_000)
LOG_FLOOD_BYTES = (5_000, 20_000)
REST_MSEC = (0, 400)
GAP_MSEC = (0, 100)
AWAY_MSEC = (0, 60)
# System calls until a kill: of a process that serves, that starts, or of a takeover
SERVING_CALLS = (1, 3_000)
STARTING_CALLS = (1, 600)
TAKEOVER_CALLS = (1, 500)


@dataclasses.dataclass(frozen=True)
class Act:
    """What a conversation does next.

    send, flood   side has n more bytes to send
    urgent        side has one more byte to send, out of band
    pause, resume side reads no more, or again
    rest          for n milliseconds
    await         until side has received all that it has to
    and at its end, `msec` before the other side reads on, one of
    shut          side ends its direction, and once that has arrived, the other one its own
    half          side ends its direction; the other one has n more bytes for it, then ends
    close         side closes, whatever there is to be read
    reset         side resets
    ctl-close     holdfastctl close
    ctl-reset     holdfastctl close --reset
    """

    name: str
    side: str = "client"
    n: int = 0
    msec: int = 0

    def __str__(self):
        return f"{self.name}({self.side}, {self.n}, {self.msec})"


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """gap_msec after the last one: what happens to the service, and its numbers.

    kill             SIGKILL, at whatever moment
    kill-at-call     before or after the n-th system call from now on
    kill-twice       the same, and of the process that starts then
    kill-while-away  nothing runs for `msec`, and the connections go on without
    restart          with `threads` threads
    takeover         by SIGUSR2
    ctl-takeover     by holdfastctl, to a process with `threads` threads
    takeover-killed  SIGKILL of either process, `msec` after the request
    takeover-at-call SIGKILL of the old or the new process before or after its n-th call,
                     of the main thread or of any
    freeze           SIGSTOP for `msec`
    ask              holdfastctl audit, list, status, metrics
    """

    name: str
    gap_msec: int
    threads: int
    msec: int
    call: int
    second_call: int
    when: str
    is_successor: bool
    is_any_thread: bool

    def __str__(self):
        role = "new" if self.is_successor else "old"
        threads = "any" if self.is_any_thread else "main"
        return (
            f"{self.name}(gap={self.gap_msec}, threads={self.threads}, msec={self.msec}, "
            f"call={self.call}, then={self.second_call}, {self.when}, "
            f"{role}, {threads} thread)"
        )


# How often, of all disturbances
WEIGHTS = {
    "kill": 6,
    "kill-at-call": 8,
    "kill-twice": 4,
    "kill-while-away": 2,
    "restart": 3,
    "takeover": 3,
    "ctl-takeover": 2,
    "takeover-killed": 3,
    "takeover-at-call": 4,
    "freeze": 2,
    "ask": 2,
}

ACT_WEIGHTS = {
    "send": 8,
    "flood": 2,
    "urgent": 2,
    "pause": 2,
    "resume": 1,
    "rest": 5,
    "await": 3,
}

END_WEIGHTS = {"shut": 4, "half": 3, "close": 2, "reset": 3, "ctl-close": 1, "ctl-reset": 1}


def between(chance, bounds):
    """A number of bounds, of which the small are as frequent as the large."""
    low, high = bounds
    return round(math.exp(chance.uniform(math.log(max(low, 1)), math.log(high))))


def pick(chance, weights):
    return chance.choices(list(weights), list(weights.values()))[0]


class Plan:
    """The choices of a seed. disturbances() has no end: a round takes what it has time for."""

    def __init__(self, seed, service=None):
        chance = random.Random(f"round {seed}")
        self.seed = seed
        chosen = chance.choices(SERVICES, (2, 4, 1))[0]
        self.service = service or chosen
        self.listens_unix = chance.random() < 0.25
        self.upstream_is_unix = chance.random() < 0.25
        self.threads = chance.randint(1, THREADS_MAX)
        self.clients = [
            [self._conversation(chance) for _ in range(chance.randint(*CONVERSATIONS))]
            for _ in range(N_CLIENTS)
        ]

    def _conversation(self, chance):
        acts = [self._act(chance) for _ in range(chance.randint(*ACTS))]
        ends = dict(END_WEIGHTS)
        if self.listens_unix:
            # Such clients have no name that their connection could be found by
            del ends["ctl-close"], ends["ctl-reset"]
        n, msec = between(chance, BYTES), chance.choice((0, chance.randint(*REST_MSEC)))
        acts.append(Act(pick(chance, ends), self._side(chance), n, msec))
        return acts

    def _side(self, chance):
        side = chance.choice(SIDES)
        return side if self.service == "relay" else "client"

    def _act(self, chance):
        name, side = pick(chance, ACT_WEIGHTS), self._side(chance)
        is_log = self.service == "log"
        bounds = {
            "send": LOG_BYTES if is_log else BYTES,
            "flood": LOG_FLOOD_BYTES if is_log else FLOOD_BYTES,
        }.get(name)
        if name == "rest":
            return Act(name, n=chance.randint(*REST_MSEC))
        return Act(name, side, between(chance, bounds) if bounds else 0)

    def disturbances(self):
        """Each takes the same numbers from the seed, whether it needs them or not."""
        chance = random.Random(f"disturbances {self.seed}")
        while True:
            name = pick(chance, WEIGHTS)
            calls = TAKEOVER_CALLS if name == "takeover-at-call" else SERVING_CALLS
            yield Disturbance(
                name=name,
                gap_msec=chance.randint(*GAP_MSEC),
                threads=chance.randint(1, THREADS_MAX),
                msec=chance.randint(*AWAY_MSEC),
                call=between(chance, calls),
                second_call=between(chance, STARTING_CALLS),
                when=chance.choice(("before", "after")),
                is_successor=chance.random() < 0.5,
                is_any_thread=chance.random() < 0.5,
            )

    def __str__(self):
        listens = "UNIX" if self.listens_unix else "TCP"
        upstream = ""
        if self.service == "relay":
            upstream = f", upstream {'UNIX' if self.upstream_is_unix else 'TCP'}"
        return (
            f"round {self.seed}: {self.service}, listener {listens}{upstream}, "
            f"{self.threads} threads, {sum(map(len, self.clients))} connections"
        )

    def details(self, n_disturbances=30):
        """Every choice, for a person."""
        lines = [str(self)]
        for i, client in enumerate(self.clients):
            lines += [
                f"  client {i}.{k}: {', '.join(map(str, acts))}" for k, acts in enumerate(client)
            ]
        endless = self.disturbances()
        lines += [f"  disturbance {i}: {next(endless)}" for i in range(n_disturbances)]
        return "\n".join(lines)
