# SPDX-License-Identifier: LGPL-2.1-or-later
"""The stages whose manager is a real systemd. See stages.py for the interface."""

import re
import subprocess

import journal
import machine
import roots
import stages
import suite_build

SUITES = {"systemd-252": "bookworm", "systemd-257": "trixie"}

# What a unit's instance name can hold as it is; see systemd.unit(5)
PLAIN_INSTANCE = re.compile(r"[A-Za-z0-9:._@-]+")
# What the loader says of a program that was linked against newer or other libraries
NEEDS_OTHER_LIBRARIES = re.compile(r"version `\S+' not found|error while loading shared")
SOCKETS = "/run/holdfast-test"
DROP_INS = "/run/systemd/system"


class SystemdStage(stages.Stage):
    """A machine with the project installed in it."""

    has_journal = True

    def __init__(self, name):
        self.name = name
        try:
            self.machine = machine.Machine.boot(SUITES[name])
        except machine.MachineUnavailable as error:
            raise stages.StageUnavailable(str(error)) from error
        super().__init__(self.machine.network)
        try:
            self._install()
        except BaseException:
            self.machine.poweroff()
            raise

    def _install(self):
        stages.built_program("holdfastd")
        try:
            self.machine.install(stages.build_directory())
            result = self.machine.run(["holdfastd", "--version"], check=False)
            if NEEDS_OTHER_LIBRARIES.search(result.stderr):
                self.machine.install_tree(suite_build.installed_tree(self.machine.suite))
            elif result.returncode != 0:
                raise stages.StageUnavailable(f"holdfastd does not run: {result.stderr}")
        except (subprocess.CalledProcessError, roots.RootUnavailable) as error:
            output = getattr(error, "stdout", None) or ""
            raise stages.StageUnavailable(f"{error}\n{output}") from error
        self.machine.run(["install", "-d", "-m", "0777", SOCKETS])

    def _new_instance(self, service, listen, options, settings):
        return SystemdInstance(self, service, listen, options, settings)

    def socket_path(self, name):
        return f"{SOCKETS}/{name}"

    def outside_path(self, path):
        return self.machine.path(path)

    def last_lines(self, n=100):
        return self.machine.last_journal_lines(n)

    def is_healthy(self):
        """Whether the next test may have this machine too."""
        return self.machine.is_running() and not self.machine.failed_units()

    def close(self):
        try:
            super().close()
        finally:
            self.machine.poweroff()


class SystemdInstance(stages.Instance):
    """holdfast@INSTANCE.socket and holdfast@INSTANCE.service."""

    n_started = 0

    def __init__(self, stage, service, listen, options, settings):
        super().__init__(stage, service, listen, options)
        self.settings = settings
        self.machine = stage.machine
        self.name = self._name_for(listen)
        self.socket_unit = f"holdfast@{self.name}.socket"
        self.service_unit = f"holdfast@{self.name}.service"
        self._cgroup = f"/system.slice/system-holdfast.slice/{self.service_unit}"
        self._journal = None

    @classmethod
    def _name_for(cls, listen):
        """The address itself where that is a name: this is how people use the units."""
        if len(listen) == 1 and PLAIN_INSTANCE.fullmatch(listen[0]):
            return listen[0]
        cls.n_started += 1
        return f"test{cls.n_started}"

    def start(self, wait):
        self._write_configuration()
        self._write_drop_ins()
        self.machine.systemctl("daemon-reload")
        self._journal = self.machine.follow_journal(
            since=self.machine.journal_cursor(), keep=self._is_ours
        )
        self.machine.systemctl("start", self.socket_unit)
        self.machine.systemctl(
            "start", self.service_unit, *([] if wait else ["--no-block"])
        )

    def manager_pid(self):
        return self.machine.init_pid

    def _write_configuration(self):
        lines = [f"SERVICE={self.service}"]
        if self.options:
            lines.append(f"OPTIONS={' '.join(self.options)}")
        self.machine.write_file(f"/etc/holdfast/{self.name}.conf", "\n".join(lines) + "\n")

    def _write_drop_ins(self):
        settings = self.settings
        service = [
            f'Environment="{name}={value}"'
            for name, value in settings.get("environment", {}).items()
        ]
        for key, directive in (
            ("limit_nofile", "LimitNOFILE"),
            ("store_max", "FileDescriptorStoreMax"),
        ):
            if key in settings:
                service.append(f"{directive}={settings[key]}")
        service += settings.get("service_lines", ())
        sockets = list(settings.get("socket_lines", ()))
        if self.name != self.listen[0]:
            sockets += ["ListenStream="] + [f"ListenStream={text}" for text in self.listen]
        self._write_drop_in(self.service_unit, "Service", service)
        self._write_drop_in(self.socket_unit, "Socket", sockets)

    def _write_drop_in(self, unit, section, lines):
        if lines:
            text = "\n".join([f"[{section}]", *lines]) + "\n"
            self.machine.write_file(f"{DROP_INS}/{unit}.d/test.conf", text)

    def restart(self, options=None, service=None):
        self.options = self.options if options is None else list(options)
        self.service = service or self.service
        self._write_configuration()
        self.machine.systemctl("restart", self.service_unit)

    def reload(self, options=None, service=None, check=True):
        """`systemctl reload`, if given with another configuration; returns its exit status."""
        self.options = self.options if options is None else list(options)
        self.service = service or self.service
        self._write_configuration()
        command = ["systemctl", "reload", self.service_unit]
        return self.machine.run(command, check=check).returncode

    def takeover(self, timeout=stages.PATIENCE_SECONDS):
        old = self.main_pid()
        self.reload()
        return self.wait_alone(old, timeout)

    def stop(self):
        if self._journal is None:
            return
        self.stage.note_failed_audits(map(self.line_of, self._journal.records()))
        self._journal.close()
        self._journal = None
        units = (self.socket_unit, self.service_unit)
        self.machine.systemctl("stop", *units)
        # Only failed units can be reset, and only stores that were to be kept be cleaned
        self.machine.systemctl("reset-failed", *units, check=False)
        self.machine.systemctl("clean", "--what=fdstore", self.service_unit, check=False)
        self.machine.remove_file(f"/etc/holdfast/{self.name}.conf")
        for unit in units:
            self.machine.remove_file(f"{DROP_INS}/{unit}.d")
        self.machine.systemctl("daemon-reload")

    def wait_ready(self):
        # Waits for the start that is under way, if any
        self.machine.systemctl("start", self.service_unit)

    def program_path(self):
        return self.machine.path("/usr/bin/holdfastd")

    def n_stored_fds(self):
        return int(self.show("NFileDescriptorStore"))

    def status_text(self):
        return self.show("StatusText")

    def show(self, name):
        """A property of the service unit."""
        return self.machine.show(self.service_unit, name)[name]

    def processes(self):
        return self.machine.processes(self._cgroup)

    # Log

    def _is_ours(self, entry):
        """journald can't tell the unit of a process that has died before it could look."""
        if "_SYSTEMD_UNIT" not in entry:
            return entry.get("SYSLOG_IDENTIFIER") == self.process_name
        return entry["_SYSTEMD_UNIT"] == self.service_unit

    def _follower(self):
        return self._journal

    def _catch_up(self):
        entry = self.machine.last_entry()
        if entry:
            self._journal.wait_read_until(int(entry["__MONOTONIC_TIMESTAMP"]))

    def line_of(self, record):
        return journal.message_of(record)

    def manager_lines(self):
        """What systemd itself has logged about the service."""
        return [
            journal.message_of(entry)
            for entry in self.machine.journal(UNIT=self.service_unit)
        ]
