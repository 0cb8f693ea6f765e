"""The HTML page, on facts that are made up: what it says, and that no text of a machine can become markup."""

import base64
import hashlib
import json
import os
import re
from dataclasses import replace
from datetime import datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bootstrap.project import HERE
from tde_replication.errors import UserError
from tde_replication.report import __main__ as command
from tde_replication.report.page import report
from tde_replication.report.protection import Protection, rows
from tde_replication.report.words import GLOSSARY
from tde_replication.review import Review
from tde_replication.review.changes import Change
from tde_replication.status.document import document
from tde_replication.status.due import due
from tde_replication.status.model import Backup, Database, Snapshot, Table, Token
from tde_replication.status.text import text
from tde_replication.status.verdict import judge
from tests.report.pictures import DRIFT, NAMES, example, recorded
from tests.unit.clusters import HOSTILE, HOUR, TIME, changed, encryption, gone, healthy, key, sender, slot
from tests.unit.previews import Stream

SCRIPT = "</style></title><script>alert(1)</script><img src=x onerror=alert(1)>'\"&amp;"
WITHOUT = changed("db1", tde_loaded=False, encryption=None, encryption_problem="this server has no pg_tde")
IN_CLEAR = WITHOUT.model_copy(update={"encryption": "if-available", "wal_encryption": False})
STAND_IN = changed(
    "db1", encryption=encryption(version="pg_tde contract double (NOT ENCRYPTED, for tests) of 2.2.0", stand_in=True)
)


