# SPDX-License-Identifier: LGPL-2.1-or-later
"""Copies of the tree under test, and packages that are built out of it."""

import os
import shutil
import subprocess

import stages

BUILD_SECONDS = 250


def _made_by_git_and_builds(directory, names):
    """Of a directory of the tree: what .gitignore names, and git's own."""
    made = {".git", "__pycache__", ".pytest_cache", "out"}
    if str(directory) == str(stages.source_directory()):
        made.update(name for name in names if name.startswith("build"))
    return made.intersection(names)


def make(destination):
    """A copy without git, and out of older files with other modes; returns destination."""
    shutil.copytree(stages.source_directory(), destination, ignore=_made_by_git_and_builds)
    subprocess.run(["chmod", "-R", "go-rwx", destination], check=True)
    subprocess.run(
        ["find", destination, "-exec", "touch", "-d@1000000000", "{}", "+"], check=True
    )
    return destination


def run_build(program, *options, umask=0o022, environment=None):
    """One of packaging/build-*; program is its path."""
    return subprocess.run(
        [program, *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        umask=umask,
        env=dict(os.environ, **(environment or {})),
        timeout=BUILD_SECONDS,
        check=False,
    )
