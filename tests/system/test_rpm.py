# SPDX-License-Identifier: LGPL-2.1-or-later
"""The RPM package: what is in it, and what its scriptlets do to connections.

The scriptlets run on machines that are Debian's, under their systemd 252 and 257. What systemd
has for packages on Fedora and RHEL, rpm/systemd.spec brings.
"""

import re
import shutil
import subprocess

import pytest

import checkout
import conftest
import installed
import rpms
import stages
from questions import echoes, serving_stream

NEXT = "+next"
PRESET = "/etc/systemd/system-preset/10-test.preset"
ENABLED = "/etc/systemd/system/sockets.target.wants/holdfast@8888.socket"
TREE = stages.source_directory()

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session", name="package")
def fixture_package(tmp_path_factory):
    output = tmp_path_factory.mktemp("rpm")
    return conftest.or_cannot_run("packages", lambda: rpms.build(output))


@pytest.fixture(scope="session", name="next_package")
def fixture_next_package(package, tmp_path_factory):
    """Of a later version, and for RHEL 9."""
    output = tmp_path_factory.mktemp("rpm-next")
    return rpms.build(output, f"--version={rpms.version(package)}{NEXT}", rpms.FOR_RHEL)


@pytest.fixture(name="stage")
def fixture_stage(request, tmp_path):
    """A machine of its own, which takes the place of the shared stage of this name."""
    made = conftest.or_cannot_run(
        request.param, lambda: rpms.RpmStage(request.param, tmp_path)
    )
    request.node.stash[conftest.STAGE_KEY] = made
    yield made
    made.close()


# What is in it


@pytest.mark.parametrize("path", installed.FILES)
def test_package_has(package, path):
    assert path in rpms.query(package, "--list").splitlines()


def test_only_the_example_is_configuration(package):
    assert rpms.query(package, "--configfiles") == "/etc/holdfast/example.conf\n"


def test_spec_has_the_version_of_the_project(package):
    """build-rpm sets it; this is for those who take the spec as it is in the tree."""
    project = re.search(r"^ *version : '(.*)'", (TREE / "meson.build").read_text(), re.MULTILINE)
    spec = (TREE / "packaging/holdfast.spec").read_text(encoding="utf-8")
    assert re.findall(r"^Version: *(.*)", spec, re.MULTILINE) == [project[1]]
    assert rpms.version(package) == project[1]


@pytest.mark.skipif(shutil.which("rpmlint") is None, reason="there is no rpmlint")
def test_rpmlint_finds_nothing(package):
    result = subprocess.run(
        ["rpmlint", f"--config={TREE}/packaging/rpmlint.toml", *package.parent.glob("*.rpm")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert re.findall(r"^\S+: [EW]: .*", result.stdout, re.MULTILINE) == []
    assert result.returncode == 0


# How it is built


def test_builds_of_one_commit_are_identical(package, tmp_path):
    """The second one from elsewhere, without git, and out of older files with other modes."""
    source, again = checkout.make(tmp_path / "checkout"), tmp_path / "again"
    before = sorted(source.rglob("*"))
    when = rpms.query(package, "--queryformat=%{BUILDTIME}")
    environment = {"SOURCE_DATE_EPOCH": when, "TZ": "Asia/Tokyo"}
    rpms.build(again, source=source, umask=0o077, environment=environment)
    assert sorted(source.rglob("*")) == before
    names = sorted(path.name for path in package.parent.glob("*.rpm"))
    assert len(names) >= 2
    assert names == sorted(path.name for path in again.glob("*.rpm"))
    different = [
        name
        for name in names
        if (package.parent / name).read_bytes() != (again / name).read_bytes()
    ]
    assert not different


@pytest.mark.parametrize(
    "option, status, text",
    [
        ("--help", 0, "packaging/build-rpm [--output=DIR]"),
        ("--version=1-2", 1, "--version=1-2: a digit first"),
    ],
)
def test_build_rpm_says(option, status, text):
    result = checkout.run_build(TREE / "packaging/build-rpm", option)
    assert result.returncode == status
    assert text in result.stdout + result.stderr


# What its scriptlets do


def serving_version(instance):
    """Of the program that the main process runs, whatever is installed."""
    result = instance.machine.run([f"/proc/{instance.main_pid()}/exe", "--version"])
    return result.stdout.splitlines()[0].split()[-1]


def active_units(machine):
    lines = machine.systemctl("list-units", "--plain", "--no-legend", "holdfast@*")
    return lines.splitlines()


@pytest.mark.stages("systemd")
def test_change_of_version_lets_streams_go_on(stage, package, next_package):
    """The scriptlet of the version that goes has the instances reloaded."""
    # RHEL 9 has systemd 252
    route = [next_package, package]
    if stage.name == "systemd-257":
        route.insert(0, package)
    stage.install(route.pop(0))
    instance = stage.start("echo")
    began, since = instance.show("ActiveEnterTimestampMonotonic"), instance.mark()
    with serving_stream(instance) as goes_on:
        for new in route:
            old = instance.main_pid()
            stage.change(new)
            assert instance.wait_alone(old) == instance.main_pid()
            assert serving_version(instance) == rpms.version(new)
            goes_on()
    assert len([line for line in instance.lines(since) if "Took over 1 " in line]) == len(route)
    assert instance.show("ActiveEnterTimestampMonotonic") == began


@pytest.mark.stages("systemd")
def test_version_that_can_not_take_over_leaves_the_other_serving(
    stage, package, next_package
):
    stage.install(next_package)
    instance = stage.start("echo")
    stage.machine.write_file(
        f"/etc/holdfast/{instance.name}.conf", "SERVICE=echo\nOPTIONS=--no-such-option\n"
    )
    old = instance.main_pid()
    with serving_stream(instance) as goes_on:
        stage.change(package)
        instance.wait_line(r"The takeover by pid \d+ has failed")
        goes_on()
        assert instance.wait_alone() == old
        assert serving_version(instance) == rpms.version(next_package)


@pytest.mark.stages("systemd")
def test_upgrade_starts_nothing_that_was_stopped(stage, package, next_package):
    stage.install(package)
    instance = stage.start("echo")
    stage.machine.systemctl("stop", instance.socket_unit, instance.service_unit)
    stage.change(next_package)
    assert active_units(stage.machine) == []


@pytest.mark.stages("systemd")
def test_preset_enables_instances(stage, package):
    stage.machine.write_file(PRESET, "enable holdfast@.socket 8888\n")
    stage.install(package)
    assert stage.machine.path(ENABLED).is_symlink()
    assert active_units(stage.machine) == []


@pytest.mark.stages("systemd")
def test_removal_ends_connections_and_leaves_nothing(stage, package):
    """Not even those that FileDescriptorStorePreserve= would keep."""
    machine = stage.machine
    stage.install(package)
    machine.write_file("/etc/holdfast/8888.conf", "SERVICE=echo\n")
    machine.write_file(
        "/etc/systemd/system/holdfast@8888.service.d/preserve.conf",
        "[Service]\nFileDescriptorStorePreserve=yes\n",
    )
    machine.systemctl("enable", "--now", "holdfast@8888.socket")
    with stage.network.connect(("127.0.0.1", 8888)) as client:
        assert echoes(client)
        stage.rpm("--erase", "holdfast")
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert active_units(machine) == []
    assert not machine.path(ENABLED).is_symlink()
    installed = rpms.query(package, "--list").splitlines()
    # In which the administrator's own file is
    assert [name for name in installed if machine.path(name).exists()] == ["/etc/holdfast"]
