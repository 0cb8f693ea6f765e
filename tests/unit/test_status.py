"""How a cluster is judged and shown, on facts that are made up: each degradation with its exit status and its words."""

import json
import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tde_replication.status.__main__ import TIMES
from tde_replication.status.document import document
from tde_replication.status.faults import FAULTS, known_faults
from tde_replication.status.finding import Finding, Level, Verdict
from tde_replication.status.metrics import HELP, metrics
from tde_replication.status.model import (
    Archiver,
    Backup,
    Database,
    Lag,
    OnDisk,
    Receiver,
    Replay,
    Snapshot,
    Table,
    Token,
)
from tde_replication.status.text import text
from tde_replication.status.verdict import judge
from tde_replication.status.words import duration, size
from tests.unit.clusters import (
    DRILL,
    GIB,
    HOSTILE,
    HOUR,
    TIME,
    archived,
    changed,
    encryption,
    gone,
    healthy,
    key,
    sender,
    slot,
    standby,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "status.md").read_text()
STATUS = ROOT / "components" / "tde_replication" / "status"
CHECKS = [
    STATUS / "verdict.py",
    STATUS / "replication_checks.py",
    STATUS / "encryption_checks.py",
    STATUS / "archive_checks.py",
]
BROKEN, DEGRADED, UNKNOWN = Level.BROKEN, Level.DEGRADED, Level.UNKNOWN
PAUSED = Replay(paused="paused", delay=0.0)
LATE = Lag(bytes=GIB, seconds=90.0)
STAND_IN = changed(
    "db1", encryption=encryption(version="pg_tde contract double (NOT ENCRYPTED, for tests) of 2.2.0", stand_in=True)
)
WITHOUT = changed("db1", tde_loaded=False, encryption=None, encryption_problem="this server has no pg_tde")
TABLE: dict[str, tuple[Snapshot, Level, str]] = {
    "two primaries": (
        changed("db3", in_recovery=False, receiver=None, replay=None),
        BROKEN,
        "BROKEN  orders: db1 and db3 both take writes",
    ),
    "not streaming, for its upstream is down": (
        changed("db2", receiver=None).model_copy(
            update={"servers": (gone("db1").servers[0], standby("db2", receiver=None), healthy().servers[2])}
        ),
        BROKEN,
        "DEGRADED  db2: it is in recovery and receives nothing, because db1 is down\n",
    ),
    "not streaming, for its upstream is not there": (
        changed("db3", receiver=None).model_copy(
            update={
                "servers": (
                    healthy().servers[0],
                    gone("db2", "absent").servers[1],
                    standby("db3", "db2", receiver=None),
                )
            }
        ),
        DEGRADED,
        "DEGRADED  db3: it is in recovery and receives nothing, because db2 is not there\n",
    ),
    "not streaming, and its upstream cannot be asked": (
        changed("db3", receiver=None).model_copy(
            update={
                "servers": (
                    healthy().servers[0],
                    gone("db2", "unknown").servers[1],
                    standby("db3", "db2", receiver=None),
                )
            }
        ),
        DEGRADED,
        "DEGRADED  db3: it is in recovery and receives nothing, and db2, which it is to stream from, cannot be asked\n",
    ),
    "primary down": (gone("db1"), BROKEN, "BROKEN  orders: no server takes writes: start the former primary"),
    "primary not to be asked": (
        gone("db1", "unknown"),
        UNKNOWN,
        "CANNOT TELL  orders: db1 cannot be asked, and no other server takes writes: find out",
    ),
    "nothing made": (
        healthy().model_copy(update={"servers": tuple(gone(n, "absent").named(n) for n in ("db1", "db2", "db3"))}),
        BROKEN,
        "none of its servers is there: `make up` makes them",
    ),
    "another primary": (
        healthy().model_copy(update={"primary": "db2"}),
        DEGRADED,
        "DEGRADED  db1: it takes writes, and the stack file names db2 as the primary",
    ),
    "standby down": (gone("db3"), DEGRADED, "DEGRADED  db3: down: no server runs on /data; `make up` starts it"),
    "standby not to be asked": (
        gone("db3", "unknown"),
        UNKNOWN,
        "CANNOT TELL  db3: it cannot be asked: no server runs",
    ),
    "standby starting": (gone("db3", "not accepting connections"), DEGRADED, "db3: not accepting connections"),
    "another cluster": (
        changed("db3", system_identifier="1"),
        DEGRADED,
        "its data are another cluster's (system identifier 1,",
    ),
    "not streaming": (
        changed("db3", receiver=None),
        DEGRADED,
        "DEGRADED  db3: it is in recovery and receives nothing: its log",
    ),
    "streams from elsewhere": (
        changed("db3", receiver=Receiver(status="streaming", host="192.0.2.99", port=5432, slot="other")),
        DEGRADED,
        "it streams from 192.0.2.99:5432, which is no server of the stack file",
    ),
    "catching up": (
        changed("db2", senders=(sender("db3", state="catchup"),)),
        DEGRADED,
        "db3: catchup: it is 0 B behind db2",
    ),
    "replay paused": (changed("db3", replay=PAUSED), DEGRADED, "DEGRADED  db3: replay is paused"),
    "lag": (
        changed("db2", senders=(sender("db3", replay=LATE),)),
        DEGRADED,
        "db3: it replays 1 min and 1.0 GiB behind db2",
    ),
    "timeline": (changed("db3", timeline=2), DEGRADED, "db3: it is on timeline 2, db2 on 3"),
    "slot lost": (
        changed("db1", slots=(slot("db2", wal_status="lost", invalidation_reason="wal_removed"),)),
        DEGRADED,
        "db2: slot tde_db2 on db1 is lost (wal_removed): its WAL is gone",
    ),
    "slot unreserved": (
        changed("db1", slots=(slot("db2", wal_status="unreserved"),)),
        DEGRADED,
        "its WAL goes with the next",
    ),
    "slot missing": (
        changed("db3", receiver=None).model_copy(
            update={"servers": (*healthy().servers[:1], standby("db2"), standby("db3", receiver=None))}
        ),
        DEGRADED,
        "db3: slot tde_db3 is on no server",
    ),
    "no slot": (
        changed("db2", senders=(sender("db3", slot=None),)).model_copy(
            update={
                "servers": (
                    healthy().servers[0],
                    standby("db2", senders=(sender("db3", slot=None),)),
                    standby("db3", receiver=Receiver(status="streaming", host="db2", port=5432)),
                )
            }
        ),
        DEGRADED,
        "db3: it streams from db2 without a slot",
    ),
    "foreign slot": (
        changed("db1", slots=(slot("db2"), slot("gone", active=False))),
        DEGRADED,
        "db1: slot tde_gone belongs to no server of the stack file, nobody reads it, and it holds back 1.0 MiB",
    ),
    "unused slot": (
        changed("db1", slots=(slot("db2"), slot("db3", active=False))),
        DEGRADED,
        "db1: slot tde_db3 holds back 1.0 MiB of WAL for db3, which streams from elsewhere: drop it",
    ),
    "commits wait": (
        changed("db1", synchronous_standby_names="ANY 2 (db2, db3)"),
        BROKEN,
        "BROKEN  db1: commits wait for 2 synchronous standbys, and 1 streams",
    ),
    "replaced programs": (
        changed("db2", replaced="PostgreSQL 18.7 is installed, and it runs 18.6"),
        DEGRADED,
        "DEGRADED  db2: PostgreSQL 18.7 is installed, and it runs 18.6: restart it, standbys first",
    ),
    "checksums": (changed("db2", checksum_failures=3), DEGRADED, "DEGRADED  db2: 3 checksum failures"),
    "archiver": (
        changed(
            "db1", archiver=Archiver(mode="on", failed=4, failing=True, last_failed_wal="000000030000000000000009")
        ),
        DEGRADED,
        "db1: archiving fails at 000000030000000000000009 (4 failures)",
    ),
    "archive": (
        archived(state="missing"),
        DEGRADED,
        "db1: stanza orders is not in the repository: no WAL can be archived",
    ),
    "backup": (archived(last=None), DEGRADED, "DEGRADED  db1: there is no backup in stanza orders: run `pgbackrest"),
    "backup, not known": (archived(state="not known", problem="no route"), UNKNOWN, "cannot be told: no route"),
    "restore drill": (
        archived(drill=DRILL.model_copy(update={"problem": "no key"})),
        DEGRADED,
        "DEGRADED  db2: the last one failed: no key",
    ),
    "pg_tde not loaded on a standby": (
        changed("db3", tde_loaded=False, encryption=None, encryption_problem="this server has no pg_tde"),
        BROKEN,
        "BROKEN  db3: it runs without pg_tde and replays in clear what is encrypted on db1",
    ),
    "required and not encrypted": (
        changed("db1", tde_loaded=False, encryption=None, encryption_problem="this server has no pg_tde"),
        BROKEN,
        "db1: the stack file says encryption: required, and nothing is encrypted: this server has no pg_tde",
    ),
    "keys not to be looked at": (
        changed("db1", encryption=None, encryption_unknown=True, encryption_problem="no token file"),
        UNKNOWN,
        "CANNOT TELL  db1: its keys cannot be looked at: no token file",
    ),
    "key lost": (
        changed("db1", encryption=key(problem="not found.", lost=True)),
        BROKEN,
        "server key orders-2026 is lost",
    ),
    "key does not open": (
        changed("db2", encryption=key(problem="sealed")),
        DEGRADED,
        "db2: it cannot open its server key orders-2026 now, so that it would not start again: sealed",
    ),
    "pages in clear on a disk": (
        changed("db3", on_disk=OnDisk(pages=9, tables=3, in_clear=("orders.public.notes",), wal="encrypted")),
        BROKEN,
        "BROKEN  db3: pg_tde says that orders.public.notes is encrypted, and pages of its file are in clear on its disk",
    ),
    "WAL in clear on a disk": (
        changed("db3", on_disk=OnDisk(pages=9, tables=3, wal="in clear")),
        DEGRADED,
        "DEGRADED  db3: pg_tde.wal_encrypt is on, and the newest page of its WAL is in clear on its disk",
    ),
    "files not to be read": (
        changed("db3", on_disk=OnDisk(problem="it is gone")),
        UNKNOWN,
        "CANNOT TELL  db3: whether its files are encrypted could not be looked at: it is gone",
    ),
    "key too old": (
        changed("db2", encryption=key(made=TIME - timedelta(days=91))).model_copy(update={"rotate_after": "90d"}),
        DEGRADED,
        "key orders-2026 is 91 days old, and the stack file says key.rotateAfter: 90d: `make up` rotates",
    ),
    "WAL in clear": (changed("db2", wal_encrypted=False), DEGRADED, "db2: the stack file says walEncryption: true"),
    "token gone": (changed("db2", token=Token(gone=True)), DEGRADED, "db2: its Vault token was revoked or has expired"),
    "token about to end": (
        changed("db2", token=Token(seconds_left=100 * HOUR, period=768 * HOUR)),
        DEGRADED,
        "db2: its Vault token ends in 4 days",
    ),
    "token not to be asked for": (
        changed("db2", token=Token(problem="VAULT_ADDR is not set")),
        UNKNOWN,
        "CANNOT TELL  db2: the time left of its Vault token is not known: VAULT_ADDR is not set",
    ),
    "a table in clear where none should be": (
        healthy().model_copy(
            update={
                "enforced": ("orders",),
                "databases": (
                    Database(
                        name="orders",
                        clear_table_count=6,
                        clear_tables=[Table(name=f"public.t{n}", bytes=1) for n in range(6)],
                    ),
                ),
            }
        ),
        DEGRADED,
        (
            "DEGRADED  orders: the stack file says enforceEncryption: true, and database orders has 6 tables in clear: "
            "public.t0, public.t1, public.t2, public.t3, public.t4, …. `make up` encrypts only what"
        ),
    ),
    "database not to be asked": (
        healthy().model_copy(update={"databases": (Database(name="x", problem="it takes no connections"),)}),
        UNKNOWN,
        "CANNOT TELL  orders: what of database x is encrypted: it takes no connections",
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_each_thing_that_is_wrong_has_its_status_and_its_words(case: str) -> None:
    snapshot, level, words = TABLE[case]
    verdict = judge(snapshot)
    assert verdict.level is level, verdict
    shown = text(snapshot, verdict)
    assert words in shown, shown
    assert level.word in shown.splitlines()[0]


def test_every_check_has_a_row_above_and_one_in_the_page() -> None:
    """A check that never says anything is not written down, and the other way round."""
    found = {finding.check for snapshot, _, _ in TABLE.values() for finding in judge(snapshot).findings}
    section = PAGE.partition("## What is checked")[2].partition("\n## ")[0]
    assert found == set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
    written = "".join(path.read_text() for path in CHECKS)
    assert found == {
        one or other for one, other in re.findall(r'Level\.[A-Z]+,\s*"([^"]+)"|_degraded\(\s*\w+,\s*"([^"]+)"', written)
    }


def test_sequences_that_pg_tde_leaves_in_clear_are_told() -> None:
    snapshot = healthy().model_copy(update={"databases": (Database(name="orders", free_sequences=2),)})
    verdict = judge(snapshot)
    assert verdict.level is Level.WELL
    assert "\n   2 sequences in clear that no table owns: pg_tde leaves them so\n" in text(snapshot, verdict)


def test_one_that_is_well_is_shown_like_this() -> None:
    snapshot = healthy()
    verdict = judge(snapshot)
    assert verdict.level is Level.WELL, verdict
    assert text(snapshot, verdict) == (
        "orders   WELL   primary db1   PostgreSQL 18.6, pg_tde 2.2.2   encrypted: 412.0 GiB of 413.0 GiB, WAL too\n"
        "db1   primary   db1.example.net:5432   timeline 3   up 2 h\n"
        "   server and default key orders-2026 of vault (vault-v2, https://vault.example.net:8200) since 2026-11-17: opens   "
        "Vault token: 29 days left\n"
        "└─ db2   streaming from db1, synchronous   0 B (0.0 s) behind   slot tde_db2 on db1: reserved, 63.0 GiB left\n"
        "      db2.example.net:5432   timeline 3   up 2 h\n"
        "      same keys: opens   Vault token: 29 days left\n"
        "   └─ db3   streaming from db2, asynchronous   0 B (0.0 s) behind   slot tde_db3 on db2: reserved, 63.0 GiB left\n"
        "         db3.example.net:5432   timeline 3   up 2 h\n"
        "         same keys: opens   Vault token: 29 days left\n"
        "database orders:   412.0 GiB encrypted, 1.0 GiB in clear\n"
        "   1 table in clear: public.notes 1.0 GiB\n"
        "not protected: system catalogs, sort and other temporary files, server logs (pg_tde never encrypts these)\n"
        "next due: Vault tokens of db1, db2, db3 in 29 days\n"
        "known fault of pg_tde on db1, db2, db3: mlock may fail on Rocky Linux 8 on ARM (not repaired yet; known issues in the "
        "release notes of pg_tde 2.2.2, 2026-08)\n"
    )


def test_the_worst_comes_first_and_what_cannot_be_told_does_not_hide_what_is_wrong() -> None:
    """In the order of Nagios plugins."""
    findings = [Finding(level, "x", "", "") for level in (UNKNOWN, DEGRADED, BROKEN)]
    assert [one.level for one in Verdict.of(findings).findings] == [BROKEN, DEGRADED, UNKNOWN]
    assert [level.value for level in (Level.WELL, DEGRADED, BROKEN, UNKNOWN)] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        (
            changed("db1", tde_loaded=False, encryption=None, encryption_problem="this server has no pg_tde"),
            "NOT ENCRYPTED: this server has no pg_tde",
        ),
        (
            STAND_IN,
            "NOT ENCRYPTED: a stand-in for pg_tde is loaded, which is for tests and encrypts nothing",
        ),
        (changed("db1", encryption_problem="no principal key is set"), "NOT ENCRYPTED: no principal key is set"),
    ],
)
def test_what_is_not_encrypted_says_so_in_its_first_lines(snapshot: Snapshot, words: str) -> None:
    lines = text(snapshot, judge(snapshot)).splitlines()
    assert lines[1] == words
    assert "encrypted:" not in lines[0]
    assert json.loads(document(snapshot, judge(snapshot)))["encrypted"] is False


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        (WITHOUT, "not protected: all tables and WAL, system catalogs, sort and other temporary files, server logs"),
        (STAND_IN, "not protected: all tables and WAL, system catalogs, sort and other temporary files, server logs"),
        (
            changed("db2", wal_encrypted=False),
            (
                "not protected: WAL of db2; system catalogs, sort and other temporary files, server logs (pg_tde never "
                "encrypts these)"
            ),
        ),
        (
            healthy().model_copy(update={"servers": (), "databases": ()}),
            "not protected: system catalogs, sort and other temporary files, server logs (pg_tde never encrypts these)",
        ),
    ],
)
def test_what_is_not_protected_is_always_said(snapshot: Snapshot, words: str) -> None:
    """Also, and above all, where nothing is encrypted."""
    shown = text(snapshot, judge(snapshot))
    assert f"\n{words}\n" in shown, shown


