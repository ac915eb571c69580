# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian package: what is in it, and what its scripts do to connections."""

import email.utils
import re
import shlex
import shutil
import subprocess

import pytest

import checkout
import conftest
import debs
import installed
import machine
import stages
from questions import echoes, serving_stream

ADDRESS = ("127.0.0.1", 8888)
SERVICE = "holdfast@127.0.0.1:8888.service"
SOCKET = "holdfast@127.0.0.1:8888.socket"
CONFIGURATION = "/etc/holdfast/127.0.0.1:8888.conf"
NEEDS_NEWER = re.compile(r"Depends: lib\S+ \(>= \S+\) but \S+ is to be installed")
NEXT = "+next"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session", name="output")
def fixture_output(tmp_path_factory):
    """The directory with all that a build makes."""
    output = tmp_path_factory.mktemp("deb")
    conftest.or_cannot_run("packages", lambda: debs.build(output))
    return output


@pytest.fixture(scope="session", name="package")
def fixture_package(output):
    return debs.package_in(output)


@pytest.fixture(scope="session", name="next_package")
def fixture_next_package(package, tmp_path_factory):
    output = tmp_path_factory.mktemp("deb-next")
    debs.build(output, f"--version={debs.field(package, 'Version')}{NEXT}")
    return debs.package_in(output)


class Administrator:
    """Who installs the package on a machine and has a service of it."""

    def __init__(self, booted):
        self.machine = booted

    def apt(self, *arguments, before=""):
        """Returns what apt-get and the package's scripts have said.

        before: a command in mount namespaces of its own, whose mounts they see
        """
        command = f"{before}exec apt-get -q -y {shlex.join(arguments)}"
        try:
            result = self.machine.run(
                ["env", "DEBIAN_FRONTEND=noninteractive", "unshare", "--mount", "--"]
                + ["sh", "-euc", command]
            )
        except machine.CommandFailed as error:
            if NEEDS_NEWER.search(str(error)):
                raise stages.StageUnavailable(f"built on a newer Debian: {error}") from error
            raise
        return result.stdout + result.stderr

    def install(self, package, **options):
        path = f"/tmp/{package.name}"
        self.machine.path(path).write_bytes(package.read_bytes())
        return self.apt("--allow-downgrades", "install", path, **options)

    def first_install(self, package):
        conftest.or_cannot_run(self.machine.suite, lambda: self.install(package))

    def enable(self, service="echo"):
        self.machine.write_file(CONFIGURATION, f"SERVICE={service}\n")
        self.machine.systemctl("enable", "--now", SOCKET)

    def connect(self):
        return self.machine.connect(ADDRESS)

    def main_pid(self):
        return self.machine.main_pid(SERVICE)

    def serving_version(self):
        """Of the program that the main process runs, whatever is installed."""
        program = f"/proc/{self.main_pid()}/exe"
        return self.machine.run([program, "--version"]).stdout.splitlines()[0].split()[-1]

    def processes(self):
        return self.machine.processes(f"/system.slice/system-holdfast.slice/{SERVICE}")

    def units(self):
        """The instances that systemd knows: names and states."""
        lines = self.machine.systemctl(
            "list-units", "--all", "--plain", "--no-legend", "holdfast@*"
        ).splitlines()
        return {line.split()[0]: line.split()[2] for line in lines}

    def files(self):
        """All that is on the disk but what dpkg, apt and the journal write for themselves."""
        return set(
            self.machine.run(
                "find / -xdev -path /var/lib/dpkg -prune -o -path /var/lib/apt -prune"
                " -o -path /var/cache -prune -o -path /var/log -prune"
                " -o -path /var/lib/systemd/catalog -prune -o -print"
            ).stdout.splitlines()
        )


@pytest.fixture(name="administrator")
def fixture_administrator(booted_machine):
    return Administrator(booted_machine)


# What is in it


@pytest.mark.parametrize("path", [*installed.FILES, "/usr/share/doc/holdfast/README.md.gz"])
def test_package_has(package, path):
    assert path in debs.contents(package)


def test_package_has_no_more_than_an_example_in_etc(package):
    etc = {path for path in debs.contents(package) if path.startswith("/etc/holdfast/")}
    assert etc == {"/etc/holdfast/", "/etc/holdfast/example.conf"}


