# SPDX-License-Identifier: LGPL-2.1-or-later
"""A soak: rounds of conversations through a service that is disturbed all the time.

A round is one service from its start to its end. Its clients have some conversations each,
one after the other (soak_peers.py), while the service is disturbed until the last of them has
ended; then nothing of them may be left. What is done is a plan's, which its seed alone
decides (soak_plan.py). So a seed does the same again; at which instant of the service each
thing meets it, and how many disturbances a round has time for, is the machine's to decide.
"""

import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

import disturbances
import journal
import soak_peers
import stages
import streams
from controlled import Controlled
from soak_plan import THREADS_MAX, WEIGHTS, Plan

__all__ = ("Plan", "Round", "SoakFailure", "play", "summary")

# A round takes some seconds, and a sanitizer makes that many more
ROUND_SECONDS = 200
# A kill that waits for calls of a service that makes none is given up
KILL_SECONDS = 0.3
AFTER_EXIT_CALLS = 8
SIGNALED = re.compile(r"was killed by signal (\d+)")
EXITED = re.compile(r"exited with status (\d+)")
# 75: it took over, but the old process died before the manager knew of it
OUR_STATUSES = ("0", "75")
# SIGKILL, and SIGTERM of a restart that meets a process which has only begun
OUR_SIGNALS = ("9", "15")
# Of src/vault/pipes.h, for each worker; and both ends of a parcel
PIPES_KEPT = 64
FDS_OF_A_PARCEL = 2
# TCP's states, of /proc/net/tcp, in which a socket may be when all is over
TCP_IDLE = {"06": "TIME_WAIT", "0A": "LISTEN"}


COUNTED = (
    "rounds",
    "connections",
    "bytes received",
    "clients refused",
    "log entries repeated",
    "deaths",
    "kills at a call",
)


class SoakFailure(AssertionError):
    """A round that went wrong; the text has all that is needed to see it again."""