def test_servers_that_encrypt_their_wal_are_told_from_those_that_do_not() -> None:
    [first, *_] = text(*judged(changed("db2", wal_encrypted=False))).splitlines()
    assert first.endswith("encrypted: 412.0 GiB of 413.0 GiB, WAL on db1, db3 and not on db2")
    servers = tuple(changed(name, wal_encrypted=False).named(name) for name in ("db1", "db2", "db3"))
    [first, *_] = text(*judged(healthy().model_copy(update={"servers": servers}))).splitlines()
    assert first.endswith("WAL in clear")


def test_a_half_upgrade_says_which_server_has_which_version() -> None:
    older = changed("db2", version="18.5", encryption=encryption(version="pg_tde 2.2.1"))
    [first, *_] = text(*judged(older)).splitlines()
    told = "PostgreSQL 18.6 on db1, db3, PostgreSQL 18.5 on db2, pg_tde 2.2.2 on db1, db3, pg_tde 2.2.1 on db2"
    assert f"   {told}   " in first
    without = changed("db3", tde_loaded=False, encryption=None, encryption_problem="this server has no pg_tde")
    assert "   PostgreSQL 18.6, pg_tde 2.2.2 on db1, db2   " in text(*judged(without)).splitlines()[0]
    found = samples(metrics(*judged(older)))
    assert found['tde_pg_tde_info{stack="orders",server="db2",version="pg_tde 2.2.1"}'] == 1
    servers = json.loads(document(*judged(older)))["servers"]
    assert [(one["instance"]["version"], one["encryption"]["version"]) for one in servers] == [
        ("18.6", "pg_tde 2.2.2"),
        ("18.5", "pg_tde 2.2.1"),
        ("18.6", "pg_tde 2.2.2"),
    ]


