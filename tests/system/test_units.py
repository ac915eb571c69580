# SPDX-License-Identifier: LGPL-2.1-or-later
"""The units, as systemd itself judges them, and the sandbox that each service gets."""

import os
import re

import pytest

import stages
import streams
from questions import echoes

UNITS = ("holdfast@8888.socket", "holdfast@8888.service")
# Of ten: the lower, the less could a service that was taken over do
EXPOSURE_MAX = {"log": 0.6, "echo": 0.6, "relay /run/db.sock": 0.6, "relay 127.0.0.1:1": 1.2}
# Without generators, what is not loaded has no drop-in of theirs
ANALYZE = ("systemd-analyze", "--generators=yes")
NO_NETWORK = r"its sandbox has no network\. Run systemctl daemon-reload"


@pytest.fixture
def machine(stage):
    if stage.machine is None:
        pytest.fail("these are tests of the systemd stages")
    return stage.machine


def exposure(machine, unit, *options):
    result = machine.run(
        [*ANALYZE, "security", *options, "--no-pager", unit], check=False
    )
    match = re.search(r"Overall exposure level for \S+: ([\d.]+)", result.stdout)
    assert match, result.stdout + result.stderr
    return float(match[1])


@pytest.mark.stages("systemd")
@pytest.mark.parametrize("configuration", ["", "SERVICE=relay db.internal:5432\n"])
def test_units_pass_verify_without_a_word(machine, configuration):
    machine.write_file("/etc/holdfast/8888.conf", configuration)
    try:
        for unit in UNITS:
            # The machine has no manuals; that those which units name exist: test_manuals.py
            command = [*ANALYZE, "verify", "--man=no", unit]
            result = machine.run(command, check=False)
            assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    finally:
        machine.remove_file("/etc/holdfast/8888.conf")


@pytest.mark.stages("systemd")
@pytest.mark.parametrize("service", EXPOSURE_MAX)
def test_service_has_the_sandbox_that_it_needs(stage, service):
    instance = stage.start(service)
    level = exposure(stage.machine, instance.service_unit)
    assert level <= EXPOSURE_MAX[service]
    assert level == exposure(stage.machine, instance.service_unit, "--offline=true")
    networks = (instance.proc() / "ns/net", stage.machine.path("/proc/1/ns/net"))
    own, machines = (os.stat(path).st_ino for path in networks)
    assert (own == machines) == (EXPOSURE_MAX[service] > EXPOSURE_MAX["log"])


@pytest.mark.stages("systemd")
def test_installed_unit_is_little_exposed(machine):
    assert exposure(machine, UNITS[1], "--offline=true") <= EXPOSURE_MAX["log"]


@pytest.mark.stages("systemd")
def test_relay_without_a_network_says_what_to_do_and_loses_nothing(stage):
    """It was another service, and nobody has told the manager."""
    with stage.upstream() as upstream:
        instance = stage.start("echo")
        with instance.connect() as client:
            assert echoes(client)
            relay = f"relay {upstream.address}"
            assert instance.reload(service=relay, check=False) != 0
            instance.wait_line(f"says: Can't relay to .*{NO_NETWORK}")
            assert echoes(client)
            since = instance.mark()
            stage.machine.systemctl("restart", "--no-block", instance.service_unit)
            instance.wait_line(f"^Can't relay to {upstream.address}: {NO_NETWORK}", since=since)
            stage.machine.systemctl("daemon-reload")
            # As it would do by itself, a second later
            stage.machine.systemctl("restart", instance.service_unit)
            assert echoes(client)
        instance.connect().close()
        upstream.loop.wait(lambda: upstream.pumps)


@pytest.mark.stages("systemd")
def test_relayed_connections_live_on_without_a_network(stage):
    """It was a relay, and is another service now: what was open goes on."""
    with stage.upstream() as upstream, streams.Loop() as loop:
        instance = stage.start(f"relay {upstream.address}")
        stream = streams.Stream(60)
        pump = loop.add(streams.Pump(instance.connect(), stream, streams.reply_to(stream)))
        loop.wait_received(pump, 1 << 20)
        instance.restart(service="echo")
        stage.machine.systemctl("daemon-reload")
        loop.wait_received(pump, pump.n_received + (1 << 20))
        instance.restart()
        assert instance.show("PrivateNetwork") == "yes"
        loop.wait_received(pump, pump.n_received + (1 << 20))
        loop.finish(pump)
        loop.wait_done(pump)
        assert upstream.pump_of(stream).sent_digest == pump.received_digest


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


@pytest.mark.stages("systemd")
def test_enabling_the_socket_makes_a_relay(stage):
    """Nothing else is needed: systemctl enable lets the manager look at the configuration."""
    machine = stage.machine
    port = stage.network.free_port()
    units = [f"holdfast@127.0.0.1:{port}.{kind}" for kind in ("socket", "service")]
    with stage.upstream() as upstream:
        machine.write_file(
            f"/etc/holdfast/127.0.0.1:{port}.conf", f"SERVICE=relay {upstream.address}\n"
        )
        try:
            machine.systemctl("enable", "--now", units[0])
            stage.network.connect(("127.0.0.1", port)).close()
            upstream.loop.wait(lambda: upstream.pumps)
        finally:
            machine.systemctl("disable", "--now", *units)
            machine.remove_file(f"/etc/holdfast/127.0.0.1:{port}.conf")
            machine.systemctl("daemon-reload")
