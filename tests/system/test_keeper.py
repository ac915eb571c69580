# SPDX-License-Identifier: LGPL-2.1-or-later
"""holdfast-keeper as a service sees it, driven by services/keeper_probe.py.

Needs no other file of this folder. The keeper is that of $HOLDFAST_BUILD.
"""

import contextlib
import json
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest

HERE = pathlib.Path(__file__).resolve().parent
PROBE = HERE / "services" / "keeper_probe.py"
PATIENCE = 60  # seconds, for what takes milliseconds


def keeper_program():
    build = os.environ.get("HOLDFAST_BUILD", HERE.parents[1] / "build")
    program = pathlib.Path(build) / "src" / "keeper" / "holdfast-keeper"
    if not program.exists():
        pytest.skip(f"{program} is not built")
    return str(program)


def is_alive(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        text = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        return text.rpartition(")")[2].split()[0] not in "ZX"
    return False


def wait_until(condition, what):
    """For what gives no event: looks again until a deadline."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        select.select([], [], [], 0.005)


class Probe:
    """One start of the service."""

    def __init__(self, connection):
        self.connection = connection
        connection.settimeout(PATIENCE)
        self.hello = self._receive()
        self.pid = self.hello["pid"]
        self.passed = self.hello["passed"]
        self.environment = self.hello["environment"]

    def _receive(self):
        data = self.connection.recv(1 << 20)
        assert data, "the service has died"
        return json.loads(data)

    def do(self, command, **arguments):
        self.connection.send(json.dumps({"do": command, **arguments}).encode())
        return self._receive()["result"]

    def tell(self, command, **arguments):
        """Without an answer: the service won't live to give it, or the test reads it later."""
        self.connection.send(json.dumps({"do": command, **arguments}).encode())

    def signalled(self):
        return self._receive()["signal"]

    def wait_death(self):
        while self.connection.recv(65536):  # the answer to what was told last
            pass

    def stored(self, name=None):
        """What came from the store: [(name, id)], in the order of the fds."""
        listeners = int(self.environment["X_LISTENERS"])
        return [
            (fd["name"], fd["id"])
            for fd in self.passed[listeners:]
            if name is None or fd["name"] == name
        ]

    def store(self, name, n=1, more="\nFDPOLL=0"):
        """Stores n new memfds. Returns their ids."""
        files = self.do("memfds", n=n)
        text = "FDSTORE=1" + (f"\nFDNAME={name}" if name is not None else "") + more
        self.do("notify", text=text, fds=[file["fd"] for file in files])
        return [file["id"] for file in files]


class Keeper:
    """A running keeper, with what it says."""

    def __init__(self, directory, *options, command=None, prefix=(), environment=()):
        self.directory = directory
        self.address = f"{directory}/socket"
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.bind(f"{directory}/control")
        self.control.listen(64)
        self.control.settimeout(PATIENCE)
        self.lines = []
        self.probes = []
        self.changed = threading.Condition()
        listen = [option for option in options if option.startswith("--listen=")]
        if not listen:
            listen = [f"--listen={self.address}"]
            options = (*listen, *options)
        if command is None:
            command = [sys.executable, str(PROBE), f"{directory}/control"]
        # pylint: disable=consider-using-with # close() ends it
        self.process = subprocess.Popen(
            [*prefix, keeper_program(), *options, "--", *command],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=dict(os.environ, X_LISTENERS=str(len(listen)), **dict(environment)),
        )
        self.thread = threading.Thread(target=self._follow, daemon=True)
        self.thread.start()

    def _follow(self):
        for line in self.process.stderr:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()

    def said(self):
        return "\n".join(list(self.lines))

    def find(self, pattern):
        return [line for line in list(self.lines) if re.search(pattern, line)]

    def wait_line(self, pattern, n=1):
        """Waits for the n-th line that has pattern."""
        with self.changed:
            found = self.changed.wait_for(lambda: len(self.find(pattern)) >= n, PATIENCE)
        assert found, f"no line {n} of {pattern!r} in:\n" + self.said()
        return self.find(pattern)[n - 1]

    def probe(self):
        """The next start of the service."""
        try:
            connection = self.control.accept()[0]
        except TimeoutError as error:
            raise AssertionError("the service was not started:\n" + self.said()) from error
        self.probes.append(Probe(connection))
        return self.probes[-1]

    def pid(self):
        return self.process.pid

    def signal(self, number):
        os.kill(self.pid(), number)

    def holds(self, identity):
        """Whether one of the keeper's fds is that file."""
        directory = f"/proc/{self.pid()}/fd"
        for fd in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(f"{directory}/{fd}")
                if f"{status.st_dev}:{status.st_ino}" == identity:
                    return True
        return False

    def wait_exit(self):
        status = self.process.wait(PATIENCE)
        self.thread.join(PATIENCE)
        return status

    def restart(self, probe):
        """kill -9 of the service. Returns what comes after it."""
        os.kill(probe.pid, signal.SIGKILL)
        probe.wait_death()
        return self.probe()

    def kill(self, probe):
        """kill -9 of the keeper: what it would have removed itself is left to the test."""
        self.signal(signal.SIGKILL)
        self.process.wait(PATIENCE)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(probe.environment["NOTIFY_SOCKET"])

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        while self.probes:
            probe = self.probes.pop()
            try:
                probe.wait_death()
            finally:  # should the keeper have left one behind
                probe.connection.close()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "somebody still has the keeper's stderr"
        self.control.close()
        self.process.stderr.close()
        reports = self.find("Sanitizer|runtime error")
        assert not reports, "\n".join(self.lines)


@pytest.fixture(name="start")
def start_fixture():
    """start(*options): a keeper. All of them end with the test."""
    with contextlib.ExitStack() as stack:

        def start(*options, **arguments):
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="keeper-"))
            keeper = Keeper(directory, *options, **arguments)
            stack.callback(keeper.close)
            return keeper

        yield start