@pytest.mark.parametrize(
    ("age", "told"),
    [(12, "rotation of key orders-2026 in 353 days"), (375, "rotation of key orders-2026 OVERDUE by 10 days")],
)
def test_the_next_dates_are_said(age: int, told: str) -> None:
    snapshot = changed("db1", encryption=key(made=TIME - timedelta(days=age)))
    snapshot = snapshot.model_copy(update={"rotate_after": "365d"})
    tokens = "Vault tokens of db1, db2, db3 in 29 days"
    line = f"next due: {told}; {tokens}" if age > 365 else f"next due: {tokens}; {told}"
    assert f"\n{line}\n" in text(*judged(snapshot))
    dates = {one["what"]: one["when"] for one in json.loads(document(*judged(snapshot)))["due"]}
    assert dates["The Vault tokens of db1, db2, db3 end"] == "2026-12-28T16:00:00+00:00"
    assert dates["Base backup: no server knows of one"] is None
    undated = healthy().model_copy(update={"servers": ()})
    assert "next due" not in text(*judged(undated))


def judged(snapshot: Snapshot) -> tuple[Snapshot, Verdict]:
    return snapshot, judge(snapshot)


def test_a_delay_that_is_declared_is_no_lag() -> None:
    late = Lag(bytes=GIB, seconds=3590.0)
    snapshot = changed("db2", senders=(sender("db3", replay=late),))
    delayed = standby("db3", "db2", replay=Replay(paused="not paused", delay=3600.0))
    snapshot = snapshot.model_copy(update={"servers": (*snapshot.servers[:2], delayed)})
    assert judge(snapshot).level is Level.WELL
    assert "replays 1 h late, as it is set" in text(snapshot, judge(snapshot))
    assert "write 0 B (0.0 s), flush 0 B (0.0 s), replay 1.0 GiB (59 min) behind" in text(snapshot, judge(snapshot))


