# SPDX-License-Identifier: LGPL-2.1-or-later
"""Servers and clients of Debian packages, which are not installed on this host.

They run out of a root of their own, in a stage's network, each in a mount and a process
namespace. All of one test see one directory of this host as /mnt; the rest of what they write
is gone with them.
"""

import contextlib
import os
import subprocess
import time

import roots
import stages

PACKAGES = (
    "apache2-utils",
    "iperf3",
    "mosquitto",
    "mosquitto-clients",
    "nghttp2-client",
    "nghttp2-server",
    "nginx-light",
    "openssh-client",
    "openssh-server",
    "postgresql",
    "postgresql-contrib",
    "python3-websockets",
    "redis-server",
    "rsync",
)

RECIPE = roots.Recipe("bookworm", packages=PACKAGES, masked=())

# The program sees its own processes, this host's devices, and nothing else of it
ENTER = """
set -e
root=$1 shared=$2
shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for place in tmp run var/lib var/log; do
    mount -t tmpfs tmpfs "$root/$place"
done
mkdir -p "$root/run/sshd" "$root/var/log/nginx" "$root/var/lib/nginx"
mount --bind "$shared" "$root/mnt"
# No exec: this shell is the init of the processes, and ends with its parent. A program that
# changes its user would not (PR_SET_PDEATHSIG), and leave its children behind
chroot "$root" "$@" || exit
exit 0
"""


class Programs:
    """The programs of a test. shared: the directory that they have in common, as /mnt."""

    def __init__(self, stage, shared):
        """Raises stages.StageUnavailable."""
        if os.geteuid() != 0:
            raise stages.StageUnavailable("not root")
        try:
            self._root = RECIPE.ensure()
        except roots.RootUnavailable as error:
            raise stages.StageUnavailable(str(error)) from error
        self.stage = stage
        self.shared = shared
        shared.chmod(0o777)

    def command(self, argv):
        enter = ["unshare", "--mount", "--propagation=private", "--pid", "--fork"]
        enter += ["--kill-child", "sh", "-c", ENTER, "sh", str(self._root), str(self.shared)]
        return self.stage.network.command([*enter, *argv])

    def run(self, *argv, timeout=120, **more):
        """Runs one to its end, which has to be a good one; returns what it has written."""
        result = subprocess.run(
            self.command(argv), capture_output=True, text=True, timeout=timeout, **more
        )
        assert result.returncode == 0, f"{argv}: {result.stdout}{result.stderr}"
        return result.stdout + result.stderr

    @contextlib.contextmanager
    def running(self, *argv, log=None, **more):
        """One that runs until the end of the block. log: the file for what it writes."""
        with contextlib.ExitStack() as stack:
            if log:
                more["stdout"] = stack.enter_context(open(log, "wb"))
                more["stderr"] = subprocess.STDOUT
            process = stack.enter_context(subprocess.Popen(self.command(argv), **more))
            try:
                yield process
            finally:
                process.kill()

    def wait_for_port(self, port, server):
        """Until something listens there."""
        deadline = time.monotonic() + stages.PATIENCE_SECONDS
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                self.stage.network.connect(("127.0.0.1", port)).close()
                return
            assert server.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, f"nothing listens on port {port}"
            time.sleep(0.01)  # No server tells this host of it
