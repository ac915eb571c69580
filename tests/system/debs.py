# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian packages of the tree under test, built by packaging/build-deb."""

import pathlib
import shutil
import subprocess

import checkout
import stages


def reason_against():
    """Why nothing can be built here, or None. A test installs nothing on its host."""
    if shutil.which("dpkg-checkbuilddeps") is None:
        return "there is no dpkg-checkbuilddeps"
    control = stages.source_directory() / "packaging/debian/control"
    result = subprocess.run(
        ["dpkg-checkbuilddeps", "-Pnocheck", control], capture_output=True, text=True, check=False
    )
    return result.stderr.strip() or None


def build(output, *options, source=None, umask=0o022, environment=None):
    """Builds into the directory output; returns the names of what is there then."""
    reason = reason_against()
    if reason:
        raise stages.StageUnavailable(reason)
    program = (source or stages.source_directory()) / "packaging/build-deb"
    result = checkout.run_build(
        program, f"--output={output}", "--no-tests", *options, umask=umask, environment=environment
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return sorted(path.name for path in output.iterdir())


def package_in(directory):
    """The package itself, without the one of its debug symbols."""
    (package,) = pathlib.Path(directory).glob("holdfast_*.deb")
    return package


def field(package, name):
    return dpkg_deb("--field", package, name).strip()


def contents(package):
    """What it installs: absolute paths, with a / at the end of a directory's."""
    lines = dpkg_deb("--contents", package).splitlines()
    return {line.split()[5].removeprefix(".") for line in lines}


def dpkg_deb(*arguments):
    return subprocess.run(
        ["dpkg-deb", *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def with_program(package, directory, name, text):
    """A copy of package, made in directory, in which a program is a script."""
    tree = directory / "tree"
    dpkg_deb("--raw-extract", package, tree)
    (tree / "usr/bin" / name).write_text(text, encoding="utf-8")
    broken = directory / package.name
    dpkg_deb("--root-owner-group", "-Znone", "--build", tree, broken)
    return broken