def test_a_slot_that_somebody_reads_is_nobodys_leftover() -> None:
    """Nor is a copy of the primary's slot on a standby."""
    assert judge(changed("db1", slots=(slot("db2"), slot("report")))).level is Level.WELL
    assert judge(changed("db2", slots=(slot("db3"), slot("db9", active=False, synced=True)))).level is Level.WELL


def test_slots_of_one_name_on_two_servers_are_told_apart_by_the_port() -> None:
    snapshot = changed("db1", senders=(sender("db2"), sender("db3")))
    servers = [one.model_copy(update={"address": f"127.0.0.1:{5431 + n}"}) for n, one in enumerate(snapshot.servers)]
    receiver = Receiver(status="streaming", host="127.0.0.1", port=5432, slot="tde_db3")
    servers[2] = servers[2].model_copy(update={"instance": standby("db3", "db2", receiver=receiver).instance})
    shown = document(snapshot.model_copy(update={"servers": tuple(servers)}), Verdict(()))
    assert [one["upstream"] for one in json.loads(shown)["servers"]] == [None, "db1", "db2"]


def test_tables_in_clear_are_counted_and_a_few_are_named() -> None:
    [database] = healthy().databases
    tables = tuple(Table(name=f"public.t{number}", bytes=number) for number in range(7))
    many = database.model_copy(update={"clear_tables": tables, "clear_table_count": 107})
    shown = text(healthy().model_copy(update={"databases": (many,)}), Verdict(()))
    assert "   107 tables in clear: public.t0 0 B, public.t1 1 B" in shown
    assert "public.t4 4 B and 102 more\n" in shown
    as_declared = database.model_copy(update={"clear_tables": (), "clear_table_count": 0, "declared_clear_count": 2})
    declared = healthy().model_copy(update={"databases": (as_declared,), "enforced": (database.name,)})
    assert "   2 tables in clear, as the stack file declares\n" in text(declared, judge(declared))
    assert judge(declared).level is Level.WELL
    exact = database.model_copy(update={"clear_tables": tables[:5], "clear_table_count": 5})
    assert "more" not in text(healthy().model_copy(update={"databases": (exact,)}), Verdict(()))