class Page(HTMLParser):
    """Elements and texts as a browser has them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.style = ""
        self._open = ""
        self.feed(text)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open == "style":
            self.style += data
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""
        self.text += "" if tag in {"strong", "code"} else " "


def shown(snapshot: Snapshot, review: Review | None = None) -> Page:
    return Page(report(snapshot, judge(snapshot), review))


def test_a_reader_who_knows_nothing_learns_what_counts() -> None:
    text = shown(healthy()).text
    for words in (
        "orders As of 29 November 2026, 12:00 UTC Well. Every declared server is there, and every check passed.",
        "Encrypted 412.0 GiB of 413.0 GiB in tables, WAL too",
        "Servers that answer 3 of 3 db1 takes writes",
        "Standbys that follow 2 of 2 at most 0 B, 0.0 s behind",
        "Nothing: every check passed.",
        "db2 (standby): follows db1, 0 B behind.",
        "follows db2, 0 B behind, asynchronous 3 1.0 MiB on db2, 63.0 GiB left",
        "System catalogs in clear pg_tde never encrypts them.",
        "orders 412.0 GiB 1.0 GiB 0 B 99.8 %",
        "db3 orders-2026 WAL, all databases 17 November 2026 yes 29 days left",
        "The key lies in Vault https://vault.example.net:8200 (mount tde-orders)",
        "28 December 2026 The Vault tokens of db1, db2, db3 end",
        "Rotation of key orders-2026, in use for 12 days (since 17 November 2026)",
        "This page was made without asking whether somebody changed the cluster by hand. make report STACK=orders DRIFT=1 asks",
        "db2 18.6 pg_tde 2.2.2",
        "An open lock: it could not, or it does not encrypt. A dashed frame without a lock: the server did not answer",
        "db1, db2, db3: mlock may fail on Rocky Linux 8 on ARM",
    ):
        assert words in text, text
    assert all(word in text for word in GLOSSARY)


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        (gone("db3"), "Degraded. The cluster takes writes, and something of it is wrong. 1 finding below."),
        (gone("db3"), "db3 declared standby down — 1.0 MiB on db2, 63.0 GiB left"),
        (gone("db1"), "Broken. Applications cannot rely on this cluster, or its data are in danger: act now."),
        (gone("db1"), "none takes writes"),
        (gone("db1"), "db2 standby follows another server 3 —"),
        (changed("db3", receiver=None), "db3 (standby): receives no changes."),
        (gone("db1"), "db1: down: no server runs on /data; make up starts it"),
        (gone("db3", "unknown"), "Cannot tell. Nothing is known to be wrong, and not everything could be asked."),
        (changed("db3", in_recovery=False, receiver=None, replay=None), "db1 and db3 take writes"),
        (WITHOUT, "Not encrypted: this server has no pg_tde. "),
        (WITHOUT, "Encrypted nothing this server has no pg_tde "),
        (WITHOUT, "db1 18.6 none db2 18.6 pg_tde 2.2.2"),
        (IN_CLEAR, "Replication is well. Every declared server is there and does its part. Not encrypted: this server"),
        (IN_CLEAR, "What needs attention Nothing is encrypted, as said above. Every check of the servers passed."),
        (STAND_IN, "Not encrypted: a stand-in for pg_tde is loaded, which is for tests and encrypts nothing."),
        (STAND_IN, "db1 18.6 a stand-in for pg_tde 2.2.0 db2 18.6 pg_tde 2.2.2"),
        (changed("db2", wal_encrypted=False), "in tables, WAL on db1, db3 and not on db2"),
        (changed("db2", version="18.5"), "db1 18.6 pg_tde 2.2.2 db2 18.5 pg_tde 2.2.2"),
        (gone("db3"), "db3 did not answer did not answer"),
        (recorded("broken"), "db2: it is in recovery and receives nothing, because db1 is down db3: it is in recovery"),
        (recorded("broken"), "start the former primary, or promote a standby db1: down"),
        (WITHOUT, "Tables in clear Nothing is encrypted: this server has no pg_tde."),
        (changed("db2", encryption=key(problem="sealed")), "db2 orders-2026 WAL 17 November 2026 no 29 days left"),
        (changed("db2", encryption=key(problem="gone", lost=True)), "17 November 2026 lost"),
        (changed("db2", token=Token(gone=True)), "yes gone"),
    ],
)
def test_what_is_wrong_is_said(snapshot: Snapshot, words: str) -> None:
    assert words in shown(snapshot).text, shown(snapshot).text


@pytest.mark.parametrize(
    ("made", "when", "words"),
    [
        (
            TIME - timedelta(days=80),
            TIME + timedelta(days=10),
            "in use for 80 days (since 10 September 2026)",
        ),
        (None, None, "in use for 12 days (since 17 November 2026)"),
    ],
)
def test_a_declared_rotation_is_due_by_the_age_of_the_key_in_vault(
    made: datetime | None, when: datetime | None, words: str
) -> None:
    """And not by when a server was last told to use it."""
    snapshot = changed("db1", encryption=key(made=made)).model_copy(update={"rotate_after": "90d"})
    [found] = [one for one in due(snapshot) if one.what.startswith("Rotation")]
    assert (found.when, found.what) == (when, f"Rotation of key orders-2026, {words}")
    assert "`key.rotateAfter: 90d`" in found.how


def test_every_kind_of_protection_is_told_apart() -> None:
    def kinds(snapshot: Snapshot) -> list[Protection]:
        return [one.protection for one in rows(snapshot) if one.what in {"Tables", "Write-ahead log (WAL)"}]

    encrypted, partly, clear, unknown = Protection
    [database] = healthy().databases
    whole = database.model_copy(update={"clear_bytes": 0, "clear_tables": (), "clear_table_count": 0})
    assert kinds(healthy()) == [partly, encrypted]
    assert kinds(healthy().model_copy(update={"databases": (whole,)})) == [encrypted, encrypted]
    assert kinds(healthy().model_copy(update={"databases": ()})) == [unknown, encrypted]
    assert kinds(changed("db2", wal_encrypted=False)) == [partly, partly]
    assert kinds(WITHOUT) == [clear, clear]
    assert kinds(changed("db1", encryption=None, encryption_unknown=True, encryption_problem="?")) == [unknown, unknown]


def test_the_first_date_comes_first() -> None:
    snapshot = changed("db2", token=Token(seconds_left=50 * HOUR, period=768 * HOUR))
    assert [one.what for one in due(snapshot)] == [
        "The Vault token of db2 ends",
        "The Vault tokens of db1, db3 end",
        "Rotation of key orders-2026, in use for 12 days (since 17 November 2026)",
        "Base backup: no server knows of one",
    ]
    assert "Next date 1 Dec 2026 The Vault token of db2 ends" in shown(snapshot).text
    backup = changed("db1", last_backup=Backup(file="x.backup", age=30 * HOUR, label="nightly"))
    assert due(backup)[-1].what == "Base backup: db1 knows of one on 28 November 2026 (nightly)"
    assert due(healthy().model_copy(update={"servers": ()})) == []


def test_drift_is_shown_where_a_preview_tells_it() -> None:
    text = shown(healthy(), Review("orders", drift=[Change("Slot db2", "walStatus", "lost", None)])).text
    known = Review("orders", drift=[Change("ReplicationRole x", "passwordMatches", "false", "true")])
    assert "its password was changed" in shown(healthy(), known).text
    assert "Slot db2 walStatus lost —" in text
    assert "Changes by hand None: everything was found as it was left." in shown(healthy(), Review("orders")).text


@pytest.mark.parametrize("review", [Review("orders", complete=False), Review("orders", asked_all=False)])
def test_a_preview_that_could_not_ask_all_does_not_say_that_nothing_was_changed(review: Review) -> None:
    part = "Changes by hand Not everything could be asked, so there may be more than this page shows."
    assert part in shown(healthy(), review).text
    assert "None:" not in shown(healthy(), review).text
    found = shown(healthy(), replace(review, drift=[Change("Slot db2", "walStatus", "lost", None)])).text
    assert part in found
    assert "Slot db2 walStatus lost —" in found


def test_the_page_leads_nobody_to_files_that_only_a_checkout_has() -> None:
    """In a terminal they are named."""
    snapshots = [gone("db1"), recorded("broken"), changed("db3", in_recovery=False, receiver=None, replay=None)]
    for snapshot in [*snapshots, healthy().model_copy(update={"primary": "db2"})]:
        assert "docs/" not in shown(snapshot).text
        assert " (docs/topology.md)\n" in text(snapshot, judge(snapshot))


def test_texts_of_machines_are_shown_and_never_become_markup() -> None:
    usual = {name for name, _ in shown(healthy()).elements}
    for bad in (SCRIPT, HOSTILE):
        table = Table(name=bad, bytes=1)
        database = Database(name=bad, clear_bytes=1, clear_tables=(table,), clear_table_count=1, problem="")
        keys = encryption(version=bad, keys=(key().keys[0].model_copy(update={"name": bad, "problem": bad}),))
        snapshot = changed("db1", senders=(sender("db2"), sender(bad)), encryption=keys, version=bad, address=bad)
        snapshot = snapshot.model_copy(update={"databases": (database,), "stack": bad})
        page = report(snapshot, judge(snapshot), Review(bad, drift=[Change(bad, bad, bad, bad)]))
        found = Page(page)
        assert {name for name, _ in found.elements} <= usual
        assert not re.search("[\x1b\u202e]", page)
        assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert "<script>alert(1)</script>" in shown(healthy().model_copy(update={"stack": SCRIPT})).text


def test_the_page_loads_nothing_and_forbids_it() -> None:
    found = shown(healthy())
    [policy] = [attributes["content"] for _, attributes in found.elements if "http-equiv" in attributes]
    digest = base64.b64encode(hashlib.sha256(found.style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    names = {name for name, _ in found.elements}
    assert not names & {"script", "link", "img", "iframe", "object", "base", "form", "a"}
    assert not [attributes for _, attributes in found.elements if {"style", "src", "href"} & set(attributes)]
    assert not re.search(r"url\(|@import", found.style)


def test_ids_are_there_once_and_every_name_leads_to_one() -> None:
    elements = shown(gone("db3")).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = " ".join(attributes.get("aria-labelledby", "") for _, attributes in elements).split()
    assert set(named) == set(ids)


def test_a_slot_without_a_limit_and_one_that_keeps_nothing() -> None:
    snapshot = changed("db1", slots=(slot("db2", safe_wal_bytes=None, held_back_bytes=None),))
    assert "an unknown amount on db1, no limit" in shown(snapshot).text


def test_the_page_can_be_made_of_a_recorded_document() -> None:
    """What `--json` wrote holds all that the page shows."""
    kept = document(healthy(), judge(healthy()))
    assert Snapshot.model_validate_json(kept) == healthy()


@pytest.mark.parametrize("name", NAMES)
def test_the_docs_show_clusters_that_were_there(name: str) -> None:
    """As text and as a picture, of the same document."""
    snapshot = recorded(name)
    told = (HERE.root / "docs" / "status.md").read_text()
    assert f"```\n{text(snapshot, judge(snapshot))}```" in told
    assert f"(pictures/report-{name}.png)" in told


def test_every_picture_is_shown_and_small() -> None:
    pictures = set((HERE.root / "docs" / "pictures").iterdir())
    shown = (HERE.root / "docs" / "status.md").read_text() + (HERE.root / "README.md").read_text()
    assert {f"pictures/{one.name}" for one in pictures} == set(re.findall(r"pictures/[a-z-]+\.png", shown))
    assert all(10_000 < one.stat().st_size < 250 * 1024 for one in pictures)


def test_the_example_has_all_that_a_report_can_say() -> None:
    found = shown(example(), Review("example", drift=[DRIFT])).text
    assert "Well. Every declared server is there" in found
    assert "17 November 2027 Rotation of key orders-2026" in found
    assert "it may connect 0 times at once without a limit" in found
    assert "did not answer" not in found.partition("Software")[2]


def pulumi(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A command of that name, before all others."""
    file = directory / "bin" / "pulumi"
    file.parent.mkdir()
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{file.parent}:{os.environ['PATH']}")


