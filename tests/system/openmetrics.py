# SPDX-License-Identifier: LGPL-2.1-or-later
"""A strict reader of OpenMetrics text, as far as gauges and counters go."""

import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
VALUE = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?"
SAMPLE = re.compile(rf"({NAME})\{{(.*)\}} ({VALUE})")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
ESCAPES = {r"\\": "\\", r"\"": '"', r"\n": "\n"}
SUFFIXES = {"gauge": "", "counter": "_total"}


def _labels(text):
    labels = {}
    while text:
        match = LABEL.match(text)
        assert match, f"no label: {text}"
        assert match[1] not in labels
        labels[match[1]] = re.sub(r"\\.", lambda escape: ESCAPES[escape[0]], match[2])
        text = text[match.end() :]
    return labels


class Family:
    """One metric: its samples by the value of the label `instance`."""

    def __init__(self, name, kind):
        self.name = name
        self.kind = kind
        self.about = {}
        self.samples = {}

    def add_about(self, keyword, text):
        assert not self.samples, f"{keyword} after a sample of {self.name}"
        assert keyword not in self.about
        self.about[keyword] = text
        if keyword == "UNIT":
            assert self.name.endswith(f"_{text}")

    def add_sample(self, line):
        match = SAMPLE.fullmatch(line)
        assert match, f"no sample: {line}"
        assert match[1] == self.name + SUFFIXES[self.kind], line
        labels = _labels(match[2])
        assert labels["instance"] not in self.samples
        assert self.kind != "counter" or float(match[3]) >= 0
        self.samples[labels["instance"]] = (float(match[3]), labels)


def parse(text):
    """The families by their names. Raises AssertionError for what is not well-formed."""
    assert text.endswith("# EOF\n")
    families, family = {}, None
    for line in text.removesuffix("# EOF\n").splitlines():
        if not line.startswith("# "):
            family.add_sample(line)
            continue
        _, keyword, name, rest = line.split(" ", 3)
        if keyword == "TYPE":
            assert name not in families and re.fullmatch(NAME, name)
            family = families[name] = Family(name, rest)
            assert rest in SUFFIXES
        else:
            assert keyword in ("UNIT", "HELP") and name == family.name, line
            family.add_about(keyword, rest)
    return families