def test_standbys_side_by_side_are_branches_of_one_tree() -> None:
    snapshot = changed("db1", senders=(sender("db2"), sender("db3")), slots=(slot("db2"), slot("db3")))
    servers = (snapshot.servers[0], standby("db2"), standby("db3"))
    shown = text(snapshot.model_copy(update={"servers": servers}), Verdict(()))
    lines = [line for line in shown.splitlines() if "db2" in line or "db3" in line][:4]
    assert [line[:6] for line in lines] == ["├─ db2", "│     ", "└─ db3", "      "]


def test_others_that_stream_are_named() -> None:
    backup = sender("pg_basebackup", slot=None, state="backup")
    snapshot = changed("db1", senders=(sender("db2", sync_state="sync"), backup))
    assert "also streams: pg_basebackup from 192.0.2.7 (backup)" in text(snapshot, judge(snapshot))


def test_texts_of_machines_are_shown_and_not_obeyed() -> None:
    table = Table(name=HOSTILE, bytes=1)
    database = Database(name=HOSTILE, clear_tables=(table,), clear_table_count=1)
    snapshot = changed("db1", senders=(sender("db2", sync_state="sync"), sender(HOSTILE, slot=None)), version=HOSTILE)
    snapshot = snapshot.model_copy(update={"databases": (database,)})
    verdict = judge(snapshot)
    for form in (text, document, metrics):
        shown = form(snapshot, verdict)
        assert not re.search(r"[\x1b\u202e]|##\[|^\s*::", shown, re.MULTILINE), shown
    assert json.loads(document(snapshot, verdict))["databases"][0]["name"] == HOSTILE


