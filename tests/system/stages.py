# SPDX-License-Identifier: LGPL-2.1-or-later
"""One interface over the managers that a holdfastd can run under.

A Stage is a manager with a network: the keeper, or a machine with a real systemd. It starts
Instances; an instance is one service with its listeners and its fd store. A scenario written
against these two runs under every manager unchanged.
"""

import json
import os
import pathlib
import re
import signal
import time

import journal
import streams
from patience import PATIENCE_SECONDS

NAMES = ("keeper", "systemd-252", "systemd-257")

# What a service says of a connection that has lost or repeated a byte: never without damage
FAILED_AUDIT = "does not pass its audit"


class StageUnavailable(Exception):
    """The stage can't be had here; the text says why."""


def source_directory():
    return pathlib.Path(__file__).resolve().parents[2]


def build_directory():
    """The meson build directory under test."""
    return pathlib.Path(os.environ.get("HOLDFAST_BUILD", source_directory() / "build"))


def has_sanitizer():
    """Whether the build under test is one of a sanitizer's."""
    return sanitizer() != "none"


def sanitizer():
    """As meson's b_sanitize has it."""
    options = build_directory() / "meson-info" / "intro-buildoptions.json"
    values = {o["name"]: o["value"] for o in json.loads(options.read_text(encoding="utf-8"))}
    return values["b_sanitize"]


def built_program(name):
    """The path of a program that the build directory has made."""
    targets = build_directory() / "meson-info" / "intro-targets.json"
    try:
        for target in json.loads(targets.read_text(encoding="utf-8")):
            if target["name"] == name and target["type"] == "executable":
                return existing_program(target["filename"][0])
    except FileNotFoundError as error:
        raise StageUnavailable(f"{build_directory()} is no build directory") from error
    raise StageUnavailable(f"{build_directory()} has no program {name}")


def existing_program(path):
    if not os.access(path, os.X_OK):
        raise StageUnavailable(f"{path} is not built")
    return path


def socket_address(text):
    """An address as ListenStream= and --listen= take it, as Python's sockets take it."""
    if text.startswith("/"):
        return text
    if text.startswith("@"):
        return "\0" + text[1:]
    host, _, port = text.rpartition(":")
    return (host.strip("[]") or "127.0.0.1", int(port))


class Stage:
    """What all stages have in common.

    name        one of NAMES
    network     a network.Network: where the instances listen
    machine     the machine.Machine, or None
    """

    name = None
    machine = None
    has_journal = False

    def __init__(self, network):
        self.network = network
        self.instances = []
        self._failed_audits = []

    def start(self, service="echo", listen=None, options=(), **settings):
        """Starts a service; returns its Instance once the service is ready.

        service   with its arguments: "log", "echo", "relay 127.0.0.1:5432"
        listen    addresses as the manager takes them; by default one free TCP port
        options   of holdfastd
        settings:
          environment   a dictionary, for the service
          limit_nofile  RLIMIT_NOFILE of the service
          store_max     how many fds the manager stores
          wait          False: don't wait until it is ready
          service_lines, socket_lines   (systemd only) more lines of the units
          keeper_options                (keeper only) more options of the keeper
          program       (keeper only) another program than the built holdfastd
        """
        addresses = list(listen or [f"127.0.0.1:{self.network.free_port()}"])
        instance = self._new_instance(service, addresses, list(options), settings)
        self.instances.append(instance)
        instance.start(settings.get("wait", True))
        return instance

    def _new_instance(self, service, listen, options, settings):
        raise NotImplementedError

    def socket_path(self, name):
        """A path for an AF_UNIX socket that services of this stage can listen on or reach."""
        raise NotImplementedError

    def outside_path(self, path):
        """Where this process sees what a service of this stage sees at path."""
        return path

    def upstream(self, **options):
        """A streams.Upstream in the stage's network; close() it."""
        return streams.Upstream(self.network, **options)

    def stop_all(self):
        """Stops what the test that ends now has started."""
        while self.instances:
            self.instances.pop().stop()

    def take_failed_audits(self):
        """What stopped instances had said about bytes that do not add up."""
        lines, self._failed_audits = self._failed_audits, []
        return lines

    def note_failed_audits(self, lines):
        """For an instance that stops: these are all its lines."""
        self._failed_audits += [line for line in lines if FAILED_AUDIT in line]

    def is_healthy(self):
        """Whether the next test may have this stage too."""
        return True

    def last_lines(self, n=100):
        """What the services and the manager have logged lately, for a person."""
        raise NotImplementedError

    def close(self):
        self.stop_all()


