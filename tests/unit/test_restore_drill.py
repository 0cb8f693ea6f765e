"""A restore drill: what is asked before it begins, how what was restored is kept apart, and what becomes of it."""

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from unittest.mock import Mock

import pytest

from tde_replication.errors import CommandFailed, UserError
from tde_replication.postgres import pgbackrest, restore
from tde_replication.postgres.guc import values_in
from tde_replication.postgres.restore import Restore, place, tablespaces, take_away
from tde_replication.restore_drill import drill as drills
from tde_replication.restore_drill.__main__ import text
from tde_replication.restore_drill.drill import Server, _newest, _with_room
from tde_replication.status.archive_checks import archive_findings
from tde_replication.status.backups import Drill
from tde_replication.status.due import due
from tde_replication.status.finding import Level
from tde_replication.status.metrics import metrics
from tde_replication.status.model import Snapshot
from tde_replication.status.text import text as status_text
from tde_replication.status.verdict import judge
from tests.unit.clusters import BACKUP, DRILL, GIB, archived, healthy
from tests.unit.test_archive import HERE, info
from tests.unit.test_plan import placed

DATA, BIN = PurePosixPath("/srv/db2/data"), PurePosixPath("/usr/lib/postgresql/18/bin")


def machine(names: Sequence[str] = (), *, said: str = "", running: bool = False) -> Mock:
    found = Mock(account="postgres", administrators=("deploy",), output=Mock(return_value=said or info()))
    found.listing.return_value = list(names)
    found.postmaster.return_value = Mock() if running else None
    return found


def test_what_was_restored_is_kept_from_everything() -> None:
    """And configured by nothing that the backup says."""
    there = machine()
    Restore(
        there,
        DATA,
        BIN,
        "orders",
        {"port": "5432", "shared_preload_libraries": "pg_tde"},
        wrapped=True,
        sockets="/run/x",
    ).restore("F")
    [command] = [call.args[0] for call in there.run.call_args_list]
    assert {
        "--pg1-path=/srv/db2/.data.restore-drill",
        "--tablespace-map-all=/srv/db2/.data.restore-drill-tablespaces",
        *("--set=F", "--no-link-all", "--reset-link-map", "--reset-tablespace-map", "--archive-mode=off"),
    } <= set(command)
    files = {call.args[0].name: call.args[1].decode() for call in there.write.call_args_list}
    assert {call.args[0].parent for call in there.write.call_args_list} == {place(DATA)}
    assert files["postgresql.conf"] == files["recovery.signal"] == ""
    found = values_in(files["postgresql.auto.conf"])
    assert {
        name: found[name] for name in ("listen_addresses", "archive_mode", "archive_command", "primary_conninfo")
    } == {
        "listen_addresses": "",
        "archive_mode": "off",
        "archive_command": "",
        "primary_conninfo": "",
    }
    assert found["max_logical_replication_workers"] == found["max_wal_senders"] == "0"
    assert found["shared_preload_libraries"] == "pg_tde"
    assert found["unix_socket_directories"] == '"/srv/db2/.data.restore-drill"'
    assert found["restore_command"].startswith(f"{BIN}/pg_tde_restore_encrypt %f %p ")
    assert ".data.restore-drill archive-get" in found["restore_command"]
    assert files["pg_hba.conf"] == "local all postgres peer map=owner\n"
    assert files["pg_ident.conf"].splitlines() == ['owner "deploy" postgres', 'owner "postgres" postgres']
    there.remove.assert_called_once_with(place(DATA) / "standby.signal")


def test_a_path_that_is_too_long_for_a_socket_has_another() -> None:
    there, deep = machine(), PurePosixPath("/srv", "d" * 90, "data")
    Restore(there, deep, BIN, "orders", {}, wrapped=False, sockets="/run/x").restore("F")
    files = {call.args[0].name: call.args[1].decode() for call in there.write.call_args_list}
    assert values_in(files["postgresql.auto.conf"])["unix_socket_directories"] == '"/run/x"'


def test_why_nothing_was_restored_is_told() -> None:
    there = machine()
    there.run.side_effect = CommandFailed("pgbackrest", 82, "P00  ERROR: [055]: no such backup\n")
    with pytest.raises(UserError, match="pgBackRest did not restore F: no such backup"):
        Restore(there, DATA, BIN, "orders", {}, wrapped=False, sockets="/run/x").restore("F")


def test_what_a_killed_drill_left_is_stopped_and_removed() -> None:
    there = machine(["data", place(DATA).name, tablespaces(DATA).name], running=True)
    assert take_away(there, BIN, DATA)
    assert [call.args[0][1] for call in there.run.call_args_list] == ["stop"]
    assert [call.args[0] for call in there.remove.call_args_list] == [place(DATA), tablespaces(DATA)]
    nothing = machine(["data"])
    assert not take_away(nothing, BIN, DATA)
    assert not nothing.remove.called


