# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fixtures of the system tests.

A test that takes `stage` runs once under each manager: the keeper, systemd 252, systemd 257.
Stages are made when first needed and shared by the tests that follow, unless a test fails: it
may have left anything behind, so the next one gets a new stage.
"""

import os

import pytest

import machine
import stage_keeper
import stage_systemd
import stages

# No test may hang: this is far above what the slowest one takes
TEST_TIMEOUT_SECONDS = 300

# In the place of a stage: what needs none
NO_STAGE = "none"

STAGE_KEY = pytest.StashKey()
FAILED_KEY = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption(
        "--stage",
        action="append",
        metavar="NAME",
        help="only the tests of these stages, of "
        f"{', '.join(stages.NAMES)} and {NO_STAGE}; may be repeated",
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than some ten seconds")
    config.addinivalue_line(
        "markers", "stages(*prefixes): only the stages whose names begin so"
    )
    config.addinivalue_line(
        "markers", "damages: may make connections that do not pass their audit"
    )
    for name in config.getoption("--stage") or ():
        if name not in (*stages.NAMES, NO_STAGE):
            raise pytest.UsageError(
                f"--stage={name}: not of {', '.join(stages.NAMES)} and {NO_STAGE}"
            )


def pytest_collection_modifyitems(config, items):
    if not config.pluginmanager.hasplugin("timeout"):
        raise pytest.UsageError("the pytest-timeout plugin is missing")
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_SECONDS))
    selected = config.getoption("--stage") or (*stages.NAMES, NO_STAGE)
    chosen = [item for item in items if stage_name(item) in selected]
    if len(chosen) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def stage_name(item):
    """The stage that a test runs in, or NO_STAGE."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return parameters.get("stage", parameters.get("booted_machine", NO_STAGE))


def pytest_generate_tests(metafunc):
    marker = metafunc.definition.get_closest_marker("stages")
    prefixes = marker.args if marker else ("",)
    if "stage" in metafunc.fixturenames:
        names = [name for name in stages.NAMES if name.startswith(prefixes)]
        metafunc.parametrize("stage", names, indirect=True)
    if "booted_machine" in metafunc.fixturenames:
        names = [name for name in stage_systemd.SUITES if name.startswith(prefixes)]
        metafunc.parametrize("booted_machine", names, indirect=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Puts the end of the log below a failure."""
    report = (yield).get_result()
    stage = item.stash.get(STAGE_KEY, None)
    if not report.failed or stage is None:
        return
    item.stash[FAILED_KEY] = True
    try:
        lines = stage.last_lines(100)
    except Exception as error:  # pylint: disable=broad-except # the failure itself says more
        lines = f"not to be had: {error}"
    report.sections.append((f"log of {stage.name}", lines))


def or_cannot_run(name, make):
    """What make() returns. A test that can't run says why; where all must run, it fails."""
    try:
        return make()
    except (stages.StageUnavailable, machine.MachineUnavailable) as error:
        reason = f"{name}: {error}"
    if os.environ.get("CI") == "true" or os.environ.get("HOLDFAST_REQUIRE_ALL") == "1":
        pytest.fail(f"cannot run here: {reason}", pytrace=False)
    pytest.skip(reason)


class StagePool:
    """The stages that have been made, and why others could not be."""

    def __init__(self):
        self._stages = {}
        self._reasons = {}

    def get(self, name):
        if name in self._reasons:
            raise stages.StageUnavailable(self._reasons[name])
        if name not in self._stages:
            try:
                self._stages[name] = self._make(name)
            except stages.StageUnavailable as error:
                self._reasons[name] = str(error)
                raise
        return self._stages[name]

    @staticmethod
    def _make(name):
        if name == "keeper":
            return stage_keeper.KeeperStage()
        return stage_systemd.SystemdStage(name)

    def discard(self, name):
        self._stages.pop(name).close()

    def close(self):
        while self._stages:
            self._stages.popitem()[1].close()


@pytest.fixture(scope="session")
def stage_pool():
    pool = StagePool()
    yield pool
    pool.close()


@pytest.fixture
def stage(request, stage_pool):
    """A stages.Stage; what is started in it is stopped after the test."""
    name = request.param
    chosen = or_cannot_run(name, lambda: stage_pool.get(name))
    request.node.stash[STAGE_KEY] = chosen
    yield chosen
    try:
        chosen.stop_all()
        failed_audits = chosen.take_failed_audits()
        if request.node.get_closest_marker("damages") is None:
            assert not failed_audits
    except BaseException:
        request.node.stash[FAILED_KEY] = True
        raise
    finally:
        if request.node.stash.get(FAILED_KEY, False) or not chosen.is_healthy():
            stage_pool.discard(name)


@pytest.fixture
def booted_machine(request):
    """A machine.Machine of its own, with nothing of the project in it."""
    suite = stage_systemd.SUITES[request.param]
    with or_cannot_run(request.param, lambda: machine.Machine.boot(suite)) as booted:
        yield booted
