# SPDX-License-Identifier: LGPL-2.1-or-later
"""Connections live on while the service is stopped, with the drop-ins of units/preserve/.

FileDescriptorStorePreserve= is from systemd 254.
"""

import contextlib

import pytest

import streams

EXAMPLES = "/usr/share/doc/holdfast/examples/preserve"
DIRECTORY = "/etc/systemd/system"
MIB = 1 << 20

pytestmark = pytest.mark.stages("systemd-257")


@pytest.fixture
def machine(stage):
    """The stage's machine, where somebody has done what preserve.conf says."""
    names = stage.machine.run(["ls", EXAMPLES]).stdout.split()
    assert len(names) == 2
    try:
        stage.machine.run(f"cp -r {EXAMPLES}/* {DIRECTORY}/")
        stage.machine.systemctl("daemon-reload")
        yield stage.machine
    finally:
        stage.stop_all()
        for name in names:
            stage.machine.remove_file(f"{DIRECTORY}/{name}")
        stage.machine.systemctl("daemon-reload")


class RelayedStream:
    """Streams in both directions through a relay, both of whose peers are outside."""

    def __init__(self, stage, loop, upstream):
        self.instance = stage.start(f"relay {upstream.address}")
        self._loop = loop
        self._upstream = upstream
        self._stream = streams.Stream(70)
        answer = streams.reply_to(self._stream)
        self._pump = loop.add(streams.Pump(self.instance.connect(), self._stream, answer))
        self.goes_on()

    def goes_on(self):
        other = self._upstream.pump_of(self._stream)
        for loop, pump in ((self._loop, self._pump), (self._upstream.loop, other)):
            loop.wait_received(pump, pump.n_received + MIB)

    def end(self):
        other = self._upstream.pump_of(self._stream)
        self._loop.finish(self._pump)
        self._loop.wait_done(self._pump)
        self._upstream.loop.wait_done(other)
        assert other.sent_digest == self._pump.received_digest
        assert other.received_digest == self._pump.sent_digest


@contextlib.contextmanager
def relayed_stream(stage):
    with stage.upstream() as upstream, streams.Loop() as loop:
        relayed = RelayedStream(stage, loop, upstream)
        # Else systemd forgets the units, and the store with them, when both are stopped
        stage.machine.systemctl("enable", relayed.instance.socket_unit)
        try:
            yield relayed
            relayed.end()
        finally:
            stage.machine.systemctl("disable", relayed.instance.socket_unit)


def test_streams_live_through_stop_and_start(stage, machine):
    with relayed_stream(stage) as relayed:
        service, socket = relayed.instance.service_unit, relayed.instance.socket_unit
        for stopped, started in (
            ([service], [service]),
            ([service, socket], [service]),
            # The service comes with its socket: the stored connections wait for it
            ([service, socket], [socket]),
        ):
            machine.systemctl("stop", *stopped)
            assert relayed.instance.processes() == []
            assert relayed.instance.n_stored_fds() > 0
            machine.systemctl("start", *started)
            relayed.goes_on()


def test_streams_live_through_soft_reboot(stage, machine):
    with relayed_stream(stage) as relayed:
        instance = relayed.instance
        old = instance.main_pid()
        # It may lose its connection to the manager before that has answered
        machine.systemctl("soft-reboot", check=False)
        instance.wait_pid_change(old)
        relayed.goes_on()
        machine.systemctl("is-system-running", "--wait", check=False)
        count = machine.systemctl("show", "--property=SoftRebootsCount", "--value")
        assert count == "1\n"
