# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manuals say what the code does: options, fields and statuses of one are in the other."""

import os
import re
import shutil
import subprocess

import pytest

import stages
from test_catalog import message_ids

TOP = stages.source_directory()
MANUALS = {path.name: path for path in (TOP / "packaging/man").glob("*.[1-8]")}
PROGRAMS = {
    "holdfastd": "holdfastd.8",
    "holdfast-keeper": "holdfast-keeper.8",
    "holdfastctl": "holdfastctl.1",
}
# What mandoc says of pages that this host does not have
ABOUT_THE_HOST = re.compile(r"referenced manual not found|outdated mandoc\.db")
# Macros whose names are no part of the text
MACROS = {"Ar", "Cm", "Dv", "Em", "Ev", "It", "Li", "Ns", "Oc", "Oo", "Op", "Pa", "Va"}

each_manual = pytest.mark.parametrize("name", sorted(MANUALS))
each_program = pytest.mark.parametrize("program", sorted(PROGRAMS))


def manual(name):
    return MANUALS[name].read_text(encoding="utf-8")


def section(name, title):
    match = re.search(rf"^\.Sh {title}\n(.*?)(?=^\.Sh |\Z)", manual(name), re.M | re.S)
    assert match, f"{name} has no section {title}"
    return match[1]


def flatten(line):
    """The text of a line of mdoc: '.It Fl -buffer Ns = Ns Ar bytes' is '--buffer=bytes'."""
    text, glue = "", True
    for word in line.split():
        if word == "Ns":
            glue = True
        elif word == "Fl":
            text += "-" if glue else " -"
            glue = True
        elif word.lstrip(".") not in MACROS:
            text += word if glue else " " + word
            glue = False
    return text


def items(text):
    """(the line after .It, the text below it) of each item."""
    parts = re.split(r"^(\.It .*)\n", text, flags=re.M)
    below = [" ".join(flatten(line) for line in part.splitlines()) for part in parts[2::2]]
    return [(flatten(line), rest) for line, rest in zip(parts[1::2], below)]


def help_of(program):
    return subprocess.run(
        [stages.built_program(program), "--help"], capture_output=True, text=True, check=True
    ).stdout


def options_in_help(program):
    """A dictionary from options, as they are shown, to what is said of them."""
    parts = re.split(r"^ {2,6}(?:-\w )?(--.*?)(?= {1,}[A-Za-z]|\n)", help_of(program), flags=re.M)
    found = {}
    for names, text in zip(parts[1::2], parts[2::2]):
        for name in names.split(", "):
            found[name.lower()] = " ".join(text.split("\n\n")[0].split())
    return found


def options_in_manual(program):
    found = {}
    for title, text in items(section(PROGRAMS[program], "OPTIONS")):
        for name in title.split(" , "):
            if name.startswith("--"):
                found[name.replace(" ", "").replace("...", "...]")] = text
    return found


@each_program
def test_options_of_help_and_manual_are_the_same(program):
    shown = {re.split("[=[]", name)[0]: name for name in options_in_help(program)}
    told = {re.split("[=[]", name)[0]: name for name in options_in_manual(program)}
    assert sorted(shown) == sorted(told)
    for name, whole in shown.items():
        assert told[name].replace("]", "") == re.sub(r"[][]", "", whole), name


@each_program
def test_options_of_help_and_code_are_the_same(program):
    folder = {"holdfastd": "holdfastd", "holdfast-keeper": "keeper", "holdfastctl": "ctl"}[program]
    table = set()
    for path in (TOP / "src" / folder).glob("*.c"):
        text = path.read_text(encoding="utf-8")
        table |= set(re.findall(r'\{"([a-z-]+)", (?:no|required|optional)_argument', text))
    assert table == {re.split("[=[]", name)[0][2:] for name in options_in_help(program)}


@each_program
def test_defaults_and_ranges_of_help_are_in_the_manual(program):
    told = {re.split("[=[]", name)[0]: text for name, text in options_in_manual(program).items()}
    for name, text in options_in_help(program).items():
        below = told[re.split("[=[]", name)[0]]
        for default in re.findall(r"\(default: ([\w,]+)[,)]", text):
            assert re.search(rf"default is {re.escape(default)}\b", below), name
        for numbers in re.findall(r"\d+ to \d+", text):
            assert numbers in below, name


def test_verbs_of_help_and_manual_are_the_same():
    verbs = re.search(r"^Verbs:\n(.*?)\n\n", help_of("holdfastctl"), re.M | re.S)[1]
    shown = re.findall(r"^ {2,4}([a-z]+)\b", verbs, re.M)
    told = section("holdfastctl.1", "DESCRIPTION").partition("\n.Ss ")[0]
    assert [title.split()[0] for title, _ in items(told)] == shown


def test_columns_of_help_and_manual_are_the_same():
    shown = re.findall(r"[a-z]+", options_in_help("holdfastctl")["--sort=column"].partition(":")[2])
    told = section("holdfastctl.1", "DESCRIPTION").partition("\n.Ss Columns\n")[2]
    assert [name for title, _ in items(told) for name in title.split(" , ")] == shown


