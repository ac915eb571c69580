# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stage whose manager is holdfast-keeper. See stages.py for the interface."""

import contextlib
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time

import journal
import machine
import network
import stages

KEEPER_PREFIX = "holdfast-keeper: "
PRIORITY = re.compile(r"^<[0-7]>")
SANITIZER_REPORT = re.compile(
    r"(ERROR|WARNING): (Address|Leak|Thread|Memory)Sanitizer|runtime error: "
)

# What --verbose tells of the service's notifications
READY = r"pid {pid} is ready$"
STATUS = re.compile(KEEPER_PREFIX + r"pid \d+: (.*)")

# Tests kill many times a second: the growing delay of a crash loop would be all they wait for
DEFAULT_OPTIONS = ("--verbose", "--restart-delay-max=0.01")

# The keeper does not wait for who reads its lines: those that find no room are lost, and a
# service that logs much takes much
SAID_SIZE = 1 << 20


def _clean_environment():
    """What a manager starts from: nothing of the shell's, but what sanitizers are told."""
    environment = {name: os.environ[name] for name in os.environ if "SAN_OPTIONS" in name}
    return dict(environment, PATH=os.environ.get("PATH", os.defpath), LANG="C.UTF-8")


class KeeperStage(stages.Stage):
    """The keeper, as root in a network namespace of its own, else on this host's loopback."""

    name = "keeper"

    def __init__(self):
        self.keeper = stages.built_program("holdfast-keeper")
        machine.remove_abandoned()
        self._directory = tempfile.TemporaryDirectory(prefix=machine.own_prefix())
        super().__init__(
            network.NetworkNamespace.new() if os.geteuid() == 0 else network.Network()
        )
        self._lines = []

    def _new_instance(self, service, listen, options, settings):
        instance = KeeperInstance(self, service, listen, options, settings)
        self._lines = instance.all_lines
        return instance

    def socket_path(self, name):
        return os.path.join(self._directory.name, name)

    def working_directory(self):
        return pathlib.Path(tempfile.mkdtemp(dir=self._directory.name))

    def last_lines(self, n=100):
        return "\n".join(self._lines[-n:])

    def close(self):
        super().close()
        self.network.close()
        self._directory.cleanup()