RESTARTS = {
    "kill": lambda keeper, probe: os.kill(probe.pid, signal.SIGKILL),
    "hangup": lambda keeper, probe: keeper.signal(signal.SIGHUP),
    "exit": lambda keeper, probe: probe.tell("exit", status=0),
    "crash": lambda keeper, probe: os.kill(probe.pid, signal.SIGSEGV),
}


@pytest.mark.parametrize("how", RESTARTS)
def test_store_survives_every_kind_of_restart(start, how):
    keeper = start()
    probe = keeper.probe()
    stored = probe.store("a") + probe.store("b")
    listener = probe.passed[0]
    probe.do("barrier")
    for _ in range(3):
        RESTARTS[how](keeper, probe)
        probe.wait_death()
        probe = keeper.probe()
        assert probe.passed[0] == listener
        assert probe.stored() == [("b", stored[1]), ("a", stored[0])]  # newest first


def test_what_is_in_a_stored_file_stays(start):
    keeper = start()
    probe = keeper.probe()
    fd = probe.do("memfds", n=1)[0]["fd"]
    probe.do("write", fd=fd, text="pending")
    probe.do("notify", text="FDSTORE=1\nFDNAME=ledger", fds=[fd])
    probe = keeper.restart(probe)
    assert probe.passed[1]["name"] == "ledger"
    assert probe.do("read", fd=probe.passed[1]["fd"]) == "pending"


