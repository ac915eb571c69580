# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading a journal as dictionaries, and waiting for entries without polling."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import threading
import time

from patience import PATIENCE_SECONDS

# Fields that say only where the test ran; 100,000 entries are kept without them
DROPPED_FIELDS = frozenset(
    (
        "_BOOT_ID",
        "_CAP_EFFECTIVE",
        "_HOSTNAME",
        "_MACHINE_ID",
        "_RUNTIME_SCOPE",
        "_SYSTEMD_CGROUP",
        "_SYSTEMD_INVOCATION_ID",
        "_SYSTEMD_SLICE",
        "_TRANSPORT",
        "__SEQNUM",
        "__SEQNUM_ID",
    )
)


class WaitTimeout(Exception):
    """What was waited for did not come in time."""


def _field(value):
    """journalctl writes a value that is not text as an array of its bytes."""
    if isinstance(value, list) and value and all(isinstance(b, int) for b in value):
        return bytes(value)
    return value


def parse_entry(line):
    """The fields of one line of journalctl -o json: str, bytes, or a list where repeated."""
    return {
        name: _field(value)
        for name, value in json.loads(line).items()
        if name not in DROPPED_FIELDS
    }


def has_fields(entry, wanted):
    """Whether the fields of entry have the values of the dictionary wanted."""
    return all(entry.get(name) == value for name, value in wanted.items())


def message_of(entry):
    """The text of an entry, whatever its bytes."""
    message = entry.get("MESSAGE", "")
    return message.decode(errors="replace") if isinstance(message, bytes) else str(message)


def _describe(records):
    return "".join(f"\n  {str(record)[:500]}" for record in records[-5:])


class LineFollower:
    """Reads lines from a stream in a thread and keeps those that parse() turns into a record.

    wait() sleeps until a record that fits arrives: it never polls.
    """

    def __init__(self, stream, parse):
        self._stream = stream
        self._parse = parse
        self._records = []
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name="follower", daemon=True)
        self._thread.start()

    def _read(self):
        try:
            for line in self._stream:
                record = self._parse(line)
                if record is not None:
                    self._add(record)
        except ValueError:
            pass  # closed while reading: the end, too
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _add(self, record):
        with self._changed:
            self._records.append(record)
            self._changed.notify_all()

    def records(self):
        """What has arrived until now."""
        with self._changed:
            return list(self._records)

    def count(self):
        with self._changed:
            return len(self._records)

    def wait(self, predicate, timeout, start=0):
        """The first record from index start on that fits; WaitTimeout without one."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                while start < len(self._records):
                    if predicate(self._records[start]):
                        return self._records[start]
                    start += 1
                remaining = deadline - time.monotonic()
                if self._ended or remaining <= 0:
                    raise WaitTimeout(
                        f"no fitting record in {timeout} s; the last ones were:"
                        f"{_describe(self._records)}"
                    )
                self._changed.wait(remaining)

    def wait_count(self, predicate, n, timeout):
        """Waits until at least n records fit, and returns all that do."""
        deadline = time.monotonic() + timeout
        found, start = [], 0
        with self._changed:
            while True:
                found += [r for r in self._records[start:] if predicate(r)]
                start = len(self._records)
                if len(found) >= n:
                    return found
                remaining = deadline - time.monotonic()
                if self._ended or remaining <= 0:
                    raise WaitTimeout(
                        f"only {len(found)} of {n} fitting records in {timeout} s"
                    )
                self._changed.wait(remaining)

    def wait_end(self, timeout=PATIENCE_SECONDS):
        self._thread.join(timeout)


class JournalFollower(LineFollower):
    """The entries of a machine's journal from a cursor on, as they are written."""

    def __init__(self, command, keep):
        """command is a journalctl -f -o json command line; keep(entry) chooses."""
        # pylint: disable=consider-using-with # close() ends it
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

        self._keep = keep
        self._read_until = 0
        super().__init__(self._process.stdout, self._parse_and_choose)

    def _parse_and_choose(self, line):
        entry = parse_entry(line)
        with self._changed:
            self._read_until = int(entry["__MONOTONIC_TIMESTAMP"])
            self._changed.notify_all()
        return entry if self._keep(entry) else None

    def wait_read_until(self, monotonic_usec, timeout=PATIENCE_SECONDS):
        """Waits until it has read (kept or not) the entry of that __MONOTONIC_TIMESTAMP."""
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._read_until >= monotonic_usec or self._ended, timeout
            ):
                raise WaitTimeout(f"the journal was not read in {timeout} s")

    def close(self):
        self._end_process()
        self.wait_end()
        self._process.stdout.close()

    def _end_process(self):
        """Kills what nsenter has forked, so that nsenter reaps it: the pid namespace
        can't end before, and an orphan waits for whoever is PID 1 of this host."""
        pid = self._process.pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
        while self._process.poll() is None:
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                for child in children.read_text(encoding="ascii").split():
                    os.kill(int(child), signal.SIGKILL)
            # nsenter stops when its child is stopped, as by a soft-reboot of the machine
            self._process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