@pytest.mark.skipif(shutil.which("lintian") is None, reason="there is no lintian")
def test_lintian_finds_nothing(output):
    (changes,) = output.glob("*.changes")
    command = ["lintian", "--allow-root", "--fail-on=error,warning", "--tag-display-limit=0"]
    result = subprocess.run([*command, changes], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


# How it is built


def when_built(output):
    """The time that a build took for its own."""
    (changes,) = output.glob("*.changes")
    date = re.search(r"^Date: (.*)$", changes.read_text(encoding="utf-8"), re.MULTILINE)[1]
    return int(email.utils.parsedate_to_datetime(date).timestamp())


def test_builds_of_one_commit_are_identical(output, tmp_path):
    """The second one from elsewhere, without git, and out of older files with other modes."""
    source, again = checkout.make(tmp_path / "checkout"), tmp_path / "again"
    before = sorted(source.rglob("*"))
    debs.build(
        again,
        source=source,
        umask=0o077,
        environment={"SOURCE_DATE_EPOCH": str(when_built(output))},
    )
    assert sorted(source.rglob("*")) == before
    # The others tell where and when a build was made
    compared = [path for path in output.iterdir() if path.suffix in (".deb", ".dsc", ".xz")]
    assert len(compared) == 4
    different = [p.name for p in compared if p.read_bytes() != (again / p.name).read_bytes()]
    assert not different


@pytest.mark.parametrize(
    "option, status, text",
    [
        ("--help", 0, "packaging/build-deb [--output=DIR]"),
        ("--unknown", 2, "unknown argument --unknown"),
        ("--version=1-2", 1, "--version=1-2: a digit first"),
        ("--output=/dev/null/x", 1, "cannot write to /dev/null/x"),
    ],
)
def test_build_says_what_it_takes(option, status, text):
    result = checkout.run_build(stages.source_directory() / "packaging/build-deb", option)
    assert (result.returncode, text in result.stdout + result.stderr) == (status, True)


# What an upgrade does


def test_connections_go_through_an_upgrade_and_back(administrator, package, next_package):
    administrator.first_install(package)
    administrator.enable()
    # One that nobody has connected to: its service must not be started
    administrator.machine.systemctl("start", "holdfast@127.0.0.1:8889.socket")
    with serving_stream(administrator) as stream_goes_on:
        socket_before = administrator.machine.show(SOCKET, "InvocationID")
        for installed in (next_package, package):
            administrator.install(installed)
            assert administrator.serving_version() == debs.field(installed, "Version")
            stream_goes_on()
        # Neither was stopped, nor has systemd started the service anew
        assert administrator.machine.show(SOCKET, "InvocationID") == socket_before
    taken_over = [
        entry
        for entry in administrator.machine.journal(_SYSTEMD_UNIT=SERVICE)
        if str(entry["MESSAGE"]).startswith("Took over 1 connection ")
    ]
    assert len(taken_over) == 2
    assert administrator.units()["holdfast@127.0.0.1:8889.socket"] == "active"
    assert administrator.units().get("holdfast@127.0.0.1:8889.service") != "active"


def test_broken_upgrade_leaves_the_old_version_serving(
    administrator, package, next_package, tmp_path
):
    administrator.first_install(package)
    administrator.enable()
    broken = debs.with_program(next_package, tmp_path, "holdfastd", "#!/bin/sh\nexit 3\n")
    with serving_stream(administrator) as stream_goes_on:
        old = administrator.main_pid()
        said = administrator.install(broken)
        assert f"Job for {SERVICE} failed" in said
        assert "not taken over by the new version" in said
        assert administrator.main_pid() == old
        stream_goes_on()
        # The way out: here, back
        assert "not taken over" not in administrator.install(package)
        assert administrator.main_pid() != old
        assert administrator.serving_version() == debs.field(package, "Version")
        stream_goes_on()


def test_upgrade_waits_for_no_service_that_can_not_start(administrator, package, next_package):
    """It is tried again and again, by systemd, and is not to hold up apt until it is mended."""
    administrator.first_install(package)
    administrator.enable("no-such-service")
    administrator.machine.systemctl("start", "--no-block", SERVICE)
    administrator.machine.wait_journal(lambda entry: "no-such-service" in str(entry["MESSAGE"]))
    administrator.install(next_package)
    assert administrator.units()[SERVICE] == "activating"
    administrator.machine.write_file(CONFIGURATION, "SERVICE=echo\n")
    with administrator.connect() as client:
        assert echoes(client)
    assert administrator.serving_version() == debs.field(next_package, "Version")


@pytest.mark.parametrize("reason", ["policy", "no systemd"])
def test_upgrade_touches_no_service_where_it_may_not(
    administrator, package, next_package, reason
):
    administrator.first_install(package)
    administrator.enable()
    with serving_stream(administrator) as stream_goes_on:
        old = administrator.main_pid()
        if reason == "policy":
            administrator.machine.write_file(
                "/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", mode=0o755
            )
            said = administrator.install(next_package)
        else:
            hide = "mount -t tmpfs none /run/systemd; "
            said = administrator.install(next_package, before=hide)
        assert "not taken over" not in said
        assert administrator.main_pid() == old
        assert administrator.serving_version() == debs.field(package, "Version")
        stream_goes_on()


# What a removal does


def test_removal_stops_and_purge_leaves_nothing(administrator, package):
    before = administrator.files()
    administrator.first_install(package)
    administrator.enable()
    # It keeps connections for the next start, which here will not come
    administrator.machine.write_file(
        f"/run/systemd/system/{SERVICE}.d/store.conf",
        "[Service]\nFileDescriptorStorePreserve=yes\n",
    )
    administrator.machine.systemctl("daemon-reload")
    with administrator.connect() as client:
        assert echoes(client)
        administrator.apt("remove", "holdfast")
        assert reads_an_end(client)
    assert not administrator.processes()
    with pytest.raises(ConnectionRefusedError):
        administrator.connect()
    assert CONFIGURATION in administrator.files()
    assert "/etc/holdfast/example.conf" in administrator.files()

    administrator.apt("purge", "holdfast")
    # Written by hand, so only a hand removes it
    assert administrator.files() - before == {"/etc/holdfast", CONFIGURATION}
    assert administrator.files() >= before


def test_purge_removes_etc_holdfast_where_all_of_it_is_the_packages(administrator, package):
    before = administrator.files()
    administrator.first_install(package)
    administrator.apt("purge", "holdfast")
    assert administrator.files() == before


def reads_an_end(client):
    """Whether a connection has ended: well, or with a reset."""
    client.settimeout(stages.PATIENCE_SECONDS)
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True
