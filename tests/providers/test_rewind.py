"""A former primary that has WAL of its own is rewound: what it has then, what is refused, and what a failure or a kill leaves."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tde_replication.errors import Conflict, UserError
from tde_replication.hosts.account import PROJECT
from tde_replication.postgres.adopted_directory import AdoptedDirectory
from tde_replication.postgres.base_backup import PRIMARY_ONCE, PRIMARY_UNTIL_ITS_END
from tde_replication.postgres.hba_rule import HbaRule
from tde_replication.postgres.replication_slot import ReplicationSlot
from tde_replication.postgres.rewind import FUNCTIONS, GRANTED
from tde_replication.postgres.server import Server
from tde_replication.postgres.server_directory import ServerDirectory
from tde_replication.postgres.topology_server import DEMOTED
from tde_replication.postgres.upstream import Upstream, passfile
from tde_replication.progress import reported_to
from tde_replication.waiting import until
from tests.processes import lives, watched
from tests.providers.servers import PASSWORD, STACK, Node, Servers

OWN = "own since the fork"


@dataclass
class Parted:
    """A primary that was given up, and the one after it."""

    old: Node
    new: Node
    directory: ServerDirectory
    """As it is declared now."""

    def live(self) -> ServerDirectory:
        found = self.directory.read()
        assert found
        return found

    @property
    def data(self) -> Path:
        return Path(self.directory.data_directory)

    def set_aside(self) -> list[Path]:
        return sorted(self.data.parent.glob("data.set-aside-*"))

    def hidden(self) -> list[str]:
        return [entry.name for entry in self.data.parent.glob(".data*")]

    @property
    def as_standby(self) -> Server:
        upstream = self.directory.upstream
        assert upstream
        told = {"primary_conninfo": upstream.conninfo("db1"), "primary_slot_name": self.directory.slot}
        settings = self.old.server.settings | told | {"wal_retrieve_retry_interval": "100ms"}
        return self.old.server.replace(recovery="standby", settings=settings, made_at=self.directory.made_at)

    def follows(self) -> None:
        """It has all that the new primary has, and nothing of its own."""
        server = self.as_standby
        if self.old.running:
            assert server.read() == server
        else:
            server.update(server.replace(running=False))
        self.new.rows("INSERT INTO written SELECT 'later'")
        assert until(lambda: self.words(self.old) == self.words(self.new), seconds=30)
        assert OWN not in self.words(self.old)
        assert self.old.value("SELECT pg_is_in_recovery()") is True
        assert self.live() == self.directory

    @staticmethod
    def words(node: Node) -> list[str]:
        return [word for (word,) in node.rows("SELECT word FROM written ORDER BY word")]

    def granted(self) -> list[str]:
        return [
            one
            for one in FUNCTIONS
            if self.new.value("SELECT has_function_privilege('replicator', %s::text, 'EXECUTE')", [one])
        ]


def part(servers: Servers, *, stop: bool = False, **fields: Any) -> Parted:
    """A primary writes alone, and ends; its standby is promoted, and goes on."""
    old = servers.primary("db1", max_wal_size="64MB", min_wal_size="32MB")
    new = servers.standby(old, "db2")
    old.rows("CREATE TABLE written (word text); INSERT INTO written VALUES ('both')")
    old.rows("CREATE TABLE large AS SELECT n, repeat('x', 500) AS filler FROM generate_series(1, 20000) AS n")
    assert until(lambda: new.value("SELECT to_regclass('large') IS NOT NULL"), seconds=20)
    old.rows("SELECT pg_create_physical_replication_slot('of_before', true)")
    new.stop()
    old.rows("INSERT INTO written SELECT %s FROM generate_series(1, 1000)", [OWN])
    old.rows("UPDATE large SET filler = 'y' WHERE n % 100 = 0")
    old.rows("CREATE TABLE alone AS SELECT 1 AS a")
    old.directory.replace(name="db1")._mark(old.data, old.directory.made_at)
    if stop:
        old.stop()
    else:
        kill(old)
    old.file(DEMOTED).touch()  # as a failover does
    new.server.update(new.server.replace(running=False))
    new.rows("SELECT pg_promote()")
    assert until(lambda: new.value("SELECT pg_is_in_recovery()") is False, seconds=20)
    new.rows("INSERT INTO written VALUES ('new')")
    new.rows("UPDATE large SET filler = 'z' WHERE n % 77 = 0")
    return Parted(old, new, declared(servers, old, new, **fields))


def kill(node: Node) -> None:
    found = node.host.postmaster(node.data)
    assert found
    psutil.Process(found.pid).kill()
    assert until(lambda: not node.running, seconds=20)


def declared(servers: Servers, old: Node, new: Node, **fields: Any) -> ServerDirectory:
    slot = "tde_db1"
    ReplicationSlot.model_validate({**new.inside, "slot": slot}).create()
    pgpass = old.data.with_name("orders.pgpass")
    old.host.write(pgpass, passfile("replicator", PASSWORD, ["postgres"]), mode=0o600)
    let_in(new)
    return ServerDirectory.model_validate(
        {
            "host": "local",
            "data_directory": str(old.data),
            "binaries": str(servers.programs),
            "stack": STACK,
            "name": "db1",
            "disposable": False,
            "role": "standby",
            "origin": "base backup of db2",
            "upstream": Upstream(
                host="127.0.0.1", port=new.port, role="replicator", tls="prefer", passfile=str(pgpass)
            ),
            "slot": slot,
            "rejoin": "rewind",
            "primary_host": "local",
            "primary_directory": str(new.data),
            "primary_identifier": new.directory.system_identifier,
            "system_identifier": old.directory.system_identifier,
            "made_at": old.directory.made_at,
            "others": [("local", str(new.data))],
        }
        | fields
    )


def let_in(primary: Node) -> None:
    """What the rule of a stack with `rejoin: rewind` says."""
    HbaRule.model_validate(
        {
            **primary.inside,
            "role": "replicator",
            "address": "127.0.0.1/32",
            "databases": ["replication", "postgres"],
        }
    ).create()


@pytest.fixture
def parted(servers: Servers) -> Iterator[Parted]:
    made = part(servers)
    yield made
    made.old.stop()
    made.new.stop()


def test_a_former_primary_that_was_killed_is_rewound(parted: Parted) -> None:
    own = {name: parted.old.file(name).read_bytes() for name in ("postgresql.conf", "tde-replication.json")}
    parted.old.file("server.key").write_bytes(b"its own")
    parted.new.file("server.key").write_bytes(b"the other's")
    parted.new.file("more.conf").write_bytes(b"the other's alone")
    live = parted.live()
    assert live.follows == PRIMARY_UNTIL_ITS_END
    assert re.fullmatch(r"0/[0-9A-F]+ of timeline 1", live.diverged)
    assert parted.directory.changed(live) == {"follows"}
    assert parted.directory.replacing(live) == set()
    assert parted.directory.replace(rejoin="clone").replacing(live) == {"follows"}
    assert parted.directory.refusal(live) is None

    said: list[str] = []
    with reported_to(lambda text, _: said.append(text)):
        assert parted.directory.update(live) == parted.directory
    assert not parted.old.running, "its server starts it, with the connection of a standby"
    parted.follows()
    [aside] = parted.set_aside()
    assert parted.hidden() == []
    assert f"{parted.data}, as it was, is set aside as {aside}" in said
    assert any(text.startswith("the rewind of db1 to db2: ") and "(100 %)" in text for text in said), said
    assert parted.granted() == []
    assert {name: parted.old.file(name).read_bytes() for name in own} == own
    assert parted.old.file("server.key").read_bytes() == b"its own"
    assert not parted.old.file("more.conf").exists()
    assert parted.old.rows("SELECT slot_name FROM pg_replication_slots") == []
    assert parted.old.value("SELECT to_regclass('alone')") is None
    fillers = "SELECT md5(string_agg(filler, '' ORDER BY n)) FROM large"
    assert until(lambda: parted.old.value(fillers) == parted.new.value(fillers), seconds=20)

    # What it had alone is in what was set aside.
    parted.old.stop()
    shutil.rmtree(parted.data)
    aside.rename(parted.data)
    parted.old.server.update(parted.old.server.replace(running=False))
    assert parted.old.value("SELECT count(*) FROM written WHERE word = %s", [OWN]) == 1000
    assert parted.old.value("SELECT a FROM alone") == 1


def test_what_it_costs_is_told_before(parted: Parted) -> None:
    live = parted.live()
    for disposable, becomes in ((True, "removed"), (False, "set aside")):
        [cost] = parted.directory.replace(disposable=disposable).costs(live)
        assert (cost.kind, cost.server) == ("rewind", "db1")
        assert re.fullmatch(
            r"db1: is rewound to db2 by pg_rewind, because it has [\d.]+ [KM]iB of WAL that no other server has "
            rf"\(diverged since {live.diverged}\); that is done on a copy of its data \([\d.]+ MiB\), and the data as it is now "
            rf"is {becomes}",
            cost.text,
        )
        assert 0 < (cost.size or 0) < (cost.free or 0)
        assert bool(cost.loses) == disposable
    [clone] = parted.directory.replace(rejoin="clone").costs(live)
    assert "a new base backup of db2" in clone.text
    assert parted.granted() == []
    assert not parted.old.running


def test_a_diverged_standby_that_runs_is_rewound_and_runs_again(parted: Parted) -> None:
    """As the `up` of a failover leaves it: started as a standby, and never to stream."""
    parted.as_standby.update(parted.as_standby.replace(running=False, recovery="none"))
    assert OWN in parted.words(parted.old)
    live = parted.live()
    assert live.follows.startswith("it has WAL up to ")
    assert live.diverged
    parted.directory.replace(disposable=True).update(live)
    assert parted.old.running
    parted.follows()
    assert parted.set_aside() == []
    assert parted.hidden() == []


def test_what_keeps_it_from_a_rewind_is_told_before(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    parted = part(servers, stop=True)
    live = parted.live()
    assert live.follows.startswith("it has WAL up to ")
    assert parted.directory.refusal(live) is None

    def refused(why: str, directory: ServerDirectory = parted.directory) -> None:
        told = directory.refusal(parted.live())
        assert told
        assert re.fullmatch(
            rf"the rewind of db1 to db2 \(rejoin: rewind\) cannot be made: {why}\. Nothing is changed\. Write rejoin: clone, and "
            "`up` clones db1 again",
            told,
        ), told
        with pytest.raises(Conflict):
            directory.update(parted.live())
        assert parted.set_aside() == []

    programs = parted.data.parent / "programs"
    programs.mkdir(mode=0o755)
    for one in servers.programs.iterdir():
        if one.name != "pg_rewind":
            (programs / one.name).symlink_to(one)
    refused(rf"there is no pg_rewind in {re.escape(str(programs))}", parted.directory.replace(binaries=str(programs)))

    checksums = [str(servers.programs / "pg_checksums"), f"--pgdata={parted.data}"]
    parted.old.host.run([*checksums, "--disable"], deadline=60)
    refused("db1 has neither data checksums nor wal_log_hints, and its WAL does not hold all that has changed")
    parted.old.host.run([*checksums, "--enable"], deadline=60)

    parted.old.file("pg_wal").rename(parted.data.parent / "wal")
    parted.old.file("pg_wal").symlink_to(parted.data.parent / "wal")
    refused(r".*/data/pg_wal is a link to a place outside of the data directory, of which no copy is made")
    parted.old.file("pg_wal").unlink()
    (parted.data.parent / "wal").rename(parted.old.file("pg_wal"))

    lsn = parted.live().diverged.split()[0]
    [name] = parted.new.rows("SELECT substr(pg_walfile_name(%s::pg_lsn), 9)", [lsn])[0]
    segment = parted.old.file("pg_wal") / f"00000001{name}"
    segment.rename(segment.with_suffix(".kept"))
    refused("the WAL from which pg_rewind reads what has changed is gone from db1")
    segment.with_suffix(".kept").rename(segment)

    parted.new.rows("ALTER SYSTEM SET full_page_writes = off")
    parted.new.rows("SELECT pg_reload_conf()")
    assert until(lambda: parted.new.value("SHOW full_page_writes") == "off", seconds=10)
    refused("full_page_writes is off on db2: set it to on there, and run this again")
    parted.new.rows("ALTER SYSTEM RESET full_page_writes")
    parted.new.rows("SELECT pg_reload_conf()")
    assert until(lambda: parted.new.value("SHOW full_page_writes") == "on", seconds=10)

    monkeypatch.setattr("tde_replication.postgres.rewind_checks.free_bytes", lambda *_: 1024)
    refused(
        r"it is made on a copy of the data \(\d+\.\d MiB\), and only 1 KiB are free there\. What was set aside before is in "
        r".*/data\.set-aside-\*"
    )
    monkeypatch.undo()
    assert parted.directory.refusal(parted.live()) is None

    parted.new.rows("SELECT pg_drop_replication_slot('tde_db1')")
    for _ in range(3):
        parted.new.rows("SELECT pg_logical_emit_message(true, '', 'x')")
        parted.new.rows("SELECT pg_switch_wal()")
    parted.new.rows("CHECKPOINT")
    refused("the WAL that db1 would need to follow is gone from db2")
    assert parted.granted() == []
    parted.new.stop()


def test_a_primary_that_cannot_be_asked_is_no_reason_for_a_clone(parted: Parted) -> None:
    parted.new.stop()
    live = parted.live()
    assert (live.follows, live.diverged) == (PRIMARY_UNTIL_ITS_END, "")
    told = parted.directory.refusal(live)
    assert told
    assert "since when cannot be asked of the primary" in told
    assert "or write rejoin: clone" in told
    assert parted.directory.replace(rejoin="clone").refusal(live) is None


def test_only_a_former_primary_is_rewound(servers: Servers) -> None:
    """Not a standby that was promoted by mistake; nor a server that was here before the stack."""
    first = servers.primary("first")
    second = servers.standby(first, "second")
    second.rows("SELECT pg_promote()")
    assert until(lambda: second.value("SELECT pg_is_in_recovery()") is False, seconds=20)
    second.stop()
    directory = declared(servers, second, first)
    live = directory.read()
    assert live
    assert (live.follows, live.diverged) == (PRIMARY_ONCE, "")
    assert directory.replacing(live) == {"follows"}
    assert directory.refusal(live) is None
    adopted = AdoptedDirectory.model_validate({**directory.model_dump(), "origin": "adopted"})
    forked = adopted.replace(follows=PRIMARY_ONCE, diverged="0/3000000 of timeline 1")
    assert "nothing is changed" in (adopted.refusal(forked) or "")
    assert adopted.update(forked) == adopted
    assert second.file("PG_VERSION").exists()
    first.stop()


def test_a_rewind_that_cannot_log_in_stops_nothing(parted: Parted) -> None:
    parted.as_standby.update(parted.as_standby.replace(running=False, recovery="none"))
    before = parted.old.host.postmaster(parted.old.data)
    Path(parted.directory.upstream.passfile).write_text("*:*:*:*:wrong-password\n")  # type: ignore[union-attr]
    with pytest.raises(UserError) as told:
        parted.directory.update(parted.live())
    text = str(told.value)
    assert 'password authentication failed for user "replicator"' in text
    assert "Its data is as it was. Run `up` again; or write rejoin: clone, and `up` clones it again" in text
    assert "\n" not in text
    assert "wrong-password" not in text
    assert parted.old.host.postmaster(parted.old.data) == before
    assert OWN in parted.words(parted.old)
    assert parted.hidden() == []
    assert parted.granted() == []


FAILS = """#!/bin/sh
case "$*" in *--dry-run*) exec {program} "$@" ;; esac
rm -f "{data}/base/1/PG_VERSION"
{end}
"""


@pytest.mark.parametrize(
    ("end", "why"),
    [
        ("echo 'pg_rewind: error: the network is gone' >&2; exit 1", "pg_rewind: error: the network is gone"),
        ("exit 0", "pg_rewind finds nothing to rewind, and the two are not one"),
    ],
)
def test_a_rewind_that_fails_leaves_all_as_it_was(parted: Parted, servers: Servers, end: str, why: str) -> None:
    programs = parted.data.parent / "programs"
    programs.mkdir(mode=0o755)
    for one in servers.programs.iterdir():
        if one.name != "pg_rewind":
            (programs / one.name).symlink_to(one)
    script = programs / "pg_rewind"
    real, copy = servers.programs / "pg_rewind", parted.data.with_name(".data.unfinished")
    script.write_text(FAILS.format(program=real, data=copy, end=end))
    script.chmod(0o755)
    files = [str(path) for path in sorted(parted.data.rglob("*"))]
    with pytest.raises(UserError, match=rf"failed: {why}\. Its data is as it was"):
        parted.directory.replace(binaries=str(programs)).update(parted.live())
    assert [str(path) for path in sorted(parted.data.rglob("*"))] == files
    assert parted.hidden() == []
    assert parted.set_aside() == []
    assert parted.granted() == []
    parted.directory.update(parted.live())
    parted.follows()


REWIND = """
import sys
from tde_replication.postgres.server_directory import ServerDirectory
declared = ServerDirectory.model_validate_json(sys.argv[1])
declared.update(declared.read())
"""


def begin(parted: Parted) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", REWIND, parted.directory.model_dump_json(by_alias=True)],
        cwd=PROJECT / "components",
        stderr=subprocess.DEVNULL,
    )


def of(parted: Parted) -> list[psutil.Process]:
    """The processes of a rewind."""
    found = []
    for process in psutil.process_iter():
        try:
            if ".data.unfinished" in " ".join(process.cmdline()) and str(parted.data.parent) in " ".join(
                process.cmdline()
            ):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("at", "goes_on"),
    [("the copy", "rewind"), ("the grant", "rewind"), ("pg_rewind", "rewind"), ("the grant", "clone")],
)
def test_a_killed_one_is_never_started_half_done_and_the_next_finishes(parted: Parted, at: str, goes_on: str) -> None:
    reached = {
        "the copy": lambda: bool(parted.hidden()),
        "the grant": lambda: parted.old.file(GRANTED).exists(),
        "pg_rewind": lambda: any("pg_rewind" in one.name() for one in of(parted) if lives(one)),
    }[at]
    caller = begin(parted)
    assert until(reached, seconds=30)
    mine = of(parted)
    caller.kill()
    caller.wait()
    assert until(lambda: not any(map(lives, mine)), seconds=10)
    live = parted.live()
    assert live.diverged, "what is there is as it was"
    assert not parted.old.running
    if goes_on == "rewind":
        parted.directory.update(live)
    else:
        clone = parted.directory.replace(rejoin="clone")
        assert clone.replacing(live) == {"follows"}
        live.delete()
        assert parted.granted() == []
        parted.directory = clone.create()
    parted.follows()
    assert parted.hidden() == []
    assert len(parted.set_aside()) == 1
    assert parted.granted() == []
    assert not parted.old.file(GRANTED).exists()


def test_a_swap_that_is_cut_off_is_followed_by_a_clone(parted: Parted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two renames, there is no data directory."""
    live = parted.live()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    rename = type(parted.old.host).rename
    monkeypatch.setattr(
        type(parted.old.host),
        "rename",
        lambda self, old, new: killed() if old.name == ".data.unfinished" else rename(self, old, new),
    )
    with pytest.raises(KeyboardInterrupt):
        parted.directory.update(live)
    monkeypatch.undo()
    assert parted.directory.read() is None
    parted.directory = parted.directory.create()
    parted.follows()
    assert len(parted.set_aside()) == 1
    assert parted.hidden() == []


