# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the measuring programs have in common: arguments, facts of the machine, reports."""

import json
import os
import pathlib
import platform

STATUS_FAILED = 1
STATUS_CANNOT_RUN = 2


def list_of(parse):
    return lambda text: [parse(item) for item in text.split(",")]


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _cpu_model():
    """What /proc/cpuinfo calls it; not every architecture does."""
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def machine_facts():
    """What the numbers depend on, apart from what is measured."""
    return {
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu_model": _cpu_model(),
        "n_cpus": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
    }


def write_json(path, value):
    """path: None, if none is wanted."""
    if path:
        pathlib.Path(path).write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