@each_program
def test_exit_statuses_are_in_the_manual(program):
    header, pattern = {
        "holdfastd": ("holdfastd/server.h", r"EXIT_STATUS_\w+\s*=\s*(\d+)"),
        "holdfast-keeper": ("keeper/main.c", r"#define STATUS_\w+ (\d+)"),
        "holdfastctl": ("ctl/verbs.h", r"\bSTATUS_\w+ = (\d+)"),
    }[program]
    text = (TOP / "src" / header).read_text(encoding="utf-8")
    used = {0, 1, *map(int, re.findall(pattern, text))}
    told = [int(title) for title, _ in items(section(PROGRAMS[program], "EXIT STATUS"))]
    assert told == sorted(used)


def test_fields_of_the_journal_are_in_the_manual():
    used = set()
    for path in TOP.glob("src/**/*.c"):
        text = path.read_text(encoding="utf-8")
        used |= set(re.findall(r'log_entry_add\w*\(\s*[^"();]*"(HOLDFAST_[A-Z_]+)["=]', text))
    listed = set(re.findall(r"HOLDFAST_[A-Z_]+", section("holdfast.7", "JOURNAL")))
    assert len(used) > 5
    assert listed == used


def test_readme_says_nothing_twice():
    lines = (TOP / "README.md").read_text(encoding="utf-8").splitlines()
    told = [line for line in lines if re.match(r"#|!\[|\| [^|]*[a-z]{4}", line)]
    assert len(told) > 40
    assert sorted(set(told)) == sorted(told)


def test_limits_that_a_field_names_are_in_the_manual():
    names = []
    for path in TOP.glob("src/holdfastd/*.c"):
        text = path.read_text(encoding="utf-8")
        names += re.findall(r'\[LIMIT_\w+\] = "([a-z-]+)"', text)
    told = dict(items(section("holdfast.7", "JOURNAL")))["HOLDFAST_LIMIT"]
    assert names and all(name in told.replace(",", " ").split() for name in names)


def test_variables_of_the_environment_are_in_the_manuals():
    folders = {"keeper": "holdfast-keeper.8", "ctl": "holdfastctl.1"}
    used = {name: set() for name in PROGRAMS.values()}
    for path in TOP.glob("src/*/*.[ch]"):
        name = folders.get(path.parent.name, "holdfastd.8")
        text = path.read_text(encoding="utf-8")
        used[name] |= set(re.findall(r'(?:[gs]etenv|environment_set\w*)\("([A-Z_]+)"', text))
        used[name] |= set(re.findall(r'_ENVIRONMENT "([A-Z_]+)"', text))
    for name, variables in used.items():
        told = set(re.findall(r"\b[A-Z][A-Z_]+\b", section(name, "ENVIRONMENT")))
        assert variables and variables <= told, name


def test_variables_of_the_configuration_are_in_the_manual():
    unit = (TOP / "units/holdfast@.service.in").read_text(encoding="utf-8")
    variables = re.search(r"^Environment=(.*)$", unit, re.M)[1]
    told = [title for title, _ in items(section("holdfast.conf.5", "DESCRIPTION"))]
    assert told == re.findall(r"(\w+)=", variables)


def test_settings_of_the_units_are_told_as_they_are():
    units = "".join(
        (TOP / "units" / name).read_text(encoding="utf-8")
        for name in ("holdfast@.service.in", "holdfast@.socket")
    )
    for name in ("Restart", "StartLimitIntervalSec", "LimitNOFILE"):
        told = re.findall(rf"^\.Li {name}=(\w+)$", manual("holdfast.7"), re.M)
        (value,) = re.findall(rf"^{name}=(\w+)$", units, re.M)
        assert value in told, name


def test_message_ids_in_the_manuals_exist():
    for name in MANUALS:
        for number in re.findall(r"\b[0-9a-f]{32}\b", manual(name)):
            assert number in message_ids().values(), name


def test_documentation_of_the_units_exists():
    pages = set()
    for path in (TOP / "units").glob("**/holdfast*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            pages |= set(re.findall(r"man:([\w.-]+)\((\d)\)", text))
    assert {f"{page}.{number}" for page, number in pages} <= set(MANUALS)
    assert len(pages) > 2


@each_manual
def test_references_lead_somewhere(name):
    for page, number in re.findall(r"\.Xr (holdfast\S*) (\d)", manual(name)):
        assert f"{page}.{number}" in MANUALS


@each_manual
def test_manual_is_installed(name):
    assert f"'{name}'" in (TOP / "packaging/man/meson.build").read_text(encoding="utf-8")


@each_manual
def test_mandoc_finds_nothing_wrong(name):
    if not shutil.which("mandoc"):
        if os.environ.get("CI") == "true" or os.environ.get("HOLDFAST_REQUIRE_ALL") == "1":
            pytest.fail("there is no mandoc")
        pytest.skip("there is no mandoc")
    result = subprocess.run(
        ["mandoc", "-Tlint", "-Wstyle", MANUALS[name]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    lines = [line for line in result.stdout.splitlines() if not ABOUT_THE_HOST.search(line)]
    assert not lines