class Instance:
    """A service with its listeners and its store. Made by Stage.start()."""

    def __init__(self, stage, service, listen, options):
        self.stage = stage
        self.service = service
        self.listen = listen
        self.options = options
        self.process_name = "holdfastd"

    # What a manager has to provide

    def start(self, wait):
        raise NotImplementedError

    def restart(self, options=None, service=None):
        """A planned restart, if given with other options or another service; waits for it."""
        raise NotImplementedError

    def stop(self):
        """Stops the service and releases its listeners and its store. May be repeated."""
        raise NotImplementedError

    def wait_ready(self):
        """Waits until the present process has said READY=1."""
        raise NotImplementedError

    def n_stored_fds(self):
        raise NotImplementedError

    def status_text(self):
        """The last STATUS= of the service."""
        raise NotImplementedError

    def processes(self):
        """The service's processes: (pid outside, pid inside, name) each. Cheap."""
        raise NotImplementedError

    def _follower(self):
        """The journal.LineFollower of the service's log."""
        raise NotImplementedError

    def _catch_up(self):
        """Waits until the follower has read what was logged until now."""

    def line_of(self, record):
        """The text of one of the follower's records."""
        raise NotImplementedError

    # Processes

    def _main_process(self):
        for process in self.processes():
            if process[2] == self.process_name:
                return process
        return (0, 0, None)

    def main_pid(self):
        """The main process as it knows itself and as its log lines say it; 0 if none."""
        return self._main_process()[1]

    def proc(self):
        """The directory of the main process in /proc."""
        return pathlib.Path(f"/proc/{self._main_process()[0]}")

    def n_workers(self):
        """The worker threads of the main process."""
        tasks = self.proc() / "task"
        names = [(tasks / task / "comm").read_text() for task in os.listdir(tasks)]
        return sum(name.startswith("worker/") for name in names)

    def n_service_fds(self):
        return len(os.listdir(self.proc() / "fd"))

    def kill(self, number=signal.SIGKILL, wait=True):
        """Sends a signal to the main process; returns its pid.

        wait: until another process is there, which may not be ready yet.
        """
        outside, inside, _ = self._main_process()
        if not outside:
            raise ProcessLookupError("the service is not running")
        os.kill(outside, number)
        if wait:
            self.wait_pid_change(inside)
        return inside

    def wait_pid_change(self, old, timeout=PATIENCE_SECONDS):
        """Waits for a main process other than old; returns its pid."""
        deadline = time.monotonic() + timeout
        while True:
            pid = self.main_pid()
            if pid not in (0, old):
                return pid
            if time.monotonic() > deadline:
                raise TimeoutError(f"no other main process than {old} in {timeout} s")
            # No manager tells others of this, and /proc can't be waited for
            time.sleep(0.001)

    def begin_takeover(self):
        """Asks the main process to hand over; returns its pid."""
        return self.kill(signal.SIGUSR2, wait=False)

    def takeover(self, timeout=PATIENCE_SECONDS):
        """A planned change of process while the old one serves; waits until it has gone."""
        return self.wait_alone(self.begin_takeover(), timeout)

    def family(self):
        """All that the main process and its successor are: as processes()."""
        return [process for process in self.processes() if process[2] == self.process_name]

    def wait_alone(self, old=0, timeout=PATIENCE_SECONDS):
        """Waits until the service is one process, and not old; returns its pid."""
        deadline = time.monotonic() + timeout
        while True:
            pids = [inside for _, inside, _ in self.family()]
            if len(pids) == 1 and old not in pids:
                return pids[0]
            if time.monotonic() > deadline:
                raise TimeoutError(f"not one other process than {old} in {timeout} s: {pids}")
            # No manager tells others of this, and /proc can't be waited for
            time.sleep(0.001)

    def wait_n_processes(self, n, timeout=PATIENCE_SECONDS):
        """Waits until the service has n processes in all: a zombie, not yet collected, is one."""
        deadline = time.monotonic() + timeout
        while len(self.processes()) != n:
            if time.monotonic() > deadline:
                raise TimeoutError(f"not {n} processes in {timeout} s: {self.processes()}")
            time.sleep(0.001)  # As above

    def program_path(self):
        """Where this process sees the program that the service is started from."""
        raise NotImplementedError

    # Connections

    def address(self, n=0):
        """The n-th listener's address as Python's sockets take it, from outside."""
        address = socket_address(self.listen[n])
        if isinstance(address, str) and address.startswith("/"):
            return str(self.stage.outside_path(address))
        return address

    def connect(self, n=0, timeout=PATIENCE_SECONDS):
        return self.stage.network.connect(self.address(n), timeout)

    def connect_many(self, count, n=0, timeout=PATIENCE_SECONDS):
        return self.stage.network.connect_many(self.address(n), count, timeout)

    # Log

    def mark(self):
        """The end of the log as of now, for the since= of the others."""
        self._catch_up()
        return self._follower().count()

    def records(self, since=0):
        """What the service has logged: journal entries, or lines where there is no journal."""
        self._catch_up()
        return self._follower().records()[since:]

    def lines(self, since=0):
        """What the service has logged, as text."""
        return [self.line_of(record) for record in self.records(since)]

    def wait_line(self, pattern, timeout=PATIENCE_SECONDS, since=0):
        """Waits for a line in which the regular expression is found; returns the match."""
        expression = re.compile(pattern)
        record = self._follower().wait(
            lambda record: expression.search(self.line_of(record)), timeout, since
        )
        return expression.search(self.line_of(record))

    def wait_lines(self, pattern, n, timeout=PATIENCE_SECONDS):
        """Waits until the expression was found in n lines; returns all the matches."""
        expression = re.compile(pattern)
        records = self._follower().wait_count(
            lambda record: expression.search(self.line_of(record)), n, timeout
        )
        return [expression.search(self.line_of(record)) for record in records]

    def fields(self, since=0, **wanted):
        """The journal entries whose fields have the wanted values. Needs has_journal."""
        if not self.stage.has_journal:
            raise NotImplementedError(f"{self.stage.name} has no journal")
        return [e for e in self.records(since) if journal.has_fields(e, wanted)]
