# SPDX-License-Identifier: LGPL-2.1-or-later
"""Other programs in the place of the service: proxies that relay to the same upstream.

run compares what they cost. pause.py compares reloads: that of a proxy starts new workers for
new connections; the connections that are open stay with the old workers, which live until the
last of them has ended. So there is little to pause, and what is open goes on with the old
program and configuration: the comparison shows what a reload costs the peers, not that it does
the same.
"""

import dataclasses
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import questions
import stages

# Debian's, and Fedora's
MODULES = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules")

HAPROXY = """\
global
    maxconn {n_connections_max}
    stats socket {directory}/stats expose-fd listeners
    {haproxy_threads}
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen pause
    bind {listen}
    server echo {upstream}
"""

NGINX = """\
load_module {modules}/ngx_stream_module.so;
daemon off;
user root;
pid {directory}/pid;
error_log {directory}/error.log;
worker_processes {nginx_processes};
worker_rlimit_nofile {n_fds_max};
events {{ worker_connections {n_fds_max}; }}
stream {{
    server {{
        listen {listen};
        proxy_pass {upstream};
        proxy_timeout 1h;
    }}
}}
"""


class Peer:
    """A proxy, with a master process or alone, as far as measurement.py needs an Instance."""

    def __init__(self, network, upstream, kind, n_threads):
        self._network = network
        self._reload_signal = kind.reload_signal
        self._address = ("127.0.0.1", network.free_port())
        # pylint: disable=consider-using-with # stop() ends both
        self._directory = tempfile.TemporaryDirectory(prefix="holdfast-bench-")
        directory = pathlib.Path(self._directory.name)
        words = self._words(directory, upstream, n_threads)
        (directory / "configuration").write_text(
            kind.template.format(**words), encoding="utf-8"
        )
        with (directory / "stderr").open("wb") as stderr:
            self._process = subprocess.Popen(
                network.command([word.format(**words) for word in kind.command]),
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                # As a manager starts a service. The kernel shares the processors out among
                # sessions (sched(7): autogroup), and it costs CPU time not to be of the
                # client's and the server's.
                start_new_session=True,
            )
        try:
            self.wait_ready()
        except TimeoutError:
            self.stop()
            raise

    def _words(self, directory, upstream, n_threads):
        """What stands in the configurations and command lines of KINDS in braces."""
        n_fds_max = os.sysconf("SC_OPEN_MAX")
        host, port = self._address
        return {
            "directory": directory,
            "configuration": directory / "configuration",
            "listen": f"{host}:{port}",
            "upstream": upstream,
            "modules": os.environ.get("NGINX_MODULES") or next(filter(os.path.isdir, MODULES), ""),
            "haproxy_threads": f"nbthread {n_threads}" if n_threads else "",
            "nginx_processes": n_threads or "auto",
            "n_fds_max": n_fds_max,
            # Two fds each, and some for itself
            "n_connections_max": n_fds_max // 2 - 100,
            # HAProxy reckons with pipes for every fourth
            "n_spliced_max": n_fds_max // 3 - 100,
        }

    def address(self):
        return self._address

    def proc(self):
        return pathlib.Path(f"/proc/{self._process.pid}")

    def workers(self):
        """Their pids, in the order in which they were forked: the kernel appends children."""
        pid = self._process.pid
        children = (self.proc() / f"task/{pid}/children").read_text(encoding="ascii")
        return [int(child) for child in children.split()]

    def pids(self):
        """All its processes."""
        return [self._process.pid, *self.workers()]

    def main_pid(self):
        """The newest worker. Not the highest pid: they begin again at the low ones."""
        return (self.workers() or [0])[-1]

    def reload(self):
        os.kill(self._process.pid, self._reload_signal)

    def wait_pid_change(self, old):
        questions.wait_until(lambda: self.main_pid() not in (0, old))

    def wait_ready(self):
        """Until a new connection is served."""
        deadline = time.monotonic() + stages.PATIENCE_SECONDS
        while True:
            try:
                with self._network.connect(self._address) as connection:
                    connection.sendall(b"ready?")
                    if connection.recv(6, socket.MSG_WAITALL):
                        return
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(self.last_lines())
            time.sleep(0.01)

    def last_lines(self):
        files = pathlib.Path(self._directory.name).glob("*err*")
        return "\n".join(path.read_text(errors="replace") for path in files)

    def stop(self):
        if self._process.poll() is None:
            # Both masters take their workers with them
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(stages.PATIENCE_SECONDS)
        self._directory.cleanup()


@dataclasses.dataclass
class Kind:
    """How a Peer is configured and started; {words} are those of Peer._words()."""

    template: str
    command: list
    reload_signal: int = 0  # 0: it knows no reload


HAPROXY_COMMAND = ["haproxy", "-W", "-db", "-f", "{configuration}"]
SOCKET_PROXYD = "/usr/lib/systemd/systemd-socket-proxyd"

KINDS = {
    "haproxy": Kind(HAPROXY, HAPROXY_COMMAND, signal.SIGUSR2),
    # Splices whatever it can, not only what comes in large pieces (splice-auto)
    "haproxy-splice": Kind(
        HAPROXY.replace("n_connections_max", "n_spliced_max").replace(
            "mode tcp\n", "mode tcp\n    option splice-request\n    option splice-response\n"
        ),
        HAPROXY_COMMAND,
        signal.SIGUSR2,
    ),
    "nginx": Kind(NGINX, ["nginx", "-c", "{configuration}"], signal.SIGHUP),
    # Becomes the proxy when the first connection comes
    "socket-proxyd": Kind(
        "",
        ["systemd-socket-activate", "--listen={listen}"]
        + [SOCKET_PROXYD, "--connections-max={n_connections_max}", "{upstream}"],
    ),
}


def program(name):
    return SOCKET_PROXYD if name == "socket-proxyd" else KINDS[name].command[0]


def check_installed(name):
    for needed in (program(name), KINDS[name].command[0]):
        if not shutil.which(needed):
            raise stages.StageUnavailable(f"{needed} is not installed")


def is_installed(name):
    """The same, and says on stderr what is missing."""
    try:
        check_installed(name)
    except stages.StageUnavailable as error:
        print(f"without {name}: {error}", file=sys.stderr)
        return False
    return True


def start(name, network, upstream, n_threads=None):
    """A running Peer that relays to upstream, which is HOST:PORT. n_threads: its own choice
    if not given."""
    check_installed(name)
    return Peer(network, upstream, KINDS[name], n_threads)


def version(name):
    flag = "--version" if name == "socket-proxyd" else "-v"
    result = subprocess.run([program(name), flag], capture_output=True, check=True, text=True)
    return (result.stdout + result.stderr).splitlines()[0]
