# SPDX-License-Identifier: LGPL-2.1-or-later
"""Takeover and restart between versions, in both directions.

The other versions are this tree, built with other constants (tests/versions).
"""

import pathlib
import shutil

import pytest

import stages
from questions import replace_program, serving_stream

FAILED = r"The takeover by pid \d+ has failed: (.*)\. Pid (\d+) goes on"

pytestmark = pytest.mark.stages("keeper")


class Upgraded:
    """A service that is started from a file of its own, which becomes another version."""

    def __init__(self, stage, directory, first):
        self.path = directory / "holdfastd"
        shutil.copy(stages.built_program(first), self.path)
        self.instance = stage.start("echo", program=str(self.path))

    def become(self, name):
        replace_program(self.path, pathlib.Path(stages.built_program(name)).read_bytes())


@pytest.mark.parametrize("first, second", [("holdfastd", "holdfastd-next"), ("holdfastd-next", "holdfastd")])
def test_versions_take_over_from_each_other(stage, tmp_path, first, second):
    service = Upgraded(stage, tmp_path, first)
    with serving_stream(service.instance) as stream_goes_on:
        for name in (second, first, second):
            service.become(name)
            service.instance.takeover()
            stream_goes_on()
            service.instance.kill()
            service.instance.wait_ready()
            stream_goes_on()
    assert not [line for line in service.instance.lines() if "ledger" in line]


def test_upgrade_to_a_version_that_the_old_one_can_not_read(stage, tmp_path):
    """It goes on with the ledger that there is, so the way back stays open."""
    service = Upgraded(stage, tmp_path, "holdfastd")
    with serving_stream(service.instance) as stream_goes_on:
        for name in ("holdfastd-incompatible", "holdfastd"):
            service.become(name)
            service.instance.takeover()
            stream_goes_on()


def test_successor_that_can_not_read_the_ledger_leaves_the_old_one_serving(stage, tmp_path):
    service = Upgraded(stage, tmp_path, "holdfastd-incompatible")
    with serving_stream(service.instance) as stream_goes_on:
        service.become("holdfastd")
        old = service.instance.begin_takeover()
        reason = service.instance.wait_line(FAILED)[1]
        assert "ledger is of a newer version" in reason
        assert service.instance.wait_alone() == old
        stream_goes_on()


@pytest.mark.parametrize(
    "first, second", [("holdfastd", "holdfastd-estranged"), ("holdfastd-estranged", "holdfastd")]
)
def test_successor_that_speaks_otherwise_leaves_the_old_one_serving(stage, tmp_path, first, second):
    service = Upgraded(stage, tmp_path, first)
    with serving_stream(service.instance) as stream_goes_on:
        service.become(second)
        old = service.instance.begin_takeover()
        assert "another version of the handover" in service.instance.wait_line(FAILED)[1]
        assert service.instance.wait_alone() == old
        stream_goes_on()
