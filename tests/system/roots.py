# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debian roots for the test machines: made once with mmdebstrap, then kept.

A root is named after its suite and a hash of everything that it is made from, so a changed
recipe makes a new one. It is made under another name and renamed when it is whole: what has
the final name is always complete.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess

# Nothing of this does any good in a machine that lives for minutes, and much of it would
# reach for what belongs to the host (modules, kernel file systems, the audit socket)
MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "getty.target",
    "ldconfig.service",
    "modprobe@.service",
    "run-lock.mount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-binfmt.service",
    "systemd-creds.socket",
    "systemd-hostnamed.socket",
    "systemd-hwdb-update.service",
    "systemd-initctl.socket",
    "systemd-journal-catalog-update.service",
    "systemd-journal-flush.service",
    "systemd-journald-audit.socket",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "systemd-sysctl.service",
    "systemd-sysext.socket",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-done.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
)

FILES = {
    "etc/systemd/journald.conf.d/holdfast-tests.conf": "[Journal]\nStorage=volatile\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/hostname": "holdfast-test\n",
}

PACKAGES = ("apt", "rpm", "systemd", "systemd-sysv", "libsystemd0")

# What the tests' own host had to be told about its package archive, if anything
INHERITED_APT_OPTIONS = re.compile(
    r'Acquire::(Check-Valid-Until|Check-Date|Retries|https?::Proxy) ".+";'
)


class RootUnavailable(Exception):
    """A root can't be had here; the text says why."""


def cache_directory():
    return pathlib.Path(
        os.environ.get("HOLDFAST_TEST_CACHE", "/var/cache/holdfast-tests")
    )


def _inherited_apt_options():
    try:
        dump = subprocess.run(
            ["apt-config", "dump"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    lines = (line for line in dump.splitlines() if INHERITED_APT_OPTIONS.fullmatch(line))
    return [f"--aptopt={line.rstrip(';')}" for line in lines]


class Recipe:
    """What a root is made from."""

    def __init__(self, suite, packages=PACKAGES, masked=MASKED_UNITS, files=None):
        self.suite = suite
        self.packages = tuple(packages)
        self.masked = tuple(masked)
        self.files = dict(FILES if files is None else files)

    def path(self):
        """Where the root of this recipe is, or will be."""
        text = json.dumps(
            [self.suite, self.packages, self.masked, self.files], sort_keys=True
        )
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return cache_directory() / f"{self.suite}-{digest}"

    def ensure(self):
        """The path of the root, which is made first if there is none."""
        path = self.path()
        if not path.is_dir():
            self._make(path)
        return path

    def _make(self, path):
        if shutil.which("mmdebstrap") is None:
            raise RootUnavailable("mmdebstrap is not installed")
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        unfinished = path.parent / f"unfinished-{os.getpid()}-{path.name}"
        try:
            self._bootstrap(unfinished)
            self._finish(unfinished)
            _rename_unless_there(unfinished, path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _bootstrap(self, root):
        result = subprocess.run(
            [
                "mmdebstrap",
                "--mode=root",
                "--variant=essential",
                "--format=directory",
                f"--include={','.join(self.packages)}",
                *_inherited_apt_options(),
                self.suite,
                str(root),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise RootUnavailable(
                f"mmdebstrap {self.suite} failed:\n{result.stderr[-2000:]}"
            )

    def _finish(self, root):
        units = root / "etc/systemd/system"
        for unit in self.masked:
            link = units / unit
            link.unlink(missing_ok=True)
            link.symlink_to("/dev/null")
        for name, text in self.files.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.unlink(missing_ok=True)
            file.write_text(text, encoding="utf-8")


def _rename_unless_there(unfinished, path):
    """Two runs may have made the same root at once: the first one's stays."""
    try:
        unfinished.rename(path)
    except OSError:
        if not path.is_dir():
            raise


def is_running(pid):
    return os.path.exists(f"/proc/{pid}")


def _remove_abandoned(directory):
    """Removes what a killed run has left half made."""
    for entry in directory.glob("unfinished-*"):
        pid = entry.name.split("-")[1]
        if not is_running(pid):
            shutil.rmtree(entry, ignore_errors=True)
