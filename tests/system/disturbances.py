# SPDX-License-Identifier: LGPL-2.1-or-later
"""What may happen to a service in the middle of a scenario, without a peer noticing.

Each scenario runs once for each disturbance and must give the same bytes every time.
"""

import contextlib
import os
import random
import signal
import threading
import time

import pytest

import stages


def undisturbed(_instance):
    """The scenario itself works."""


def restarted(instance):
    """A planned restart: what `systemctl restart` does."""
    instance.restart()


def killed(instance):
    """What a crash, the OOM killer and an upset administrator do."""
    instance.kill()


def taken_over(instance):
    """What `systemctl reload` does: another process goes on, and none is ever missing."""
    instance.takeover()


def restarted_with_other_threads(instance):
    """The slots of one worker are spread over others."""
    instance.restart(options=["--threads=3"])


ALL = (undisturbed, restarted, killed, taken_over)
each = pytest.mark.parametrize("disturb", ALL, ids=lambda function: function.__name__)


class KilledInTakeover:
    """A takeover in which one of the two processes is killed at some moment."""

    # A takeover takes some 20 ms, mostly the new program's start
    LONGEST_SECONDS = 0.03

    def __init__(self, seed):
        self._random = random.Random(seed)
        print(f"seed {seed}")

    def __call__(self, instance):
        kill_in_takeover(
            instance, self._random.uniform(0, self.LONGEST_SECONDS), self._random.randrange(2)
        )


def kill_in_takeover(instance, seconds, which):
    """A takeover in which, so long after its request, the old process (0) or the new one is
    killed: the one there is, if there is but one."""
    _begin_takeover(instance)
    time.sleep(seconds)  # The moment is the test's input
    processes = instance.family()
    killed = 0
    if processes:
        outside, killed, _ = processes[which % len(processes)]
        with contextlib.suppress(ProcessLookupError):
            os.kill(outside, signal.SIGKILL)
    # It is there for a moment yet
    instance.wait_alone(killed)


def _begin_takeover(instance):
    while True:
        instance.wait_pid_change(0)
        # One that was killed the last time may be there for a moment yet
        with contextlib.suppress(ProcessLookupError):
            instance.begin_takeover()
            return


class Storm:
    """Disturbs the service again and again, in a thread, until the end of its with block.

    On a busy machine a process may not come to serve before it is killed: each n-th is let
    come up, so that bytes go on moving.

    interval   seconds from one disturbance to the next; more where it takes longer
    """

    LET_UP_EVERY = 10

    def __init__(self, instance, interval=0.03, disturb=killed):
        self.n_disturbances = 0
        self._instance = instance
        self._interval = interval
        self._disturb = disturb
        self._end = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, name="storm", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join(stages.PATIENCE_SECONDS * 2)
        if self._failure:
            raise self._failure

    def has_reached(self, n):
        """Whether there were n disturbances, or one has failed, as the end will tell."""
        return self.n_disturbances >= n or self._failure is not None

    def _run(self):
        try:
            due = time.monotonic() + self._interval
            # The pace is the test's input, not something that is waited for
            while not self._end.wait(max(0, due - time.monotonic())):
                due = max(due, time.monotonic()) + self._interval
                self._disturb(self._instance)
                self.n_disturbances += 1
                if self.n_disturbances % self.LET_UP_EVERY == 0:
                    self._instance.wait_ready()
                    # However long that took, it is to serve for a while
                    due = time.monotonic() + self._interval
        except BaseException as error:  # pylint: disable=broad-except
            self._failure = error