def test_a_standbys_machine_takes_no_rights_from_other_roles(parted: Parted) -> None:
    """It can write whatever it likes into its own data directory."""
    parted.new.rows("CREATE ROLE monitor")
    parted.new.rows(f"GRANT EXECUTE ON FUNCTION {FUNCTIONS[0]} TO monitor")
    note = {"role": "monitor", "functions": list(FUNCTIONS), "database": "postgres"}
    parted.old.file(GRANTED).write_text(json.dumps(note))
    shutil.chown(parted.old.file(GRANTED), parted.data.owner(), parted.data.group())
    parted.directory.update(parted.live())
    assert parted.new.value("SELECT has_function_privilege('monitor', %s::text, 'EXECUTE')", [FUNCTIONS[0]])
    assert parted.granted() == []


def test_no_process_shows_the_password_and_only_the_rewind_may_read_files(parted: Parted) -> None:
    granted: list[list[str]] = []
    with watched("pg_rewind", lambda: granted.append(parted.granted())) as seen:
        parted.directory.update(parted.live())
    assert any("pg_rewind\0" in line for line in seen), "it did watch"
    assert not [line for line in seen if PASSWORD in line]
    assert list(FUNCTIONS) in granted
    assert parted.granted() == []
    assert PASSWORD not in parted.new.log
