# SPDX-License-Identifier: LGPL-2.1-or-later
"""What may happen to a service in the middle of a scenario, without a peer noticing.

Each scenario runs once for each disturbance and must give the same bytes every time.
"""

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


class Killer:
    """Kills the service again and again, in a thread, until the end of its with block.

    interval   seconds from one kill to the next; more where the manager takes longer to start
               the next process
    """

    def __init__(self, instance, interval=0.03):
        self.n_kills = 0
        self._instance = instance
        self._interval = interval
        self._end = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join(stages.PATIENCE_SECONDS * 2)
        if self._failure:
            raise self._failure

    def _run(self):
        try:
            due = time.monotonic() + self._interval
            # The pace is the test's input, not something that is waited for
            while not self._end.wait(max(0, due - time.monotonic())):
                due = max(due, time.monotonic()) + self._interval
                self._instance.kill()
                self.n_kills += 1
        except BaseException as error:  # pylint: disable=broad-except
            self._failure = error