def server(name: str, *, writes: bool = False) -> Server:
    return Server(name, placed(name, 5432), writes, HERE, {})


BACKUPS = (
    '{"label":"20261201F","type":"full","timestamp":{"start":1,"stop":2},"info":{"size":1024},"error":false},'
    '{"label":"20261202F","type":"incr","timestamp":{"start":3,"stop":4},"info":{"size":2048}}'
)


def said(monkeypatch: pytest.MonkeyPatch, text_: str) -> None:
    monkeypatch.setattr(Server, "machine", machine(said=text_))


def test_the_newest_backup_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch, info().replace('"backup":[]', f'"backup":[{BACKUPS}]'))
    assert _newest([server("db2")], "orders").label == "20261202F"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (info(), "there is no backup in stanza orders: run `pgbackrest --stanza=orders backup`, then this again"),
        (info(code=1), "stanza orders has nothing to restore: it is not in the repository"),
        (info(code=99), r"stanza orders has nothing to restore: \[HostConnectError\] no route"),
        (info(system="42"), r"stanza orders is of another cluster \(system identifier 42\)"),
    ],
    ids=["none", "missing", "unknown", "another"],
)
def test_without_a_backup_nothing_is_tried(answer: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said(monkeypatch, answer)
    with pytest.raises(UserError, match=sentence):
        _newest([server("db2")], "orders")


def test_a_server_with_room_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    backup = pgbackrest.Backup.model_validate_json(BACKUPS.split(",{", 1)[0])
    monkeypatch.setattr(Server, "machine", machine())
    free = {"/srv/db1": 3 * GIB, "/srv/db2": GIB, "/srv/db3": None}
    monkeypatch.setattr(drills, "free_bytes", lambda _, path: free[str(path)])
    assert _with_room([server("db2"), server("db1", writes=True)], backup).name == "db1"
    assert _with_room([server("db3"), server("db1", writes=True)], backup).name == "db3"  # it is not known
    with pytest.raises(
        UserError, match=r"no server has room for the backup \(1.0 GiB .*: db2 has 1.0 GiB. Nothing was restored"
    ):
        _with_room([server("db2")], backup)


def test_its_result_for_a_person() -> None:
    assert text("orders", DRILL).splitlines() == [
        "orders: restored backup F of stanza orders on db2 in 52 s",
        "   recovered to 2026-11-29 12:00:00 UTC (last transaction)",
        "   read 2 tables in 1 databases (1 of them encrypted), 3 rows, 0 B",
        "   all could be read; what was restored is removed",
    ]
    assert "FAILED: no key" in text("orders", DRILL.model_copy(update={"problem": "no key"}))


@pytest.mark.parametrize(
    ("found", "check"),
    [
        (archived(), None),
        (archived(drill=None), None),
        (archived(state="not known", problem="no route"), ("backup", Level.UNKNOWN)),
        (archived(state="missing"), ("archive", Level.DEGRADED)),
        (archived(state="of another cluster"), ("archive", Level.DEGRADED)),
        (archived(last=None, backups=0), ("backup", Level.DEGRADED)),
        (archived(last=BACKUP.model_copy(update={"damaged": True})), ("backup", Level.DEGRADED)),
        (archived(drill=DRILL.model_copy(update={"problem": "no key"})), ("restore drill", Level.DEGRADED)),
    ],
)
def test_the_status_judges_backups(found: Snapshot, check: tuple[str, Level] | None) -> None:
    snapshot = found
    assert [(one.check, one.level) for one in archive_findings(snapshot)] == ([check] if check else [])
    shown = status_text(snapshot, judge(snapshot))
    assert "archive: stanza orders" in shown
    assert [one.name for one in due(snapshot) if not one.when][-2:] == ["base backup", "restore drill"]
    assert "tde_" in metrics(snapshot, judge(snapshot))


def test_a_primary_that_archives_nothing_is_told() -> None:
    snapshot = healthy().model_copy(update={"stanza": archived().stanza})
    assert [(one.check, one.server) for one in archive_findings(snapshot)] == [("archive", "db1")]
    assert list(archive_findings(healthy())) == []


def test_a_drill_is_noted_as_the_status_reads_it(tmp_path: Path) -> None:
    note = tmp_path / restore.note_name("orders")
    note.write_text(DRILL.model_dump_json(by_alias=True))
    assert Drill.model_validate_json(note.read_bytes()) == DRILL
    assert json.loads(note.read_text())["recoveredTo"] == "2026-11-29T12:00:00Z"
