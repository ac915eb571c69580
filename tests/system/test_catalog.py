# SPDX-License-Identifier: LGPL-2.1-or-later
"""The journal: its catalog, the fields of its entries, and that none of them is lost."""

import re
import threading

import pytest

import journal
import stages
from questions import echoes

CATALOG = stages.source_directory() / "units/holdfast.catalog"
MESSAGES = stages.source_directory() / "src/holdfastd/messages.h"
HEADERS = ("Subject: ", "Defined-By: holdfast\n", "Documentation: man:")
# Fields that journald or sd-journal(3) add to every entry
STANDARD_FIELDS = ("MESSAGE", "PRIORITY")


def message_ids():
    """A dictionary from names to ids."""
    text = MESSAGES.read_text(encoding="utf-8")
    return dict(re.findall(r'^#define (MESSAGE_\w+) "([0-9a-f]{32})"$', text, re.MULTILINE))


def catalog_entries():
    """A dictionary from ids to texts."""
    parts = re.split(r"^-- ([0-9a-f]{32})\n", CATALOG.read_text(encoding="utf-8"), flags=re.M)
    assert len(parts[1::2]) == len(set(parts[1::2]))
    return dict(zip(parts[1::2], parts[2::2]))


def entries_of(instance, name, since=0):
    return instance.fields(since, MESSAGE_ID=message_ids()[name])


def test_catalog_explains_each_message_and_no_other():
    ids = message_ids()
    assert len(set(ids.values())) == len(ids)
    assert set(catalog_entries()) == set(ids.values())


def test_each_explanation_has_its_headers_and_a_text():
    for text in catalog_entries().values():
        header, _, body = text.partition("\n\n")
        assert all(start in header + "\n" for start in HEADERS), text
        assert body.strip(), text


@pytest.mark.stages("systemd")
def test_journalctl_takes_the_catalog_without_a_word(stage):
    result = stage.machine.run(["journalctl", "--update-catalog"])
    assert result.stdout + result.stderr == ""
    listed = stage.machine.run(["journalctl", "--list-catalog", *message_ids().values()]).stdout
    subjects = re.findall(r"^([0-9a-f]{32}) holdfast: \S", listed, re.MULTILINE)
    assert sorted(subjects) == sorted(message_ids().values())


def explained(stage, since):
    return stage.machine.run(
        ["journalctl", "-x", "--no-pager", f"--after-cursor={since}"]
        + ["-t", "holdfastd", "-t", "(holdfastd)"]
    ).stdout


@pytest.mark.stages("systemd")
def test_what_has_happened_is_explained(stage):
    """All fields that the explanations name are there."""
    machine = stage.machine
    machine.run(["journalctl", "--update-catalog"])
    since = machine.journal_cursor()
    instance = stage.start("log", options=["--log-level=debug"])
    with instance.connect() as client:
        client.sendall(b"1234\n")
        instance.wait_line("conn read 5 bytes")
        instance.takeover()
        instance.restart()
        assert instance.reload(options=["--threads=many"], check=False) != 0
        instance.reload(options=["--log-level=debug"])
    instance.wait_line("Connection [0-9]+ ended")
    text = explained(stage, since)
    assert not re.search(r"@HOLDFAST_\w+@", text)
    seen = {entry.get("MESSAGE_ID") for entry in instance.records()}
    ids = message_ids()
    for name in ("OPENED", "READ", "TAKEOVER_BEGUN", "TAKEOVER", "TAKEOVER_FAILED"):
        assert ids[f"MESSAGE_{name}"] in seen, name
    for name in ("CONTINUED", "ADOPTED", "STARTED", "STOPPING", "ENDED", "NOT_STARTED"):
        assert ids[f"MESSAGE_{name}"] in seen, name
    for line in ("Connections go on after a restart: 1", "A takeover has failed"):
        assert line in text
    assert "Documentation: man:holdfast(7)" in text


def test_explanations_name_only_fields_that_there_are():
    known = known_fields()
    for text in catalog_entries().values():
        for field in re.findall(r"@(\w+)@", text):
            assert field in known | set(STANDARD_FIELDS), text


def test_explanations_of_lines_without_fields_name_none():
    ids, texts = message_ids(), catalog_entries()
    plain = set()
    for source in stages.source_directory().glob("src/**/*.c"):
        text = source.read_text(encoding="utf-8")
        plain |= set(re.findall(r"\blog_line\(\s*LOG_\w+,\s*(MESSAGE_\w+)", text))
    assert plain
    for name in plain:
        assert "@" not in texts[ids[name]], name