def keys(document: Any) -> set[str]:
    if isinstance(document, dict):
        return set(document) | {key for value in document.values() for key in keys(value)}
    return {key for value in document for key in keys(value)} if isinstance(document, list) else set()


def test_json_has_the_keys_that_the_page_has() -> None:
    with_all = changed("db1", slots=(slot("db2"),))
    shown = json.loads(document(with_all, judge(TABLE["two primaries"][0])))
    section = PAGE.partition("## `--json`")[2].partition("\n## ")[0]
    assert keys(shown) - set(re.findall(r"`(?:…|[a-z]+\[\])?\.?([a-zA-Z]+)(?:\[\])?`", section)) == set()
    assert shown["servers"][0]["instance"]["slots"][0]["safeWalBytes"] == 63 * GIB
    assert shown["servers"][1]["upstream"] == "db1"


def samples(shown: str) -> dict[str, float]:
    """By name and labels, as Prometheus reads the format."""
    value = r'"(?:[^"\\\n]|\\["\\n])*"'
    line = re.compile(rf"([a-z_]+)\{{((?:[a-z_]+={value},?)*)\}} (\S+)")
    found: dict[str, float] = {}
    typed = ""
    for one in shown.splitlines():
        if one.startswith("#"):
            kind, name = one.split()[1:3]
            typed = name if kind == "TYPE" else typed
            continue
        read = line.fullmatch(one)
        assert read, one
        assert read[1] == typed, "samples of one metric stand together, below its type"
        assert f"{read[1]}{{{read[2]}}}" not in found, "a sample that is there twice is refused"
        found[f"{read[1]}{{{read[2]}}}"] = float(read[3])
    return found


