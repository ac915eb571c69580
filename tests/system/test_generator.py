# SPDX-License-Identifier: LGPL-2.1-or-later
"""holdfast-generator: it reads a configuration as systemd reads it for the service."""

import pytest

UPSTREAM = "db.internal:5432"
PROBE = """\
[Service]
Type=oneshot
Environment=SERVICE=log
EnvironmentFile=-/etc/holdfast/%i.conf
RuntimeDirectory=probe
RuntimeDirectoryPreserve=yes
ExecStart=/bin/sh -c 'printf "%%s\\n" "$$0" "$$@" >/run/probe/%i' $SERVICE
"""

CONFIGURATIONS = {
    "plain": f"SERVICE=relay {UPSTREAM}\n",
    "without-an-end": f"OPTIONS=--threads=2\nSERVICE=relay {UPSTREAM}",
    "blanks": f"\n \t SERVICE \t=\t  relay \t {UPSTREAM}  \n",
    "carriage-returns": f"X=y\r\nSERVICE=relay {UPSTREAM}\r\n",
    "double-quotes": f'SERVICE="relay {UPSTREAM}"\n',
    "single-quotes": f"SERVICE='relay {UPSTREAM}'\n",
    "two-quotes": f"SERVICE=\"relay\" ' {UPSTREAM}'\n",
    "quoted-word": f'SERVICE="relay" {UPSTREAM}\n',
    "escaped": f"SERVICE=re\\lay {UPSTREAM}\n",
    "continued": f"SERVICE=relay \\\n{UPSTREAM}\n",
    "continued-quote": f'SERVICE="rel\\\nay {UPSTREAM}"\n',
    "lines-in-quotes": f"X='\nSERVICE=relay {UPSTREAM}\n'\n",
    "open-quote": f"SERVICE='relay {UPSTREAM}\n",
    "last-is-relay": f"SERVICE=log\nSERVICE=relay {UPSTREAM}\n",
    "last-is-log": f"SERVICE=relay {UPSTREAM}\nSERVICE=log\n",
    "last-is-empty": f"SERVICE=relay {UPSTREAM}\nSERVICE=\n",
    "comments": f"# SERVICE=echo\n;SERVICE=echo\nSERVICE=relay {UPSTREAM}\n",
    "commented": f"#SERVICE=relay {UPSTREAM}\n ;SERVICE=relay {UPSTREAM}\n",
    "exported": f"export SERVICE=relay {UPSTREAM}\n",
    "lower-case": f"service=relay {UPSTREAM}\n",
    "path": "SERVICE=relay /run/db.sock\n",
    "echo": "SERVICE=echo\n",
    "nothing": "",
    "127.0.0.1:5432": f"SERVICE=relay {UPSTREAM}\n",
}


def instances_with(machine, drop_in):
    found = machine.run(["find", "/run/systemd/generator", "-name", drop_in]).stdout.split()
    return {path.split("@", 1)[1].rsplit(".service.d/", 1)[0] for path in found}


@pytest.fixture
def configured(stage):
    """The machine, with a probe that shows what systemd makes of each configuration."""
    machine = stage.machine
    try:
        machine.write_file("/run/systemd/system/probe@.service", PROBE)
        for name, text in CONFIGURATIONS.items():
            machine.write_file(f"/etc/holdfast/{name}.conf", text)
        machine.systemctl("daemon-reload")
        yield machine
    finally:
        for name in CONFIGURATIONS:
            machine.remove_file(f"/etc/holdfast/{name}.conf")
        machine.remove_file("/run/systemd/system/probe@.service")
        machine.systemctl("daemon-reload")
        assert instances_with(machine, "50-relay.conf") == set()


@pytest.mark.stages("systemd")
def test_configuration_is_read_as_systemd_reads_it(configured):
    machine = configured
    machine.systemctl("start", *(f"probe@{name}.service" for name in CONFIGURATIONS))
    words = {
        name: machine.path(f"/run/probe/{name}").read_text().split("\n")
        for name in CONFIGURATIONS
    }
    relays = {name for name in words if words[name][:2] == ["relay", UPSTREAM]}
    assert {"plain", "continued", "two-quotes", "last-is-relay"} <= relays
    assert not relays & {"path", "quoted-word", "last-is-log", "lines-in-quotes"}
    assert instances_with(machine, "50-relay.conf") == relays


@pytest.mark.stages("systemd")
def test_what_an_administrator_says_counts(configured):
    unit = "holdfast@plain.service"
    directory = f"/run/systemd/system/{unit}.d"
    assert configured.show(unit, "PrivateNetwork")["PrivateNetwork"] == "no"
    try:
        configured.write_file(f"{directory}/override.conf", "[Service]\nPrivateNetwork=yes\n")
        configured.systemctl("daemon-reload")
        assert configured.show(unit, "PrivateNetwork")["PrivateNetwork"] == "yes"
    finally:
        configured.remove_file(directory)


@pytest.mark.stages("systemd")
def test_unreadable_configuration_stops_no_other(configured):
    """A FIFO would have stopped the boot."""
    configured.run(["mkfifo", "/etc/holdfast/fifo.conf"])
    try:
        configured.systemctl("daemon-reload")
        assert "plain" in instances_with(configured, "50-relay.conf")
    finally:
        configured.remove_file("/etc/holdfast/fifo.conf")
