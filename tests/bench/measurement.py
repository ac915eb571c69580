# SPDX-License-Identifier: LGPL-2.1-or-later
"""Windows of a running pause-client, each with one disturbance or none.

Works on the stages of tests/system, so the same measurement runs under the keeper and under a
real systemd.
"""

import json
import pathlib
import statistics
import subprocess
import time

import stages

UNDISTURBED = "undisturbed"

# What a window's pause is: without the time for which the client itself waits for a processor
PAUSE = "peer_max_usec"


class ClientFailed(Exception):
    """A connection was lost, or its bytes were; the client has said on stderr which."""


class Client:
    """A pause-client in the stage's network, with its connections open."""

    def __init__(self, network, address, n_connections, options):
        command = [
            stages.built_program("pause-client"),
            f"--connections={n_connections}",
            *options,
            f"{address[0]}:{address[1]}",
        ]
        # pylint: disable=consider-using-with # close() ends it
        self._process = subprocess.Popen(
            network.command(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self._wait_line("ready")

    def _wait_line(self, wanted):
        """Reads until that line; returns the last window before it."""
        window = None
        # The client itself gives up on a service that doesn't answer
        for line in self._process.stdout:
            if line.startswith("{"):
                window = json.loads(line)
            elif line.rstrip("\n") == wanted:
                return window
        raise ClientFailed(f"pause-client ended with status {self._process.wait()}")

    def _command(self, text, answer):
        try:
            self._process.stdin.write(text + "\n")
        except BrokenPipeError:
            pass  # it has failed: the end of its output says so
        return self._wait_line(answer)

    def mark(self, name):
        """Begins a window, once the one before is answered; returns that."""
        return self._command(f"mark {name}", f"marked {name}")

    def end(self):
        """Returns the last window. Raises ClientFailed if any connection was lost."""
        window = self._command("end", "ended")
        status = self._process.wait()
        if status != 0:
            raise ClientFailed(f"pause-client ended with status {status}")
        return window

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


# Disturbances: what each does to an Instance. Those that can return before another process
# serves do: whatever looks for it in the meantime would take time from what is measured.


def restart(instance):
    """A planned restart: SIGHUP to the keeper, systemctl restart."""
    instance.restart()


def kill(instance):
    """SIGKILL to the main process."""
    instance.kill(wait=False)


def takeover(instance):
    """SIGUSR2: the next process is made ready while this one still serves."""
    instance.begin_takeover()


def reload(peer):
    """What the proxies of peers.py do: new workers, while the old ones live on."""
    peer.reload()


DISTURBANCES = {
    function.__name__: function for function in (takeover, restart, kill, reload)
}


def works(instance, name):
    is_peer = hasattr(instance, "workers")
    return (name == "reload") == is_peer


def disturb(instance, name, window_seconds):
    """Passes a window; returns when the service is known to be ready, again if disturbed."""
    end = time.monotonic() + window_seconds
    old = instance.main_pid() if name != UNDISTURBED else 0
    if name != UNDISTURBED:
        DISTURBANCES[name](instance)
    # The length of a window is the measurement's input, not something that is waited for
    time.sleep(max(0, end - time.monotonic()))
    if name != UNDISTURBED:
        if name == "reload":
            instance.wait_pid_change(old)
        else:
            instance.wait_alone(old)
        instance.wait_ready()


def manager_cpu_usec(instance):
    """What the service manager has had of the processors since it was started; None of what
    has none."""
    if not hasattr(instance, "manager_pid"):
        return None
    schedstat = pathlib.Path(f"/proc/{instance.manager_pid()}/schedstat")
    return int(schedstat.read_text(encoding="ascii").split()[0]) // 1000


def plan(names, n_rounds):
    """(round, name) of each window. Rounds begin with another one each: what a window leaves
    behind for the next (a warm cache, a longer delay) is not always the same one's."""
    order = [UNDISTURBED, *names]
    return [
        (number, order[(number + i) % len(order)])
        for number in range(n_rounds)
        for i in range(len(order))
    ]


def measure(client, instance, names, n_rounds, window_seconds):
    """Runs all windows; returns them as dictionaries, in the order in which they were."""
    steps = []
    windows = []
    for number, name in plan(names, n_rounds):
        windows.append(client.mark(f"{name}-{number}"))
        before = manager_cpu_usec(instance)
        disturb(instance, name, window_seconds)
        steps.append({"disturbance": name, "round": number})
        if before is not None:
            steps[-1]["manager_cpu_usec"] = manager_cpu_usec(instance) - before
        if hasattr(instance, "workers"):
            steps[-1]["n_workers"] = len(instance.workers())
    windows.append(client.end())
    # The first is what passed before the first mark
    return [dict(window, **step) for window, step in zip(windows[1:], steps)]


def manager_msec(windows, name):
    """The manager's CPU time in such a window, beyond that in an undisturbed one."""
    of_name, calm = (
        [w["manager_cpu_usec"] for w in windows if w["disturbance"] == which]
        for which in (name, UNDISTURBED)
    )
    return (statistics.median(of_name) - statistics.median(calm)) / 1000


def summary(n_connections, windows):
    """A dictionary for each disturbance: its pauses beside those of the same run's undisturbed
    windows, in milliseconds."""
    pauses = {}
    for window in windows:
        pauses.setdefault(window["disturbance"], []).append(window[PAUSE] / 1000)
    calm = pauses.get(UNDISTURBED)
    has_manager = all("manager_cpu_usec" in window for window in windows)
    return [
        {
            "manager_cpu_msec": manager_msec(windows, name) if has_manager else None,
            "n_connections": n_connections,
            "disturbance": name,
            "n_windows": len(values),
            "median_msec": statistics.median(values),
            "max_msec": max(values),
            "undisturbed_median_msec": statistics.median(calm),
            "undisturbed_max_msec": max(calm),
            "difference_msec": statistics.median(values) - statistics.median(calm),
            "ratio": statistics.median(values) / statistics.median(calm),
        }
        for name, values in pauses.items()
        if name != UNDISTURBED or len(pauses) == 1
    ]