def test_the_last_base_backup_is_shown_with_its_label() -> None:
    snapshot = changed("db1", last_backup=Backup(file="x.backup", age=3 * HOUR, label="nightly"))
    assert "\n   last base backup 3 h ago (nightly)\n" in text(snapshot, judge(snapshot))


def test_metrics_are_readable_and_say_what_is() -> None:
    snapshot = changed("db1", slots=(slot("db2"), slot("gone", active=False)), version=HOSTILE)
    found = samples(metrics(snapshot, judge(snapshot)))
    assert found['tde_status{stack="orders"}'] == 1
    assert found['tde_finding{stack="orders",level="degraded",check="foreign slot",server="db1"}'] == 1
    assert found['pg_replication_is_replica{stack="orders",server="db2"}'] == 1
    lag = 'tde_replication_lag_bytes{stack="orders",server="db2",upstream="db1",step="replay"}'
    assert found[lag] == 0
    assert found['tde_vault_token_seconds{stack="orders",server="db1"}'] == 700 * HOUR
    opens = 'tde_key_opens{stack="orders",server="db1",scope="server",key="orders-2026",provider="vault"}'
    assert found[opens] == 1


def test_every_metric_is_explained_and_used() -> None:
    archiver = Archiver(mode="on", archived=3, last_archived_age=2.0)
    replay = Replay(paused="not paused", delay=0.0, last_transaction_age=3.0)
    backup = Backup(file="x.backup", age=3 * HOUR, label="nightly")
    slots = (slot("db2"), slot("gone", active=False))
    snapshot = changed("db1", archiver=archiver, last_backup=backup, slots=slots)
    servers = (*snapshot.servers[:2], standby("db3", "db2", replay=replay))
    snapshot = snapshot.model_copy(update={"servers": servers, "stanza": archived().stanza})
    shown = metrics(snapshot, judge(snapshot))
    assert {one.partition("{")[0] for one in samples(shown)} == set(HELP)


