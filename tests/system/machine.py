# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Debian machine with a real systemd as PID 1, in namespaces of its own.

A machine is a process tree in new mount, pid, uts, ipc, net and cgroup namespaces and in a
cgroup of its own. Its files are an overlay over a cached root (roots.py): what it writes is
gone with it. It boots in half a second.

Nothing of it outlives the process that made it: its PID 1 dies with that process's thread
(PR_SET_PDEATHSIG), everything in its pid namespace dies with its PID 1, and its mounts go with
its mount namespace. Only an empty cgroup can be left behind by a SIGKILL, which the next
machine removes. So make machines in the main thread.
"""

import contextlib
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import journal
import network
import roots
from patience import PATIENCE_SECONDS

BOOT_SECONDS = 60
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
}
# Followed by the pid of the test run
NAME_PREFIX = "holdfast-test."
NEEDED_PROGRAMS = ("unshare", "nsenter", "setpriv", "pivot_root", "mount")


class MachineUnavailable(Exception):
    """No machine can be had here; the text says why."""


class CommandFailed(Exception):
    """A command in the machine failed; the text has its output."""

    def __init__(self, argv, result):
        super().__init__(
            f"{' '.join(argv)}: exit status {result.returncode}\n"
            f"{result.stdout}{result.stderr}"
        )
        self.result = result


def cgroup2_mount():
    """Where the cgroup2 hierarchy is mounted, or None."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, where, kind, *_ = line.split()
            if kind == "cgroup2":
                return pathlib.Path(where)
    return None


def reason_against():
    """Why no machine can run here, or None."""
    if os.geteuid() != 0:
        return "a machine needs root"
    missing = [name for name in NEEDED_PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"a machine needs {', '.join(missing)}"
    mount = cgroup2_mount()
    if mount is None:
        return "no cgroup2 is mounted"
    if not os.access(mount, os.W_OK):
        return f"{mount} is not writable"
    return None


def own_prefix():
    """Of the names of directories that remove_abandoned() removes once this run is dead."""
    return f"{NAME_PREFIX}{os.getpid()}."


def remove_abandoned():
    """Removes what killed test runs have left: empty cgroups and directories."""
    mount = cgroup2_mount()
    for path in mount.glob(f"{NAME_PREFIX}*") if mount else ():
        if not roots.is_running(path.name.split(".")[1]):
            Cgroup.remove_path(path)
    for path in pathlib.Path(tempfile.gettempdir()).glob(f"{NAME_PREFIX}*"):
        if not roots.is_running(path.name.split(".")[1]):
            shutil.rmtree(path, ignore_errors=True)


class Cgroup:
    """A cgroup that a machine lives in, and the files by which it is watched and ended."""

    def __init__(self, name):
        self.path = cgroup2_mount() / name
        self.path.mkdir()

    def pids(self, below):
        """The processes, by their pids outside of the machine, of a cgroup of the machine."""
        try:
            text = (self.path / below.lstrip("/") / "cgroup.procs").read_text()
        except OSError:  # no such cgroup, or no longer
            return []
        return [int(pid) for pid in text.split()]

    def remove(self):
        self.remove_path(self.path)

    @staticmethod
    def _wait_empty(path, timeout=PATIENCE_SECONDS):
        with open(path / "cgroup.events", "rb", buffering=0) as events:
            poller = select.poll()
            poller.register(events, select.POLLPRI)
            deadline = time.monotonic() + timeout
            while b"populated 1" in os.pread(events.fileno(), 4096, 0):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} does not become empty")
                poller.poll(100)

    @classmethod
    def remove_path(cls, path):
        with contextlib.suppress(FileNotFoundError):
            (path / "cgroup.kill").write_text("1")
            cls._wait_empty(path)
            for directory, _, _ in os.walk(path, topdown=False):
                os.rmdir(directory)


