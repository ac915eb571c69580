# SPDX-License-Identifier: LGPL-2.1-or-later
"""Other programs in the place of the service: proxies that relay to the same echo.

Their reload starts new workers for new connections; the connections that are open stay with
the old workers, which live until the last of them has ended. So there is little to pause, and
what is open goes on with the old program and configuration: the comparison shows what a reload
costs the peers, not that it does the same.
"""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import questions
import stages

# Debian's
MODULES = "/usr/lib/nginx/modules"

HAPROXY = """\
global
    maxconn {n_connections_max}
    stats socket {directory}/stats expose-fd listeners
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
worker_processes auto;
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
    """A proxy with a master process, as far as measurement.py needs an Instance."""

    def __init__(self, network, upstream, template, command, reload_signal):
        self._network = network
        self._reload_signal = reload_signal
        self._address = ("127.0.0.1", network.free_port())
        # pylint: disable=consider-using-with # stop() ends both
        self._directory = tempfile.TemporaryDirectory(prefix="holdfast-bench-")
        directory = pathlib.Path(self._directory.name)
        self._write_configuration(directory / "configuration", template, upstream)
        self._process = subprocess.Popen(
            network.command(
                [word.format(configuration=directory / "configuration") for word in command]
            ),
            stdin=subprocess.DEVNULL,
                stderr=(directory / "stderr").open("wb"),
        )
        try:
            self.wait_ready()
        except TimeoutError:
            self.stop()
            raise

    def _write_configuration(self, path, template, upstream):
        n_fds_max = os.sysconf("SC_OPEN_MAX")
        host, port = self._address
        text = template.format(
            directory=path.parent,
            listen=f"{host}:{port}",
            upstream=upstream,
            modules=os.environ.get("NGINX_MODULES", MODULES),
            n_fds_max=n_fds_max,
            # Two fds each, and some for itself
            n_connections_max=n_fds_max // 2 - 100,
        )
        path.write_text(text, encoding="utf-8")

    def address(self):
        return self._address

    def proc(self):
        return pathlib.Path(f"/proc/{self._process.pid}")

    def workers(self):
        """Their pids, in the order in which they were forked: the kernel appends children."""
        pid = self._process.pid
        children = (self.proc() / f"task/{pid}/children").read_text(encoding="ascii")
        return [int(child) for child in children.split()]

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


KINDS = {
    "haproxy": (
        HAPROXY,
        ["haproxy", "-W", "-db", "-f", "{configuration}"],
        signal.SIGUSR2,
    ),
    "nginx": (NGINX, ["nginx", "-c", "{configuration}"], signal.SIGHUP),
}


def start(name, network, upstream):
    """A running Peer that relays to upstream, which is HOST:PORT."""
    template, command, reload_signal = KINDS[name]
    if not shutil.which(command[0]):
        raise stages.StageUnavailable(f"{command[0]} is not installed")
    return Peer(network, upstream, template, command, reload_signal)


def version(name):
    command = [name, "-v"]
    result = subprocess.run(command, capture_output=True, check=True, text=True)
    return (result.stdout + result.stderr).splitlines()[0]