class Round:
    """One plan, carried out. Also what its conversations share: see soak_peers.py."""

    def __init__(self, stage, plan, counts):
        self.stage = stage
        self.plan = plan
        self.counts = counts
        self.loop = None
        self.fars = None
        self.instance = None
        self._n_refused = 0
        self._controlled = None
        self._failures = []
        self._done = []
        self._over = threading.Event()
        self._deadline = time.monotonic() + ROUND_SECONDS
        self._lock = threading.Lock()
        self._log = collections.defaultdict(list)
        self._n_seen = 0

    def run(self):
        with contextlib.ExitStack() as stack:
            self.loop = stack.enter_context(streams.Loop())
            self._start(stack)
            stack.callback(self.stage.stop_all)
            fds = self._fds()
            self._play()
            self._check_nothing_is_left(fds)
        self._check_deaths()

    def _play(self):
        """All clients' conversations, and what disturbs them meanwhile."""
        threads = [
            threading.Thread(target=self._client, args=(i,), daemon=True)
            for i in range(len(self.plan.clients))
        ]
        for thread in threads:
            thread.start()
        self._disturb()
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def _start(self, stack):
        plan, settings = self.plan, {}
        service = plan.service
        if service == "relay":
            service += " " + self._make_upstream(stack)
        if plan.listens_unix:
            settings["listen"] = [self.stage.socket_path(f"soak-{plan.seed}")]
        self._controlled = Controlled(self.stage, service, self._options(plan.threads), **settings)
        self.instance = self._controlled.instance

    def _make_upstream(self, stack):
        address = ("127.0.0.1", 0)
        if self.plan.upstream_is_unix:
            address = self.stage.socket_path(f"soak-upstream-{self.plan.seed}")
            stack.callback(os.unlink, address)
        listener = stack.enter_context(self.stage.network.listen(address))
        stack.callback(self.loop.remove_listener, listener)
        self.fars = soak_peers.Fars(self.loop, listener)
        name = listener.getsockname()
        return name if isinstance(name, str) else "%s:%d" % name

    def _options(self, threads):
        framing = ["--frame=line"] if self.plan.service == "log" else []
        return [f"--threads={threads}", *framing]

    def _all_options(self, threads):
        """Those that the stage adds are not the plan's."""
        kept = [o for o in self.instance.options if not o.startswith(("--threads=", "--frame="))]
        return [*kept, *self._options(threads)]

    # What conversations ask for

    def note_refused(self):
        """A client was reset between accept and put, where no byte has been read."""
        with self._lock:
            self._n_refused += 1

    def has_failed(self):
        return bool(self._failures)

    def fail_if_late(self):
        if self._failures:
            raise soak_peers.Wrong("another one has failed")
        if time.monotonic() > self._deadline:
            raise soak_peers.Wrong(f"no end in {ROUND_SECONDS} s")

    def ask(self, *arguments):
        """What holdfastctl prints, or nothing if a process that died had the request."""
        result = self._controlled.ctl(*arguments, f"--socket={self._controlled.path}")
        return result.stdout if result.returncode == 0 else ""

    def ask_list(self):
        return json.loads(self.ask("list", "--json=short") or "[]")

    def _read_log(self):
        with self._lock:
            lines = self.instance.records(self._n_seen)
            self._n_seen += len(lines)
            for line in lines:
                if match := soak_peers.LINE.search(self.instance.line_of(line)):
                    entry = (int(match[2]), match[3])
                    self._log[int(match[1], 16)].append(entry)

    def log_of(self, seed):
        """The entries of a conversation until now: (number, text) each."""
        self._read_log()
        return list(self._log[seed])

    def n_logged(self, seed):
        return len({entry for entry in self.log_of(seed) if len(entry[1]) == soak_peers.N_DOTS})

    def wait_log(self):
        """Waits for another line, but not for long."""
        self.fail_if_late()
        with contextlib.suppress(journal.WaitTimeout):
            self.instance.wait_line("", timeout=0.2, since=self._n_seen)

    # Clients

    def _client(self, index):
        try:
            for k, acts in enumerate(self.plan.clients[index]):
                seed = self.plan.seed << 16 | index << 8 | k
                conversation = soak_peers.Conversation(self, seed, acts)
                try:
                    conversation.run()
                except BaseException as error:
                    why = f"client {index}.{k}: {error or repr(error)} ({conversation.describe()})"
                    self._fail(why, error)
                    return
        finally:
            self._done.append(index)
            if len(self._done) == len(self.plan.clients):
                self._over.set()

    def _fail(self, why, cause=None):
        failure = SoakFailure(why)
        failure.__cause__ = cause
        self._failures.append(failure)
        self._over.set()
        self.loop.call(lambda: None)  # that all who wait look

    # Disturbances

    def _disturb(self):
        for disturbance in self.plan.disturbances():
            # The pace is the soak's input, not something that is waited for
            if self._over.wait(disturbance.gap_msec / 1000):
                return
            try:
                getattr(self, "_do_" + disturbance.name.replace("-", "_"))(disturbance)
                self.fail_if_late()
            except BaseException as error:  # pylint: disable=broad-except
                self._fail(f"{disturbance}: {error or repr(error)}", error)
                return
            self.counts[disturbance.name] += 1

    def _kill(self, wait=True):
        self.instance.wait_pid_change(0)
        with contextlib.suppress(ProcessLookupError):
            self.instance.kill(wait=wait)

    def _do_kill(self, _disturbance):
        self._kill()

    def _do_kill_at_call(self, disturbance):
        self.instance.wait_ready()
        self._kill_at_call(disturbance.call, disturbance.when, "--all-threads")

    def _do_kill_twice(self, disturbance):
        self.instance.wait_ready()
        self._kill_at_call(disturbance.call, disturbance.when, "--all-threads")
        self.instance.wait_pid_change(0)
        self._kill_at_call(disturbance.second_call, disturbance.when, "--all-threads")

    def _kill_at_call(self, call, when, *options):
        """Returns once it is killed, or can't be."""
        family = self.instance.family()
        if not family:
            return
        command = [
            stages.built_program("kill-at-call"),
            f"--pid={family[0][0]}",
            f"--call={call}",
            f"--when={when}",
            f"--timeout={KILL_SECONDS}",
            *options,
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode == 0:
            self.counts["kills at a call"] += 1
            if "--child" not in options:
                # It is there for a moment yet
                self.instance.wait_pid_change(family[0][1])

    def _do_kill_while_away(self, disturbance):
        self.instance.wait_ready()
        os.kill(self.instance.keeper_pid(), signal.SIGSTOP)
        try:
            with contextlib.suppress(ProcessLookupError):
                self.instance.kill(wait=False)
            time.sleep(disturbance.msec / 1000)  # the pause is the soak's input
        finally:
            os.kill(self.instance.keeper_pid(), signal.SIGCONT)

    def _do_restart(self, disturbance):
        self._restart(disturbance.threads)

    def _restart(self, threads):
        # What says afterwards that it is ready must be the next process
        self.instance.wait_ready()
        self.instance.wait_alone()
        self.instance.restart(options=self._all_options(threads))

    def _do_takeover(self, _disturbance):
        self.instance.wait_ready()
        self.instance.takeover()

    def _do_ctl_takeover(self, disturbance):
        self.instance.wait_ready()
        old = self.instance.main_pid()
        command = [str(self.instance.program_path()), *self._all_options(disturbance.threads)]
        command += self.instance.service.split()
        result = self._controlled.ctl(
            "takeover", f"--socket={self._controlled.path}", "--", *command
        )
        if result.returncode != 0:
            raise soak_peers.Wrong(f"takeover: {result.stderr}")
        self.instance.wait_alone(old)

    def _do_takeover_killed(self, disturbance):
        self.instance.wait_ready()
        disturbances.kill_in_takeover(
            self.instance, disturbance.msec / 1000, 1 if disturbance.is_successor else 0
        )

    def _do_takeover_at_call(self, disturbance):
        self.instance.wait_ready()
        role = ["--child", f"--after-exit={AFTER_EXIT_CALLS}"] if disturbance.is_successor else []
        threads = ["--all-threads"] if disturbance.is_any_thread else []
        self._kill_at_call(disturbance.call, disturbance.when, "--signal=USR2", *role, *threads)
        self.instance.wait_alone()

    def _do_freeze(self, disturbance):
        self.instance.wait_pid_change(0)
        with contextlib.suppress(ProcessLookupError):
            pid = self.instance.kill(signal.SIGSTOP, wait=False)
            time.sleep(disturbance.msec / 1000)  # the pause is the soak's input
            os.kill(pid, signal.SIGCONT)

    def _do_ask(self, _disturbance):
        """Nobody else disturbs the service now, so that it has to answer."""
        self.instance.wait_ready()
        for verb in ("audit", "list", "status", "metrics"):
            self._must_say(verb)

    def _must_say(self, verb, *options):
        result = self._controlled.ctl(verb, *options, f"--socket={self._controlled.path}")
        if result.returncode != 0 or result.stderr:
            raise soak_peers.Wrong(f"{verb}: {result.stdout}{result.stderr}")
        return result.stdout

    # Afterwards

    def _fds(self):
        """How many there are of each kind, and in the store."""
        self.instance.wait_ready()
        kinds = collections.Counter(stored=self.instance.n_stored_fds())
        directory = self.instance.proc() / "fd"
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):
                kinds[os.readlink(directory / name).partition(":[")[0]] += 1
        # A shell that has fds of the store may pass on the script that it reads
        return {kind: n for kind, n in kinds.items() if not kind.endswith("/service")}

    def _has_no_more_fds(self, before):
        """Than before the first connection, but for free pipes and the parcels they lie in."""
        now = self._fds()
        n_parcels = max(0, now["stored"] - before["stored"])
        more = {
            "stored": THREADS_MAX,
            "socket": FDS_OF_A_PARCEL * n_parcels,
            "pipe": PIPES_KEPT * self.plan.threads,
        }
        return all(n <= before.get(kind, 0) + more.get(kind, 0) for kind, n in now.items())

    def _check_nothing_is_left(self, fds):
        self._restart(self.plan.threads)
        self.instance.wait_alone()
        self._until("connections", lambda: self._must_say("list", "--json=short") == "[]\n")
        self._until("peers", lambda: self._n_peers() == 0)
        self._until("sockets", lambda: not self._live_sockets())
        said = self._must_say("audit")
        if not said.startswith("0 connections audited, all right"):
            raise SoakFailure(f"the last audit: {said}")
        self._until("fds", lambda: self._has_no_more_fds(fds))

    @staticmethod
    def _until(what, holds):
        deadline = time.monotonic() + stages.PATIENCE_SECONDS
        while not holds():
            if time.monotonic() > deadline:
                raise SoakFailure(f"there are {what} left when all have ended")
            time.sleep(0.02)  # what the kernel and the service give back they tell nobody

    def _n_peers(self):
        """Strangers are what a relay has connected for a client that it lost in the window."""
        peers = self.fars.peers if self.fars else []
        return sum(not (peer.is_done or peer.receive_ended) for peer in peers)

    def _live_sockets(self):
        """TCP sockets of the network, which is this stage's own, with a connection."""
        if not self.stage.network.is_private:
            return []
        table = pathlib.Path("/proc/thread-self/net/tcp")
        text = self.stage.network.call(lambda: table.read_text(encoding="ascii"))
        return [row for row in text.splitlines()[1:] if row.split()[3] not in TCP_IDLE]

    def _check_deaths(self):
        """Of what nobody here has killed it with, the service may not die."""
        for line in self.instance.all_lines:
            number, status = SIGNALED.search(line), EXITED.search(line)
            if number and number[1] not in OUR_SIGNALS:
                raise SoakFailure(line)
            if status and status[1] not in OUR_STATUSES:
                raise SoakFailure(line)
            if stages.FAILED_AUDIT in line or "quarantine" in line.lower():
                raise SoakFailure(line)
        n_killed = sum(bool(SIGNALED.search(line)) for line in self.instance.all_lines)
        self.counts["deaths"] += n_killed
        self.counts["clients refused"] += self._n_refused
        if self._n_refused > THREADS_MAX * n_killed:
            raise SoakFailure(f"{self._n_refused} clients refused, at {n_killed} deaths")


def play(stage, seed, counts, service=None):
    """A round; raises SoakFailure, which tells the seed and all its choices."""
    plan = Plan(seed, service)
    one = Round(stage, plan, counts)
    try:
        one.run()
    except Exception as error:
        # What a failed round says of damage is no news to the next one
        stage.take_failed_audits()
        only = f" --service={service}" if service else ""
        how = f"tests/crash/soak --seed={seed}{only} --rounds=1"
        raise SoakFailure(f"{how}: {error}\n{plan.details()}") from error
    counts["rounds"] += 1


def summary(counts):
    """What rounds have come to, in one line."""
    said = ", ".join(f"{counts[name]} {name}" for name in COUNTED)
    done = ", ".join(f"{counts[name]} {name}" for name in WEIGHTS)
    return f"{said}; {sum(counts[name] for name in WEIGHTS)} disturbances: {done}"
