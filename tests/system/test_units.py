# SPDX-License-Identifier: LGPL-2.1-or-later
"""The units, as systemd itself judges them."""

import re

import pytest

import stages

UNITS = ("holdfast@8888.socket", "holdfast@8888.service")
# Of ten: the lower, the less could a service that was taken over do
EXPOSURE_MAX = 1.5


@pytest.fixture
def machine(stage):
    if stage.machine is None:
        pytest.fail("these are tests of the systemd stages")
    return stage.machine


@pytest.mark.stages("systemd")
@pytest.mark.parametrize("unit", UNITS)
def test_units_pass_verify_without_a_word(machine, unit):
    # The machine has no manuals; that those which the units name exist: test_manuals.py
    command = ["systemd-analyze", "verify", "--man=no", unit]
    result = machine.run(command, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.stages("systemd")
def test_service_is_little_exposed(machine):
    result = machine.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", UNITS[1]], check=False
    )
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
    assert match, result.stdout + result.stderr
    assert float(match[1]) <= EXPOSURE_MAX


@pytest.mark.stages("systemd")
def test_socket_alone_starts_the_service(stage):
    """As people do it: enable the socket, connect."""
    machine = stage.machine
    machine.systemctl("start", UNITS[0])
    try:
        with stage.network.connect(("127.0.0.1", 8888)) as client:
            client.sendall(b"1234\n")
            machine.wait_journal(
                lambda entry: "conn read 5 bytes, val: [49 50 51 52 10 0 0 0]"
                in str(entry.get("MESSAGE")),
                stages.PATIENCE_SECONDS,
            )
        # A connection is served before the service has said that it is ready
        machine.wait_journal(
            lambda entry: entry.get("UNIT") == UNITS[1] and entry.get("JOB_RESULT") == "done",
            stages.PATIENCE_SECONDS,
        )
        assert machine.show(UNITS[1], "ActiveState")["ActiveState"] == "active"
    finally:
        machine.systemctl("stop", *UNITS)