ALERTS = ROOT / "examples" / "prometheus" / "alerts.yaml"
ALERTS_TESTS = ALERTS.with_name("alerts.test.yaml")
DASHBOARD = ROOT / "examples" / "grafana" / "dashboard.json"
PROMTOOL = pytest.mark.skipif(
    not shutil.which("promtool"), reason="promtool (Debian package prometheus) is not installed"
)


def test_alerts_are_about_metrics_that_there_are() -> None:
    [group] = yaml.safe_load(ALERTS.read_text())["groups"]
    for rule in group["rules"]:
        assert set(re.findall(r"\b(?:tde|pg)_[a-z_]+", rule["expr"])) <= set(HELP), rule["alert"]
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}


def test_each_alert_is_tried_where_it_is_due_and_where_all_is_well() -> None:
    """By promtool, in the test below."""
    names = [rule["alert"] for rule in yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]]
    well, *due = yaml.safe_load(ALERTS_TESTS.read_text())["tests"]
    assert [one["alertname"] for one in well["alert_rule_test"]] == names
    assert not any("exp_alerts" in one for one in well["alert_rule_test"])
    assert [one["name"] for one in due] == names
    for test in due:
        [tried] = test["alert_rule_test"]
        assert (tried["alertname"], len(tried["exp_alerts"])) == (test["name"], 1)


def expressions() -> list[str]:
    return [one["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for one in panel["targets"]]


def test_the_dashboard_shows_metrics_that_there_are_each_panel_in_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    for expression in expressions():
        assert set(re.findall(r"\b(?:tde|pg)_[a-z_]+", expression)) <= set(HELP), expression
        assert 'stack="$stack"' in expression


@PROMTOOL
def test_promtool_can_read_the_expressions_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    subprocess.run(["promtool", "check", "rules", str(file)], check=True)


@PROMTOOL
def test_promtool_takes_alerts_and_metrics() -> None:
    subprocess.run(["promtool", "check", "rules", str(ALERTS)], check=True)
    subprocess.run(["promtool", "test", "rules", str(ALERTS_TESTS)], check=True)
    shown = metrics(healthy(), judge(healthy()))
    done = subprocess.run(["promtool", "check", "metrics"], input=shown, text=True, capture_output=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("pg_stat_archiver_")]
    assert complaints == [], "those are postgres_exporter's names"


def test_faults_are_those_of_a_version() -> None:
    def repaired(version: str) -> list[bool]:
        told = " ".join(known_faults(version, 180006))
        return [fault.text not in told for fault in FAULTS]

    assert repaired("pg_tde 2.1.2") == [False, False, False, False]
    assert repaired("pg_tde 2.2.0") == [True, False, False, False]
    assert repaired("pg_tde 2.2.1") == [True, True, False, False]
    assert repaired("pg_tde 2.2.2") == [True, True, True, False]
    assert known_faults("something else", 180006) == []
    assert any(
        "needs Percona Server 18.4 or newer, and this is 18.3" in one for one in known_faults("pg_tde 2.2.0", 180003)
    )
    assert not any("needs Percona" in one for one in known_faults("pg_tde 2.1.2", 180003))


def test_the_page_lists_the_faults() -> None:
    section = PAGE.partition("## Known faults of pg_tde")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    repaired = [".".join(map(str, fault.repaired)) if fault.repaired else "not yet" for fault in FAULTS]
    assert rows == [[fault.text, since, fault.source] for fault, since in zip(FAULTS, repaired, strict=True)]


def test_that_time_passes_is_no_change_to_watch() -> None:
    now, later, paused = healthy(), changed("db1", uptime=9.5), changed("db3", replay=PAUSED)
    shown = [TIMES.sub("", text(one, judge(one))) for one in (now, later, paused)]
    assert text(now, judge(now)) != text(later, judge(later))
    assert shown[0] == shown[1] != shown[2]


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (63 * GIB, "63.0 GiB"), (None, "an unknown amount")],
)
def test_sizes(number: int | None, words: str) -> None:
    assert size(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.24, "0.2 s"),
        (59, "59 s"),
        (60, "1 min"),
        (7199, "1 h"),
        (90000, "25 h"),
        (12 * 86400, "12 days"),
        (None, "an unknown time"),
    ],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words
