# SPDX-License-Identifier: LGPL-2.1-or-later
"""A service that can be asked over its control socket, in any stage."""

import json
import shutil
import subprocess

import pytest

import stages

OBJECT = ("/holdfast", "holdfast.Instance1")
# Anything that has a name's form: there is no bus that would look for it
DESTINATION = OBJECT[1]


class Controlled:
    """An instance that was started with a control socket, and how to ask it in its stage."""

    def __init__(self, stage, service="echo", options=(), **settings):
        self.stage = stage
        if stage.machine:
            self.instance = stage.start(service, options=options, **settings)
            self.path = f"/run/holdfast/{self.instance.name}/control"
        else:
            self.path = stage.socket_path("control")
            options = [f"--control={self.path}", *options]
            self.instance = stage.start(service, options=options, **settings)

    def run(self, *argv):
        if self.stage.machine:
            return self.stage.machine.run(argv, check=False)
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=stages.PATIENCE_SECONDS, check=False
        )

    def ctl(self, *arguments):
        machine = self.stage.machine
        program = "holdfastctl" if machine else stages.built_program("holdfastctl")
        return self.run(program, *arguments)

    def ask(self, verb, *arguments):
        """What a verb prints; it has to succeed, and to complain of nothing."""
        result = self.ctl(verb, f"--socket={self.path}", *arguments)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    def connections(self):
        """The list as it is for programs."""
        return json.loads(self.ask("list", "--json=short"))

    def connection_of(self, client):
        """The one whose peer is client, a TCP socket."""
        host, port = client.getsockname()
        (found,) = [c for c in self.connections() if c["peer"] == f"{host}:{port}"]
        return found

    def busctl(self, *arguments):
        if not self.stage.machine and not shutil.which("busctl"):
            pytest.skip("there is no busctl")
        return self.run("busctl", f"--address=unix:path={self.path}", *arguments)