class Machine:
    """A booted machine. poweroff() ends it; it is a context manager too."""

    def __init__(self, suite):
        self.suite = suite
        self.boot_seconds = None
        self.network = None
        self._cleanup = contextlib.ExitStack()
        self._cgroup = None
        self._leader = None
        self._init_pid = None

    @classmethod
    def boot(cls, suite):
        """A new machine of a Debian suite; MachineUnavailable says why there is none."""
        reason = reason_against()
        if reason:
            raise MachineUnavailable(reason)
        try:
            root = roots.Recipe(suite).ensure()
        except roots.RootUnavailable as error:
            raise MachineUnavailable(str(error)) from error
        machine = cls(suite)
        try:
            machine._boot(root)
        except BaseException:
            machine.poweroff()
            raise
        return machine

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.poweroff()

    @property
    def init_pid(self):
        """Its systemd, as it is numbered outside."""
        return self._init_pid

    # Boot and end

    def _boot(self, root):
        started = time.monotonic()
        remove_abandoned()
        stage = pathlib.Path(tempfile.mkdtemp(prefix=own_prefix()))
        self._cleanup.callback(shutil.rmtree, stage, ignore_errors=True)
        self._cgroup = Cgroup(stage.name)
        self._cleanup.callback(self._cgroup.remove)
        log = self._cleanup.enter_context(open(stage / "console", "w+b"))

        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(stage / "notify"))
            self._start_leader(root, stage, log)
            self._await_ready(notify, log)

        self._init_pid = self._find_init()
        self.network = network.NetworkNamespace.of_process(self._init_pid)
        self._cleanup.callback(self.network.close)
        self.boot_seconds = time.monotonic() - started

    def _start_leader(self, root, stage, log):
        mountpoint = stage / "machine"
        mountpoint.mkdir()
        boot = pathlib.Path(__file__).with_name("boot")
        join_and_exec = f'echo 0 >"{self._cgroup.path}/cgroup.procs" && exec "$@"'
        # pylint: disable=consider-using-with # poweroff() ends it
        self._leader = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", "sh", "-c", join_and_exec, "leader"]
            + ["unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"]
            + ["--fork", "--kill-child=KILL", "--"]
            + ["sh", str(boot), str(root), str(mountpoint), str(stage / "notify")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=ENVIRONMENT,
        )
        self._cleanup.callback(self._end_leader)

    def _await_ready(self, notify, log):
        """systemd says READY=1 when its first transaction is done; or the leader ends."""
        poller = select.poll()
        poller.register(notify, select.POLLIN)
        leader = os.pidfd_open(self._leader.pid)
        poller.register(leader, select.POLLIN)
        deadline = time.monotonic() + BOOT_SECONDS
        try:
            while True:
                ready = dict(poller.poll(max(0, deadline - time.monotonic()) * 1000))
                if notify.fileno() in ready:
                    if b"READY=1" in notify.recv(8192).split(b"\n"):
                        return
                else:
                    log.seek(0)
                    console = log.read().decode(errors="replace")
                    why = "ended" if leader in ready else "does not get ready"
                    raise MachineUnavailable(f"systemd of {self.suite} {why}:\n{console}")
        finally:
            os.close(leader)

    def _find_init(self):
        pid = self._leader.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0])

    def _end_leader(self):
        if self._init_pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init_pid, signal.SIGKILL)
        else:
            self._leader.kill()
        self._leader.wait()

    def poweroff(self):
        """Ends the machine and removes all that there is of it. May be called again."""
        self._cleanup.close()

    # Commands

    def command(self, argv):
        """The command line that runs a program of the machine in all its namespaces."""
        return ["nsenter", "--target", str(self._init_pid), "--all", "--", *argv]

    def run(self, argv, check=True, text=None, timeout=PATIENCE_SECONDS):
        """Runs argv (a list, or a string for the shell) in the machine.

        Returns the subprocess.CompletedProcess, its output as text; CommandFailed, with the
        output, if check and it failed. text goes to its standard input.
        """
        argv = ["/bin/sh", "-c", argv] if isinstance(argv, str) else list(argv)
        result = subprocess.run(
            self.command(argv),
            input=text if text is not None else "",
            capture_output=True,
            text=True,
            errors="replace",
            env=ENVIRONMENT,
            timeout=timeout,
            check=False,
        )
        if check and result.returncode != 0:
            raise CommandFailed(argv, result)
        return result

    def popen_outside(self, argv, **options):
        """Starts a program of this host in the machine's network; poweroff() kills it."""
        # pylint: disable=consider-using-with # the caller or poweroff() ends it
        process = subprocess.Popen(self.network.command(argv), **options)

        def end():
            process.kill()
            process.wait()

        self._cleanup.callback(end)
        return process

    def systemctl(self, *arguments, check=True, timeout=PATIENCE_SECONDS):
        """The standard output of systemctl."""
        return self.run(["systemctl", *arguments], check=check, timeout=timeout).stdout

    def show(self, unit, *properties):
        """Properties of a unit: a dictionary of strings."""
        output = self.systemctl("show", f"--property={','.join(properties)}", "--", unit)
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)

    def is_running(self):
        return self._leader is not None and self._leader.poll() is None

    def failed_units(self):
        """The names of the units that are in the failed state."""
        output = self.systemctl("list-units", "--failed", "--no-legend", "--plain")
        return [line.split()[0] for line in output.splitlines()]

    # Files

    def path(self, path):
        """Where this host sees a file of the machine."""
        return pathlib.Path(f"/proc/{self._init_pid}/root") / str(path).lstrip("/")

    def write_file(self, path, text, mode=0o644):
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    def remove_file(self, path):
        """Removes a file or a directory with all that is in it, if it is there."""
        file = self.path(path)
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)

    def install(self, build):
        """Installs what a meson build directory has built, as a package would."""
        environment = dict(os.environ, DESTDIR=str(self.path("/")))
        subprocess.run(
            ["meson", "install", "--no-rebuild", "--quiet", "-C", str(build)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        self._take_notice_of_installed()

    def install_tree(self, directory):
        """Installs the files of a directory that was the DESTDIR of an installation."""
        archive = subprocess.run(
            ["tar", "-C", str(directory), "-c", "."], stdout=subprocess.PIPE, check=True
        ).stdout
        subprocess.run(
            ["tar", "-C", str(self.path("/")), "--keep-directory-symlink"]
            + ["--no-overwrite-dir", "-x"],
            input=archive,
            check=True,
        )
        self._take_notice_of_installed()

    def _take_notice_of_installed(self):
        """What the scripts of a package do after its files are there."""
        self.run("if [ -d /usr/lib/sysusers.d ]; then systemd-sysusers; fi")
        self.run(["journalctl", "--update-catalog"])
        self.systemctl("daemon-reload")

    # Processes of a unit

    def main_pid(self, unit):
        """The main process's pid as the machine sees it; 0 if there is none."""
        return int(self.show(unit, "MainPID")["MainPID"])

    def processes(self, cgroup):
        """A unit's processes by its ControlGroup: (pid outside, pid inside, name) each.

        Reads /proc only, so it is cheap enough for a loop that kills many times a second.
        """
        found = []
        for pid in self._cgroup.pids(cgroup):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                status = pathlib.Path(f"/proc/{pid}/status").read_text(errors="replace")
                fields = dict(line.split(":\t", 1) for line in status.splitlines())
                if fields["State"][0] not in "ZX":
                    found.append((pid, int(fields["NSpid"].split()[-1]), fields["Name"]))
        return found

    def kill_main(self, unit, number=signal.SIGKILL):
        """Sends a signal to the main process of a unit and to no other."""
        pid = self.main_pid(unit)
        if pid == 0:
            raise ProcessLookupError(f"{unit} has no main process")
        self.run(f"kill -{int(number)} {pid}")

    # Journal

    def _journalctl(self, *arguments):
        # Its parent is nsenter, and a SIGKILL of the test run must not leave it to itself
        return self.command(
            ["setpriv", "--pdeathsig=KILL", "journalctl", "--quiet"]
            + ["--output=json", "--all", *arguments]
        )

    def last_entry(self):
        """The last entry written until now (only its addresses, __*), or None."""
        self.run(["journalctl", "--sync"])
        output = self.run(
            ["journalctl", "--quiet", "--lines=1", "--output=json", "--output-fields=_PID"]
        ).stdout
        return json.loads(output) if output else None

    def journal_cursor(self):
        """The place after the last entry written so far, for the since= of the others."""
        entry = self.last_entry()
        return entry["__CURSOR"] if entry else None

    @staticmethod
    def _since(cursor):
        return [f"--after-cursor={cursor}"] if cursor else []

    def journal(self, since=None, **wanted):
        """The entries written until now whose fields have the wanted values.

        They are chosen here, not by journalctl: that of 252 leaves out the first match after
        a cursor whose own entry is no match.
        """
        self.run(["journalctl", "--sync"])
        result = subprocess.run(
            self._journalctl(*self._since(since)),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ENVIRONMENT,
            check=False,
        )
        entries = map(journal.parse_entry, result.stdout.splitlines())
        return [entry for entry in entries if journal.has_fields(entry, wanted)]

    def follow_journal(self, since=None, keep=lambda entry: True):
        """A journal.JournalFollower; close() it."""
        return journal.JournalFollower(
            self._journalctl("--follow", "--no-tail", *self._since(since)), keep
        )

    def wait_journal(self, predicate, timeout=PATIENCE_SECONDS, since=None):
        """The first entry after the cursor since that fits, waited for."""
        follower = self.follow_journal(since)
        try:
            return follower.wait(predicate, timeout)
        finally:
            follower.close()

    def last_journal_lines(self, n=100):
        """The end of the journal as a person reads it."""
        return self.run(
            ["journalctl", "--quiet", "--no-pager", f"--lines={n}", "-o", "short-precise"],
            check=False,
        ).stdout

    # Sockets in the machine's network

    def connect(self, address, timeout=PATIENCE_SECONDS):
        return self.network.connect(address, timeout)

    def listen(self, address=("127.0.0.1", 0), **options):
        return self.network.listen(address, **options)