class KeeperInstance(stages.Instance):
    """One keeper process with its service.

    The keeper's command is a script, so that a restart can bring other options with it.
    """

    def __init__(self, stage, service, listen, options, settings):
        super().__init__(stage, service, listen, options)
        self.settings = settings
        self.program = settings.get("program") or stages.built_program("holdfastd")
        self.process_name = os.path.basename(self.program)[:15]
        self.all_lines = []
        self._script = stage.working_directory() / "service"
        self._keeper = None
        self._service_lines = None

    def start(self, wait):
        self._write_script()
        settings = self.settings
        options = list(DEFAULT_OPTIONS) + [f"--listen={address}" for address in self.listen]
        if "store_max" in settings:
            options.append(f"--store-max={settings['store_max']}")
        options += settings.get("keeper_options", ())
        command = [self.stage.keeper, *options, "--", str(self._script)]
        # pylint: disable=consider-using-with # stop() ends it
        self._keeper = subprocess.Popen(
            self._die_with_parent() + self.stage.network.command(command),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pipesize=SAID_SIZE,
            env=dict(_clean_environment(), **settings.get("environment", {})),
            text=True,
            errors="replace",
        )
        self._service_lines = journal.LineFollower(self._keeper.stderr, self._take_line)
        if wait:
            self.wait_line_of_keeper(READY.format(pid=r"\d+"))

    @staticmethod
    def _die_with_parent():
        """Not even a SIGKILL of the tests may leave a keeper, or its service, behind."""
        return ["setpriv", "--pdeathsig=KILL"] if shutil.which("setpriv") else []

    def _write_script(self):
        limit = self.settings.get("limit_nofile")
        command = [*self._die_with_parent(), self.program, *self.options]
        lines = [
            "#!/bin/sh",
            *([f"ulimit -n {limit}"] if limit else []),
            f"exec {shlex.join(command + shlex.split(self.service))}",
        ]
        new = self._script.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n", encoding="utf-8")
        new.chmod(0o755)
        new.rename(self._script)

    def _take_line(self, line):
        line = PRIORITY.sub("", line.rstrip("\n"))
        self.all_lines.append(line)
        return line

    def restart(self, options=None, service=None, wait=True):
        self.options = self.options if options is None else list(options)
        self.service = service or self.service
        self._write_script()
        since = self._service_lines.count()
        os.kill(self._keeper.pid, signal.SIGHUP)
        if wait:
            self.wait_line_of_keeper(READY.format(pid=r"\d+"), since)

    def stop(self):
        if self._keeper is None:
            return
        self._keeper.terminate()
        try:
            self._keeper.wait(stages.PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
            raise
        finally:
            self._service_lines.wait_end()
            self._keeper.stderr.close()
            self._keeper = None
        self.stage.note_failed_audits(self.all_lines)
        self._look_for_reports()

    def _look_for_reports(self):
        reports = [line for line in self.all_lines if SANITIZER_REPORT.search(line)]
        if reports:
            raise AssertionError("a sanitizer has reported:\n" + "\n".join(self.all_lines))

    def wait_ready(self):
        deadline = time.monotonic() + stages.PATIENCE_SECONDS
        while True:
            pid = self.wait_pid_change(None)
            try:
                self.wait_line_of_keeper(READY.format(pid=pid), timeout=0.1)
                return
            except journal.WaitTimeout:
                # It may have ended: the successor of a process that was killed does
                if time.monotonic() > deadline:
                    raise

    def wait_line_of_keeper(self, pattern, since=0, timeout=stages.PATIENCE_SECONDS):
        """As wait_line(), for what the keeper itself says."""
        expression = re.compile(KEEPER_PREFIX + ".*" + pattern)
        line = self._service_lines.wait(expression.search, timeout, since)
        return expression.search(line)

    def keeper_pid(self):
        return self._keeper.pid

    def manager_pid(self):
        return self._keeper.pid

    def processes(self):
        return [(child, child, _name_of(child)) for child in _children_of(self._keeper.pid)]

    def family(self):
        """A successor is its child until the main process has gone."""
        found = []
        pids = [self._keeper.pid]
        while pids:
            for child in _children_of(pids.pop()):
                pids.append(child)
                found.append((child, child, _name_of(child)))
        return [process for process in found if process[2] == self.process_name]

    def program_path(self):
        return pathlib.Path(self.program)

    def n_stored_fds(self):
        """The fds of the keeper that are not its own: ledgers and parcels."""
        directory = f"/proc/{self._keeper.pid}/fd"
        seqpackets = self._seqpacket_inodes()
        count = 0
        for fd in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(f"{directory}/{fd}")
                count += target.startswith("/memfd:") or target in seqpackets
        return count

    def _seqpacket_inodes(self):
        """As the links in /proc/PID/fd name them."""
        table = pathlib.Path(f"/proc/{self._keeper.pid}/net/unix").read_text()
        rows = (line.split() for line in table.splitlines()[1:])
        return {f"socket:[{row[6]}]" for row in rows if row[4] == "0005"}

    def status_text(self):
        for line in reversed(self.all_lines):
            match = STATUS.match(line)
            if match:
                return match.group(1)
        return ""

    def _follower(self):
        return self._service_lines

    def line_of(self, record):
        """The keeper's own lines are none of the service's."""
        return "" if record.startswith(KEEPER_PREFIX) else record

    def lines(self, since=0):
        return [line for line in super().lines(since) if line]


def _children_of(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return list(map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def _name_of(pid):
    """Its name, or nothing if it has ended, reaped or not."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        before, _, after = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        return "" if after.split()[0] in "ZX" else before.partition("(")[2]
    return ""