def test_environment_is_that_of_a_manager(start):
    keeper = start(
        f"--listen=@holdfast-test-{os.getpid()}:1",
        f"--listen=[::1]:{free_port()}",
        "--store-max=7",
        environment={"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "FDSTORE": "9"}.items(),
    )
    probe = keeper.probe()
    environment = probe.environment
    assert environment["LISTEN_PID"] == str(probe.pid)
    assert environment["LISTEN_FDS"] == "2"
    assert re.fullmatch(r"@holdfast-test-\d+_1:\[__1\]_\d+", environment["LISTEN_FDNAMES"])
    assert environment["FDSTORE"] == "7"
    assert "WATCHDOG_USEC" not in environment
    assert "WATCHDOG_PID" not in environment
    assert probe.hello["session"] == probe.pid
    assert probe.hello["blocked"] == []


def free_port():
    with socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        return sock.getsockname()[1]


WITH_MORE_FDS = """
import os, sys
os.dup2(0, 4)
os.dup2(0, 40)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_nothing_else_is_inherited(start):
    keeper = start(prefix=[sys.executable, "-c", WITH_MORE_FDS])
    probe = keeper.probe()
    probe.store("a", 3)
    probe = keeper.restart(probe)
    # 3: listener, 4 to 6: stored; then the probe's own connection and its look at the list
    assert sorted(probe.hello["stray"]) == list(range(9))


def test_name_is_that_of_all_listeners(start):
    keeper = start(*(f"--listen=@holdfast-test-{os.getpid()}-{i}" for i in "ab"), "--name=web")
    assert keeper.probe().environment["LISTEN_FDNAMES"] == "web:web"


def test_messages_name_what_they_store(start):
    keeper = start()
    probe = keeper.probe()
    unnamed = probe.store(None)
    misnamed = probe.store("a:b")
    many = probe.store("many", 253)
    probe.do("barrier")
    keeper.wait_line(r'ignored "FDNAME=a:b"')
    probe = keeper.restart(probe)
    assert dict.fromkeys(unnamed + misnamed) == dict.fromkeys(
        reversed([id for _, id in probe.stored("stored")])
    )
    assert sorted(many) == sorted(id for _, id in probe.stored("many"))
    assert len(probe.stored()) == 255


def test_removal_takes_all_of_a_name(start):
    keeper = start()
    probe = keeper.probe()
    probe.store("gone", 3)
    kept = probe.store("kept")
    probe.store("gone")
    probe.do("notify", text="FDSTOREREMOVE=1\nFDNAME=gone")
    probe.do("notify", text="FDSTOREREMOVE=1\nFDNAME=never-was")
    probe.do("notify", text="FDSTOREREMOVE=1")
    probe.do("barrier")
    keeper.wait_line("FDSTOREREMOVE=1 without")
    assert keeper.restart(probe).stored() == [("kept", kept[0])]


def test_removed_fds_are_closed(start):
    keeper = start()
    probe = keeper.probe()
    writing = probe.do("hold_reading")
    probe.do("notify", text="FDSTORE=1\nFDNAME=pipe\nFDPOLL=0", fds=[writing])
    probe.do("close", fd=writing)
    probe.do("notify", text="FDSTOREREMOVE=1\nFDNAME=pipe")
    assert probe.do("wait_closed") == ""


def test_duplicate_keeps_its_first_name(start):
    keeper = start()
    probe = keeper.probe()
    file = probe.do("memfds", n=1)[0]
    copy = probe.do("duplicate", fd=file["fd"])
    for name, fd in (("first", file["fd"]), ("second", copy), ("third", file["fd"])):
        probe.do("notify", text=f"FDSTORE=1\nFDNAME={name}", fds=[fd])
    probe = keeper.restart(probe)
    assert probe.stored() == [("first", file["id"])]
    # nor does what came back become another
    probe.do("notify", text="FDSTORE=1\nFDNAME=again", fds=[probe.passed[1]["fd"]])
    assert keeper.restart(probe).stored() == [("first", file["id"])]


def test_hangup_drops_what_is_polled(start):
    keeper = start()
    probe = keeper.probe()
    kept, kept_peer = probe.do("socketpair")
    dropped, dropped_peer = probe.do("socketpair")
    alive, _ = probe.do("socketpair")
    kept_id, dropped_id, alive_id = (
        probe.do("identify", fd=fd) for fd in (kept, dropped, alive)
    )
    probe.do("notify", text="FDSTORE=1\nFDNAME=kept\nFDPOLL=0", fds=[kept])
    probe.do("notify", text="FDSTORE=1\nFDNAME=dropped", fds=[dropped])
    probe.do("notify", text="FDSTORE=1\nFDNAME=alive", fds=[alive])
    probe.do("barrier")
    # what it sees is the end of the pair that it still has
    probe.do("write", fd=dropped_peer, text="unread")
    probe.do("close", fd=dropped)
    probe.do("close", fd=kept)
    probe.do("close", fd=kept_peer)
    probe.do("close", fd=dropped_peer)
    wait_until(lambda: not keeper.holds(dropped_id), "not dropped")
    assert keeper.holds(kept_id)
    assert keeper.holds(alive_id)
    assert ("kept", kept_id) in keeper.restart(probe).stored()


def test_hangup_before_the_store_drops_too(start):
    keeper = start()
    probe = keeper.probe()
    stored, peer = probe.do("socketpair")
    identity = probe.do("identify", fd=stored)
    probe.do("close", fd=peer)
    probe.do("notify", text="FDSTORE=1\nFDNAME=x", fds=[stored])
    probe.do("barrier")
    wait_until(lambda: not keeper.holds(identity), "not dropped")


def test_store_has_its_limit(start):
    keeper = start("--store-max=3")
    probe = keeper.probe()
    kept = probe.store("a", 2)
    more = probe.store("b", 3)
    probe.do("barrier")
    keeper.wait_line(r'refused 2 fds named "b": the store is full with 3')
    probe = keeper.restart(probe)
    stored = probe.stored()
    assert len(stored) == 3
    assert {id for _, id in stored} - set(kept) == {more[0]}
    # what was removed makes room
    probe.do("notify", text="FDSTOREREMOVE=1\nFDNAME=a")
    probe.store("c", 2)
    probe = keeper.restart(probe)
    assert len(probe.stored("c")) == 2


def test_store_is_no_larger_than_the_limit_of_files_lets_it_be(start):
    keeper = start("--store-max=1000", prefix=("prlimit", "--nofile=800", "--"))
    line = keeper.wait_line("--store-max=1000 is too much for the limit of open files")
    most = int(re.search(r"(\d+) at most", line)[1])
    assert 0 < most < 800
    probe = keeper.probe()
    assert probe.environment["FDSTORE"] == str(most)
    probe.store("a", 200)
    probe.do("barrier")
    assert len(keeper.restart(probe).stored("a")) == min(most, 200)


def test_no_store_at_all(start):
    keeper = start("--store-max=0")
    probe = keeper.probe()
    assert "FDSTORE" not in probe.environment
    probe.store("a")
    keeper.wait_line("refused 1 fds")
    assert keeper.restart(probe).stored() == []


def test_names_that_do_not_fit_the_environment_are_refused(start):
    keeper = start()
    probe = keeper.probe()
    for _ in range(3):
        probe.store("n" * 255, 253)
    keeper.wait_line("names do not fit")
    probe = keeper.restart(probe)
    assert 500 < len(probe.stored()) < 520


def test_a_store_of_thousands(start):
    keeper = start()
    probe = keeper.probe()
    for i in range(16):
        probe.store(f"p{i}", 250)
    probe = keeper.restart(probe)
    assert len(probe.stored()) == 4000
    assert len(probe.stored("p7")) == 250
    assert len({id for _, id in probe.stored()}) == 4000


def test_barrier_comes_after_what_was_sent_before(start):
    keeper = start()
    probe = keeper.probe()
    for i in range(50):
        identity = probe.store(f"n{i}")[0]
        assert probe.do("barrier") == ""
        assert keeper.holds(identity)


@pytest.mark.parametrize("text, n_fds", [("BARRIER=1\nREADY=1", 1), ("BARRIER=1", 2)])
def test_barrier_must_be_alone(start, text, n_fds):
    keeper = start()
    probe = keeper.probe()
    writing = probe.do("hold_reading")
    probe.do("notify", text=text, fds=[writing] * n_fds)
    probe.do("close", fd=writing)
    assert probe.do("wait_closed") == ""  # closed all the same: nobody may wait for ever
    keeper.wait_line("ignored BARRIER=1 of pid")


BROKEN = {
    "zero bytes within": list(b"FDSTORE=1\0FDNAME=x"),
    "nothing": [],
    "too long": "FDSTORE=1\nSTATUS=" + "x" * 4096,
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_messages_are_refused_and_their_fds_closed(start, what):
    keeper = start()
    probe = keeper.probe()
    writing = probe.do("hold_reading")
    probe.do("notify", text=BROKEN[what], fds=[writing])
    probe.do("close", fd=writing)
    assert probe.do("wait_closed") == ""
    keeper.wait_line("refused a message")
    probe.store("x")
    assert len(keeper.restart(probe).stored()) == 1


def test_only_the_main_process_is_heard(start):
    keeper = start()
    probe = keeper.probe()
    probe.do("notify_from_child", text="STOPPING=1")
    keeper.wait_line(r"refused a message of pid \d+: not the main process")
    assert is_alive(probe.pid)


def test_a_stranger_is_not_heard(start):
    keeper = start()
    probe = keeper.probe()
    name = probe.environment["NOTIFY_SOCKET"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + name[1:] if name.startswith("@") else name)
        sock.send(b"MAINPID=1")
    keeper.wait_line(f"refused a message of pid {os.getpid()}")


@pytest.mark.parametrize("status", [None, 0, 1])
def test_last_words_are_heard(start, status):
    keeper = start("--restart-delay-max=0")
    probe = keeper.probe()
    expected = []
    for i in range(20):
        file = probe.do("memfds", n=1)[0]
        expected.insert(0, (f"n{i}", file["id"]))
        text = f"FDSTORE=1\nFDNAME=n{i}\nFDPOLL=0"
        # so that the keeper finds the message and the death at once
        keeper.signal(signal.SIGSTOP)
        probe.tell("notify_and_die", messages=[text], fds=[file["fd"]], status=status)
        probe.wait_death()
        keeper.signal(signal.SIGCONT)
        probe = keeper.probe()
        assert probe.stored() == expected


def test_takeover(start):
    keeper = start()
    old = keeper.probe()
    stored = old.store("a")
    old.do("successor")
    new = keeper.probe()
    assert new.hello["parent"] == old.pid
    # not the main process yet
    new.do("notify", text="FDSTORE=1\nFDNAME=early", fds=[new.do("memfds", n=1)[0]["fd"]])
    keeper.wait_line(f"refused a message of pid {new.pid}")

    old.do("notify", text=f"MAINPID={new.pid}")
    old.do("barrier")
    keeper.wait_line(f"main process is now pid {new.pid}, after pid {old.pid}")
    old.tell("exit", status=0)
    old.wait_death()
    wait_until(lambda: not pathlib.Path(f"/proc/{old.pid}").exists(), "not reaped")
    assert is_alive(new.pid)
    stored += new.store("late")

    new.do("report", number=signal.SIGUSR2)
    keeper.signal(signal.SIGUSR2)
    assert new.signalled() == signal.SIGUSR2
    last = keeper.restart(new)
    assert last.stored() == [("late", stored[1]), ("a", stored[0])]
    keeper.wait_line(f"pid {new.pid} was killed by signal 9")
    assert not keeper.find(f"pid {old.pid} exited")


def test_takeover_told_in_the_last_words(start):
    keeper = start()
    old = keeper.probe()
    old.do("successor")
    new = keeper.probe()
    old.tell("notify_and_die", messages=[f"MAINPID={new.pid}"], fds=[], status=0)
    old.wait_death()
    keeper.wait_line(f"main process is now pid {new.pid}")
    keeper.signal(signal.SIGHUP)
    new.wait_death()
    keeper.probe()
    assert len(keeper.find("started pid")) == 2


def test_takeover_by_a_descendant_further_down(start):
    keeper = start()
    old = keeper.probe()
    old.do("successor", n_between=2)
    new = keeper.probe()
    old.do("notify", text=f"MAINPID={new.pid}")
    keeper.wait_line(f"main process is now pid {new.pid}")


def test_successor_that_dies_while_the_old_one_lives(start):
    keeper = start()
    old = keeper.probe()
    old.do("successor")
    new = keeper.probe()
    old.do("notify", text=f"MAINPID={new.pid}")
    old.do("barrier")
    os.kill(new.pid, signal.SIGKILL)
    keeper.probe()
    keeper.wait_line(f"pid {new.pid} has gone")
    old.wait_death()


def test_successor_that_is_reaped_by_the_old_one(start):
    """Its parent is the old process, which reaps it."""
    keeper = start()
    old = keeper.probe()
    old.do("successor")
    new = keeper.probe()
    old.do("notify", text=f"MAINPID={new.pid}")
    old.do("barrier")
    os.kill(new.pid, signal.SIGKILL)
    new.wait_death()
    # The keeper may have seen that end already, and ended the old one for it
    with contextlib.suppress(BrokenPipeError):
        old.tell("reap", pid=new.pid)
    keeper.probe()
    keeper.wait_line(f"pid {new.pid} has gone")
    old.wait_death()


def test_main_pid_must_be_of_the_service(start):
    keeper = start()
    probe = keeper.probe()
    for pid in (1, os.getpid(), keeper.pid(), 2**22 + 1):
        probe.do("notify", text=f"MAINPID={pid}")
        keeper.wait_line(f"refused MAINPID={pid}:")
    probe.do("notify", text="MAINPID=x")
    keeper.wait_line('ignored "MAINPID=x"')
    dead = probe.do("zombie")
    probe.do("notify", text=f"MAINPID={dead}")
    keeper.wait_line(f"refused MAINPID={dead}:")
    probe.do("report", number=signal.SIGUSR2)
    keeper.signal(signal.SIGUSR2)
    assert probe.signalled() == signal.SIGUSR2


def test_nothing_of_the_old_service_runs_beside_the_new(start):
    keeper = start()
    probe = keeper.probe()
    for _ in range(5):
        probe.do("successor")
        left = keeper.probe()
        orphans = probe.do("orphans", n=20)
        probe = keeper.restart(probe)
        assert not any(map(is_alive, [left.pid, *orphans]))


def test_orphans_are_reaped(start):
    keeper = start()
    probe = keeper.probe()
    orphans = probe.do("orphans", n=50)
    for pid in orphans:
        os.kill(pid, signal.SIGTERM)
    for pid in orphans:
        wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), "not reaped")
    assert is_alive(probe.pid)


def test_watchdog_that_is_fed(start):
    keeper = start("--watchdog=1")
    probe = keeper.probe()
    assert probe.environment["WATCHDOG_USEC"] == "1000000"
    assert probe.environment["WATCHDOG_PID"] == str(probe.pid)
    deadline = time.monotonic() + 2.5
    while time.monotonic() < deadline:
        probe.do("notify", text="WATCHDOG=1")
        assert not select.select([probe.connection], [], [], 0.05)[0], "it has died"
    stored = probe.store("a")
    probe.wait_death()
    keeper.wait_line("did not feed its watchdog for 1000 ms")
    keeper.wait_line("killed by signal 6")
    assert keeper.probe().stored() == [("a", stored[0])]


def test_watchdog_kills_what_does_not_abort(start):
    keeper = start("--watchdog=1", "--stop-timeout=0.1")
    probe = keeper.probe()
    probe.do("ignore", number=signal.SIGABRT)
    probe.wait_death()
    keeper.wait_line("has not ended: SIGKILL")
    keeper.wait_line("killed by signal 9")
    keeper.probe()


def test_watchdog_that_is_triggered(start):
    keeper = start()
    probe = keeper.probe()
    probe.tell("notify", text="WATCHDOG=trigger")
    probe.wait_death()
    keeper.wait_line("triggered its watchdog")
    keeper.wait_line("killed by signal 6")


def test_watchdog_time_is_the_services_until_its_end(start):
    keeper = start("--watchdog=600")
    probe = keeper.probe()
    probe.tell("notify", text="WATCHDOG_USEC=50000")
    probe.wait_death()
    keeper.wait_line("for 50 ms")
    probe = keeper.probe()
    assert probe.environment["WATCHDOG_USEC"] == "600000000"
    probe.do("notify", text="WATCHDOG_USEC=0")
    probe.do("notify", text=f"WATCHDOG_USEC={2**64 - 1}")
    probe.do("barrier")
    assert is_alive(probe.pid)


def test_stop_timeout_is_for_what_says_that_it_stops(start):
    keeper = start("--stop-timeout=0.1")
    probe = keeper.probe()
    probe.tell("notify", text="STOPPING=1")
    probe.wait_death()
    keeper.wait_line("has not ended: SIGKILL")
    keeper.probe()


def test_delay_grows_to_its_bound(start):
    keeper = start("--restart-delay-max=0.05", command=["false"])
    keeper.wait_line("restart in 10 ms")
    keeper.wait_line("restart in 20 ms")
    keeper.wait_line("restart in 40 ms")
    keeper.wait_line("restart in 50 ms", 3)
    assert [re.findall(r"in (\d+) ms", line)[0] for line in keeper.find("restart in")][
        :6
    ] == ["10", "20", "40", "50", "50", "50"]


def test_hangup_does_not_wait_for_the_delay(start):
    keeper = start("--restart-delay-max=600", command=["false"])
    keeper.wait_line("restart in 640 ms")
    since = time.monotonic()
    for _ in range(8):  # 640 ms, 1.3 s, 2.6 s, ... if it waited
        n = len(keeper.find("started pid"))
        keeper.signal(signal.SIGHUP)
        keeper.wait_line("started pid", n + 1)
        keeper.wait_line("exited with status 1", n + 1)
    assert time.monotonic() - since < PATIENCE


def test_command_that_is_not_there_is_tried_again(start):
    keeper = start(command=["/nonexistent/service"])
    keeper.wait_line("cannot run /nonexistent/service: No such file or directory", 3)
    keeper.wait_line("exited with status 127")


def test_hangup_restarts_what_does_not_end(start):
    keeper = start("--stop-timeout=0.1")
    probe = keeper.probe()
    stored = probe.store("a")
    probe.do("ignore", number=signal.SIGTERM)
    keeper.signal(signal.SIGHUP)
    probe.wait_death()
    keeper.wait_line("has not ended: SIGKILL")
    assert keeper.probe().stored() == [("a", stored[0])]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_both(start, number):
    keeper = start()
    probe = keeper.probe()
    name = probe.environment["NOTIFY_SOCKET"]
    probe.do("successor")
    other = keeper.probe()
    keeper.signal(number)
    assert keeper.wait_exit() == 0
    probe.wait_death()
    other.wait_death()
    keeper.wait_line(f"pid {probe.pid} was killed by signal 15")
    assert name.startswith("@") or not os.path.exists(name)


def test_stop_while_it_waits_to_restart(start):
    keeper = start(command=["false"])
    keeper.wait_line("restart in 640 ms")
    keeper.signal(signal.SIGTERM)
    assert keeper.wait_exit() == 0


def test_bad_usage_of_the_service_ends_the_keeper(start):
    keeper = start(command=["sh", "-c", "exit 2"])
    assert keeper.wait_exit() == 2
    keeper.wait_line("exited with status 2")


def test_other_statuses_can_end_it_too(start):
    keeper = start("--restart-prevent-exit-status=3,4")
    probe = keeper.probe()
    for status in (2, 77):
        probe.tell("exit", status=status)
        probe = keeper.probe()
    probe.tell("exit", status=4)
    assert keeper.wait_exit() == 4


def connect(keeper):
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(keeper.address)
    return client


def test_idle_service_is_started_by_a_connection(start):
    keeper = start()
    probe = keeper.probe()
    stored = probe.store("a")
    for n in range(1, 4):
        probe.tell("exit", status=77)
        keeper.wait_line("waiting for a connection", n)
        assert len(keeper.find("started pid")) == n
        with connect(keeper) as client:
            probe = keeper.probe()
            probe.do("accept", fd=probe.passed[0]["fd"])
            assert client.recv(100) == f"{probe.pid}\n".encode()
        assert probe.stored() == [("a", stored[0])]


def test_on_demand_waits_for_the_first_connection(start):
    keeper = start("--on-demand")
    keeper.wait_line("listening on")
    keeper.wait_line("waiting for a connection")
    assert not keeper.find("started")
    with connect(keeper) as client:
        probe = keeper.probe()
        probe.do("accept", fd=probe.passed[0]["fd"])
        assert client.recv(100) == f"{probe.pid}\n".encode()


def test_idle_service_that_takes_nothing_is_no_busy_loop(start):
    keeper = start("--on-demand", command=["sh", "-c", "exit 77"])
    keeper.wait_line("listening on")
    with connect(keeper):
        since = time.monotonic()
        keeper.wait_line("started pid", 7)
        # 10 + 20 + 40 + 80 + 160 + 320 ms lie between
        assert time.monotonic() - since > 0.5


def test_idle_keeper_obeys_signals(start):
    keeper = start("--on-demand")
    keeper.wait_line("waiting for a connection")
    keeper.signal(signal.SIGHUP)
    keeper.probe().tell("exit", status=77)
    keeper.wait_line("waiting for a connection", 2)
    keeper.signal(signal.SIGTERM)
    assert keeper.wait_exit() == 0


def test_ready_and_status_are_said_when_asked_for(start):
    quiet, verbose = start(), start("--verbose")
    for keeper in (quiet, verbose):
        probe = keeper.probe()
        probe.do("notify", text="READY=1\nSTATUS=7 served\t\x1b[0m\nX_UNKNOWN=1\nERRNO=2")
        probe.do("barrier")
    verbose.wait_line(rf"^holdfast-keeper: pid {probe.pid}: 7 served\?\?\[0m$")
    verbose.wait_line(f"pid {probe.pid} is ready")
    quiet.close()
    assert not quiet.find("served|ready|UNKNOWN")


def test_second_keeper_does_not_take_the_address(start):
    keeper = start()
    keeper.probe()
    other = start(f"--listen={keeper.address}")
    assert other.wait_exit() == 1
    other.wait_line(f"cannot listen on {keeper.address}: Address already in use")
    with connect(keeper):
        pass


def test_stale_socket_is_no_obstacle(start):
    keeper = start()
    probe = keeper.probe()
    keeper.kill(probe)
    probe.tell("exit", status=0)
    probe.wait_death()
    # A process that ends closes its files one by one: the listener may still be there
    wait_until(lambda: not is_alive(probe.pid), "the probe does not end")
    again = start(f"--listen={keeper.address}")
    again.probe()
    with connect(keeper):
        pass


def test_service_outlives_a_killed_keeper(start):
    keeper = start()
    probe = keeper.probe()
    keeper.kill(probe)
    with connect(keeper) as client:
        probe.do("accept", fd=probe.passed[0]["fd"])
        assert client.recv(100) == f"{probe.pid}\n".encode()
    probe.tell("exit", status=0)
    probe.wait_death()


def can_be_pid_1():
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    try:
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_works_as_pid_1(start):
    if not can_be_pid_1():
        pytest.skip("needs to make a pid namespace: unshare --pid --mount-proc")
    prefix = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    keeper = start(prefix=prefix)
    probe = keeper.probe()
    unshare = keeper.pid()
    children = pathlib.Path(f"/proc/{unshare}/task/{unshare}/children")
    pid_1 = int(children.read_text(encoding="ascii"))
    assert probe.hello["parent"] == 1
    stored = probe.store("a")

    probe.do("successor")
    new = keeper.probe()
    probe.do("notify", text=f"MAINPID={new.pid}")
    probe.tell("exit", status=0)
    probe.wait_death()
    assert len(new.do("orphans", n=20)) == 20
    new.do("kill_all")
    wait_until(lambda: new.do("count_processes") == 2, "orphans are not reaped")

    new.tell("notify_and_die", messages=[], fds=[], status=None)
    new.wait_death()
    probe = keeper.probe()
    assert probe.stored() == [("a", stored[0])]
    os.kill(pid_1, signal.SIGTERM)
    assert keeper.wait_exit() == 0


USAGE = {
    "unknown option": (["--frob"], "--frob: expected"),
    "unknown short option": (["-f"], "-f: expected"),
    "value of a switch": (["--verbose=1"], "--verbose=1: expected"),
    "missing value": (["--listen"], "--listen: expected a value"),
    "no listener": (["--", "true"], "no --listen=: expected"),
    "no command": (["--listen=1"], "no command: expected"),
    "port": (["--listen=65536"], "--listen=65536: expected PORT, "),
    "host": (["--listen=localhost:1"], "--listen=localhost:1: expected PORT, "),
    "path": (["--listen=/" + "x" * 200], "x: expected PORT, "),
    "name": (["--name=a:b"], "--name=a:b: expected"),
    "empty name": (["--name="], "--name=: expected"),
    "store": (["--store-max=-1"], "--store-max=-1: expected a number from 0 to"),
    "large store": (["--store-max=100001"], "--store-max=100001: expected"),
    "watchdog": (["--watchdog=1s"], "--watchdog=1s: expected seconds"),
    "stop timeout": (["--stop-timeout=inf"], "--stop-timeout=inf: expected seconds"),
    "delay": (["--restart-delay-max="], "--restart-delay-max=: expected seconds"),
    "status": (["--restart-prevent-exit-status=1,256"], "=1,256: expected numbers"),
    "many statuses": (["--restart-prevent-exit-status=" + "1," * 512 + "1"], "expected numbers"),
    "many listeners": ([f"--listen=@x{i}" for i in range(65)], "=@x64: expected no more than 64"),
}


@pytest.mark.parametrize("what", USAGE)
def test_bad_usage_is_one_line_and_status_2(what):
    options, expected = USAGE[what]
    done = subprocess.run(
        [keeper_program(), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch("holdfast-keeper: [^\n]*\n", done.stderr)
    assert expected in done.stderr


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_go_to_stdout(option):
    done = subprocess.run(
        [keeper_program(), option], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("holdfast-keeper ")
    assert done.stderr == ""


def test_prefixes_are_for_the_journal():
    # stderr as the journal's stream: then, and only then, each line has its priority
    with tempfile.TemporaryFile() as stream:
        status = os.fstat(stream.fileno())
        subprocess.run(
            [keeper_program(), "--frob"],
            stderr=stream,
            env=dict(os.environ, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}"),
            check=False,
        )
        stream.seek(0)
        assert stream.read().startswith(b"<3>holdfast-keeper: ")
