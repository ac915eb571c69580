# SPDX-License-Identifier: LGPL-2.1-or-later
"""RPM packages of the tree under test, built by packaging/build-rpm, and machines with them."""

import os
import pathlib
import shutil
import subprocess

import checkout
import conftest
import machine
import stage_systemd
import stages

NEEDED_PROGRAMS = ("rpmbuild", "rpm", "meson")
STAND_IN = pathlib.Path(__file__).with_name("rpm") / "systemd.spec"
# Its scriptlets are others than those of Fedora
FOR_RHEL = "--define=rhel 9"


def build(output, *options, source=None, umask=0o022, environment=None):
    """Builds into the directory output; returns the path of the package."""
    missing = [name for name in NEEDED_PROGRAMS if shutil.which(name) is None]
    if missing:
        raise stages.StageUnavailable(f"to build packages needs {', '.join(missing)}")
    program = (source or stages.source_directory()) / "packaging/build-rpm"
    result = checkout.run_build(
        program, f"--output={output}", "--no-tests", *options, umask=umask, environment=environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return package_in(output)


def package_in(directory):
    """The package itself, neither its source nor, on Fedora, what goes into the debugger."""
    (package,) = pathlib.Path(directory).glob(f"holdfast-[0-9]*.{os.uname().machine}.rpm")
    return package


def query(package, *arguments):
    """What rpm -qp says of a package file."""
    return subprocess.run(
        ["rpm", "--query", "--package", *arguments, package],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def version(package):
    return query(package, "--queryformat=%{VERSION}")


def build_stand_in(directory, systemd_version):
    """The package systemd, which holds what the scriptlets need."""
    subprocess.run(
        ["rpmbuild", "-bb", "--quiet", f"--define=_topdir {directory}"]
        + [f"--define=systemd_version {systemd_version}", STAND_IN],
        capture_output=True,
        check=True,
    )
    (package,) = directory.glob("RPMS/noarch/systemd-*.rpm")
    return package


class RpmStage(stage_systemd.SystemdStage):
    """A machine where nothing but packages installs."""

    def __init__(self, name, directory):
        self._directory = directory
        super().__init__(name)

    def _install(self):
        self.rpm("--initdb")
        version_number = self.name.rpartition("-")[2]
        self.rpm("--install", build_stand_in(self._directory, version_number))

    def rpm(self, *arguments):
        """Runs rpm, which finds the packages that are named by a path of this host.

        The machine's libraries are dpkg's, of which rpm knows nothing: hence --nodeps.
        Returns what it and the scriptlets have said.
        """
        words = []
        for argument in arguments:
            if isinstance(argument, pathlib.Path):
                inside = f"/tmp/{argument.name}"
                self.machine.path(inside).write_bytes(argument.read_bytes())
                argument = inside
            words.append(argument)
        nodeps = [] if words[0] in ("--initdb", "--query", "--verify") else ["--nodeps"]
        result = self.machine.run(["rpm", *words, *nodeps])
        return result.stdout + result.stderr

    def install(self, package):
        """For the first time; the test is skipped if what this host has built can't run here."""
        self.rpm("--install", package)
        result = self.machine.run(["holdfastd", "--version"], check=False)
        if stage_systemd.NEEDS_OTHER_LIBRARIES.search(result.stderr):
            conftest.or_cannot_run(self.name, lambda: _give_up(result.stderr))

    def change(self, package):
        """To a later or an earlier version."""
        return self.rpm("--upgrade", "--oldpackage", package)


def _give_up(reason):
    raise machine.MachineUnavailable(f"built for other libraries: {reason}")