ROLE = {"__provider": "x", "role": "replicator", "connectionLimit": -1}
HAND = Stream("orders").change("ReplicationRole", "replicator", ROLE, {**ROLE, "connectionLimit": 0}, ROLE)
"""A preview that finds a limit that somebody has set."""


@pytest.mark.parametrize(("snapshot", "told"), [(healthy(), "WELL"), (IN_CLEAR, "WELL, NOT ENCRYPTED")])
def test_the_command_says_what_the_page_says_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], snapshot: Snapshot, told: str
) -> None:
    monkeypatch.setattr(command, "declared", lambda *_: None)
    monkeypatch.setattr(command, "observe", lambda _: snapshot)
    file = tmp_path / "page.html"
    assert command.main(["--stack", "orders", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}: orders is {told}\n"


def made_with_drift(directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(command, "declared", lambda *_: None)
    monkeypatch.setattr(command, "observe", lambda _: healthy())
    assert command.main(["--stack", "orders", "--drift", str(directory / "page.html")]) == 0
    return Page((directory / "page.html").read_text()).text


def test_the_page_asks_for_drift_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "events").write_text(HAND.text)
    asked = tmp_path / "asked"
    pulumi(
        tmp_path,
        monkeypatch,
        f'echo "$* $PULUMI_ENABLE_STREAMING_JSON_PREVIEW" >"{asked}"; cat "{tmp_path}/events"; exit 1',
    )
    assert "it may connect 0 times at once without a limit" in made_with_drift(tmp_path, monkeypatch)
    assert asked.read_text() == "preview --json --non-interactive --stack orders true\n"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no stack named orders >&2; exit 255", "`pulumi preview` failed: no stack named orders"),
        ("echo what", "the preview is not the JSON of a Pulumi preview"),
    ],
)
def test_a_preview_that_says_nothing_makes_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    """Rather than one that looks as if nobody had changed anything."""
    pulumi(tmp_path, monkeypatch, script)
    with pytest.raises(UserError, match=re.escape(words)):
        made_with_drift(tmp_path, monkeypatch)
    assert not (tmp_path / "page.html").exists()


def test_a_preview_of_another_stack_is_refused(tmp_path: Path) -> None:
    urn = "urn:pulumi:other::p::pkg:index:Thing::x"
    file = tmp_path / "preview.json"
    file.write_text(json.dumps({"steps": [{"op": "same", "urn": urn}], "changeSummary": {"same": 1}}))
    with pytest.raises(UserError, match="is a preview of stack other, and the page is about orders"):
        command.main(["--stack", "orders", "--preview", str(file), str(tmp_path / "page.html")])