def known_fields():
    found = set()
    for source in stages.source_directory().glob("src/**/*.c"):
        found |= set(re.findall(r'"(HOLDFAST_[A-Z_]+)[="]', source.read_text(encoding="utf-8")))
    return found


@pytest.mark.stages("systemd")
def test_journal_has_the_life_of_a_connection(stage):
    """Over all the processes that served it, and nothing else."""
    with stage.network.listen(("127.0.0.1", 0)) as upstream:
        address = "{}:{}".format(*upstream.getsockname())
        instance = stage.start(f"relay {address}", options=["--log-level=debug"])
        pids = [instance.main_pid()]
        with instance.connect() as client:
            connection, _ = upstream.accept()
            client.sendall(b"12345")
            assert connection.recv(5) == b"12345"
            connection.sendall(b"123")
            assert client.recv(3) == b"123"
            pids.append(instance.takeover())
            # A killed process takes what it has not yet written with it
            instance.wait_line("Connection [0-9]+ goes on")
            instance.kill()
            instance.wait_ready()
            pids.append(instance.main_pid())
            peer = "{}:{}".format(*client.getsockname())
            connection.close()
        instance.wait_line("Connection [0-9]+ ended")
    number = entries_of(instance, "MESSAGE_ENDED")[0]["HOLDFAST_CONNECTION"]
    life = instance.fields(HOLDFAST_CONNECTION=number)
    assert [entry["MESSAGE"] for entry in life] == [
        f"Connection {number} accepted",
        f"Connection {number} goes on",
        f"Connection {number} goes on",
        f"Connection {number} ended",
    ]
    assert [int(entry["_PID"]) for entry in life] == pids + [pids[-1]]
    # A socket that has ended knows its peer no longer
    assert [entry["HOLDFAST_PEER"] for entry in life] == [peer, peer, peer, "gone"]
    for entry in life:
        assert entry["HOLDFAST_LISTENER"] == instance.listen[0]
        assert entry["HOLDFAST_SERVICE"] == "relay"
        assert entry["HOLDFAST_UPSTREAM"] == address
    assert [entry["HOLDFAST_RESTARTS"] for entry in life] == ["0", "1", "2", "2"]
    assert life[-1]["HOLDFAST_BYTES_FROM_CLIENT"] == "5"
    assert life[-1]["HOLDFAST_BYTES_FROM_UPSTREAM"] == "3"


@pytest.mark.stages("systemd")
def test_summaries_have_their_numbers_as_fields(stage):
    instance = stage.start("echo")
    with instance.connect() as client:
        assert echoes(client)
        old = instance.main_pid()
        new = instance.takeover()
        instance.wait_line("Took over")
        instance.restart()
        instance.wait_line("Adopted 1 connection ")
    word = next(e for e in entries_of(instance, "MESSAGE_TAKEOVER") if "Took over" in e["MESSAGE"])
    assert (word["HOLDFAST_OLD_PID"], word["HOLDFAST_NEW_PID"]) == (str(old), str(new))
    assert (word["HOLDFAST_CONNECTIONS"], word["HOLDFAST_REFUSED"]) == ("1", "0")
    assert int(word["HOLDFAST_PAUSE_USEC"]) > 0
    (adopted,) = entries_of(instance, "MESSAGE_ADOPTED")
    assert (adopted["HOLDFAST_CONNECTIONS"], adopted["HOLDFAST_PENDING"]) == ("1", "0")
    (stopping,) = entries_of(instance, "MESSAGE_STOPPING")
    assert stopping["HOLDFAST_CONNECTIONS"] == "1"


@pytest.mark.stages("systemd")
def test_journal_drops_none_of_many_thousand_lines(stage):
    """The default limit, with this burst, would let some hundred pass in 30 s."""
    n = 5000
    instance = stage.start(
        "log", options=["--frame=line"], service_lines=["LogRateLimitBurst=100"]
    )
    lines = [b"line %d\n" % i for i in range(n)]
    with instance.connect() as client:
        thread = threading.Thread(target=client.sendall, args=(b"".join(lines),))
        thread.start()
        instance.wait_lines(r"line: line \d+$", n, timeout=60)
        thread.join()
    texts = [journal.message_of(entry) for entry in entries_of(instance, "MESSAGE_READ")]
    assert [re.search(r"line: (line \d+)$", text)[1] for text in texts] == [
        f"line {i}" for i in range(n)
    ]
