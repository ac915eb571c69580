# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests of tests/count-results, by which the whole run is judged."""

import json
import pathlib
import subprocess
import sys

import pytest

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "count-results"


def count(*files):
    """The last line and the exit status."""
    result = subprocess.run(
        [sys.executable, PROGRAM, *files], capture_output=True, text=True, check=False
    )
    return result.stdout.splitlines()[-1], result.returncode


@pytest.mark.parametrize(
    "result, output, expected",
    (
        ("OK", "ok 1 - a\nok 2 - b\n1..2\n", "2 passed, 0 failed, 0 skipped"),
        ("FAIL", "ok 1 - a\nnot ok 2 - b\n", "1 passed, 1 failed, 0 skipped"),
        ("OK", "ok 1 # SKIP not root\nok 2\n", "1 passed, 0 failed, 1 skipped"),
        ("OK", "ok 1\nnot ok 2 - b # TODO later\n", "2 passed, 0 failed, 0 skipped"),
        ("SKIP", "", "0 passed, 0 failed, 1 skipped"),
        ("OK", "", "1 passed, 0 failed, 0 skipped"),
        ("ERROR", "ok 1 - a\n", "1 passed, 1 failed, 0 skipped"),
        ("TIMEOUT", "", "0 passed, 1 failed, 0 skipped"),
    ),
)
def test_programs_of_meson_are_counted_by_their_tap(tmp_path, result, output, expected):
    log = tmp_path / "testlog.json"
    log.write_text(json.dumps({"name": "x", "result": result, "stdout": output}) + "\n")
    line, status = count(log)
    assert line == expected
    assert status == (0 if " 0 failed" in line and not line.startswith("0 ") else 1)


def test_junit_files_are_counted_by_their_cases(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        "<testsuites><testsuite><testcase classname='a' name='b'/><testcase classname='a' "
        "name='c'><failure/></testcase><testcase classname='a' name='d'><error/></testcase>"
        "<testcase classname='a' name='e'><skipped/></testcase></testsuite></testsuites>"
    )
    assert count(report) == ("1 passed, 2 failed, 1 skipped", 1)


def test_missing_and_broken_results_are_failures(tmp_path):
    broken = tmp_path / "broken.xml"
    broken.write_text("<testsuites>")
    log = tmp_path / "testlog.json"
    log.write_text('{"name": "x", "result": "OK"}\n')
    line, status = count(log, tmp_path / "missing.json", broken)
    assert (line, status) == ("1 passed, 2 failed, 0 skipped", 1)


def test_what_leaves_no_results_is_named():
    assert count("--failed=the build x") == ("0 passed, 1 failed, 0 skipped", 1)


def test_nothing_at_all_is_a_failure():
    assert count() == ("0 passed, 0 failed, 0 skipped", 1)
