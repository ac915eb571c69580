# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds the project within a Debian suite, for machines that can't run what this host builds.

A program that is linked against a newer C library does not start with an older one, so the
machine of an older suite gets a build of its own, made with that suite's compiler.
"""

import pathlib
import subprocess
import tempfile

import roots
import stages

PACKAGES = ("gcc", "libc6-dev", "meson", "ninja-build", "pkg-config", "libsystemd-dev")

# Runs in new mount and pid namespaces: all mounts go with them
SCRIPT = """\
set -eu
root=$1 stage=$2 source=$3 build=$4
mount --make-rprivate /
mount -t tmpfs build "$stage"
mkdir "$stage/upper" "$stage/work" "$stage/root"
mount -t overlay -o "lowerdir=$root,upperdir=$stage/upper,workdir=$stage/work" \
	build "$stage/root"
cd "$stage/root"
mkdir -p mnt/source mnt/build
mount --bind "$source" mnt/source
mount -o remount,bind,ro mnt/source
mount --bind "$build" mnt/build
mount -t proc proc proc
mount --bind /dev/null dev/null
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 chroot . /bin/sh -euc '
	[ -e /mnt/build/build.ninja ] || meson setup /mnt/build /mnt/source
	ninja -C /mnt/build
	DESTDIR=/mnt/build/installed meson install --no-rebuild -C /mnt/build
'
"""


def installed_tree(suite):
    """The directory with all that an installation of the build within suite consists of."""
    root = roots.Recipe(suite, PACKAGES, masked=(), files={}).ensure()
    build = stages.build_directory() / f"in-{suite}"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="holdfast-build-") as stage:
        result = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--"]
            + ["sh", "-c", SCRIPT, "suite_build"]
            + [str(root), stage, str(stages.source_directory()), str(build)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    if result.returncode != 0:
        raise roots.RootUnavailable(f"no build within {suite}:\n{result.stdout[-4000:]}")
    return pathlib.Path(build) / "installed"
