"""A standby's clone: whole or not there, and whether it can still follow; what its commands and logs give away."""

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import psutil
import pytest
from psycopg import sql

from tde_replication.errors import Conflict, Unavailable, UserError
from tde_replication.hosts.account import PROJECT
from tde_replication.postgres import starting
from tde_replication.postgres.base_backup import PRIMARY_ONCE, ClonedDirectory
from tde_replication.postgres.cleanup_record import CleanupRecord
from tde_replication.postgres.control import control_data
from tde_replication.postgres.data_directory import InitializedDirectory
from tde_replication.postgres.guc import quoted
from tde_replication.postgres.hba_rule import HbaRule
from tde_replication.postgres.replication_check import ReplicationCheck
from tde_replication.postgres.replication_role import ReplicationRole
from tde_replication.postgres.replication_slot import ReplicationSlot
from tde_replication.postgres.upstream import passfile
from tde_replication.progress import reported_to
from tde_replication.waiting import until
from tests.processes import lives, pid_lives, watched
from tests.providers.servers import PASSWORD, STACK, Node, Servers, cost_of, text_of
from tests.removal import removed_under_its_server


def follows(clone: ClonedDirectory) -> str:
    live = clone.read()
    assert live is not None
    return live.follows


def check(primary: Node, standby: Node) -> ReplicationCheck:
    clone = standby.directory
    assert isinstance(clone, ClonedDirectory)
    return ReplicationCheck.model_validate(
        {
            **standby.inside,
            "made_at": clone.made_at,
            "standby": standby.server.name,
            "slot": clone.slot,
            "primary_host": "local",
            "primary_directory": str(primary.data),
        }
    )


@pytest.fixture(scope="module")
def standby(servers: Servers, primary: Node) -> Iterator[Node]:
    made = servers.standby(primary)
    yield made
    made.stop()
    clone = made.directory
    assert isinstance(clone, ClonedDirectory)
    ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot}).delete()


def test_without_pg_tde_no_database_of_its_own_is_needed(primary: Node, standby: Node) -> None:
    proof = check(primary, standby).replace(database="nowhere")
    assert proof.read() == proof.create() == proof


def test_a_slot_that_another_standby_streams_from_is_left_to_it(primary: Node, standby: Node) -> None:
    clone = standby.directory
    assert isinstance(clone, ClonedDirectory)
    place = {"standby_host": "local", "standby_directory": clone.data_directory}
    slot = ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot, **place, "stack": STACK})
    assert check(primary, standby).create()
    assert slot.create() == slot  # its own standby: Pulumi's state of it was lost
    assert not slot.is_free
    for other in ({"stack": "tde-replication/other/other"}, {"standby_directory": f"{clone.data_directory}2"}):
        with pytest.raises(Conflict, match="something else streams from a slot of this name: it is left as it is"):
            slot.replace(**other).create()


def test_a_claim_takes_nothing_of_another_stack(primary: Node, standby: Node, servers: Servers) -> None:
    clone = standby.directory
    assert isinstance(clone, ClonedDirectory)
    role = ReplicationRole.model_validate({**primary.inside, "role": "replicator", "password": PASSWORD})
    primary.rows("COMMENT ON ROLE replicator IS 'made by tde-replication for one: standbys log in as this role'")
    CleanupRecord.model_validate(
        {
            **dict.fromkeys(("host", "primary_host"), "local"),
            "name": "db2",
            "data_directory": str(servers.place()),
            "binaries": str(servers.programs),
            "stack": "two",
            "slot": clone.slot,
            "role": "replicator",
            "clients": ["127.0.0.1/32"],
            "primary_directory": str(primary.data),
            "primary_identifier": primary.directory.system_identifier,
        }
    ).delete()
    assert role.maker == "one"
    assert HbaRule.model_validate({**primary.inside, "role": "replicator", "address": "127.0.0.1/32"}).is_marked
    assert check(primary, standby).create()


def test_a_standby_that_streams(primary: Node, standby: Node) -> None:
    clone = standby.directory
    assert clone.read() == clone
    assert clone.create() == clone
    assert standby.server.read() == standby.server
    proof = check(primary, standby)
    assert proof.create() == proof
    assert proof.read() == proof
    primary.rows("CREATE TABLE copied AS SELECT 42 AS answer")
    proof.create()
    assert standby.value("SELECT answer FROM copied") == 42
    assert standby.value("SELECT pg_is_in_recovery()") is True
    primary.rows("DROP TABLE copied")


def test_what_a_new_clone_costs_is_told_before(servers: Servers, standby: Node) -> None:
    """In the preview: how much is copied, and what becomes of the old data."""
    assert isinstance(standby.directory, ClonedDirectory)
    there = standby.directory.replace(backup_rate=None)
    size = r"db2: a new base backup of db1, \d+\.\d MiB"
    for disposable, becomes in ((True, "removed"), (False, "set aside")):
        cost = cost_of(there.replace(name="db2", disposable=disposable), there)
        assert cost
        assert (cost.kind, cost.server, cost.loses) == ("clone", "db2", "")
        assert re.fullmatch(f"{size}; the old data is {becomes}", cost.text), cost
    assert cost_of(there, None) is None  # taken over
    nowhere = there.replace(name="db2", data_directory=str(servers.place("nowhere")))
    new = cost_of(nowhere, None)
    assert new
    assert re.fullmatch(size, new.text)
    assert 0 < (new.size or 0) < (new.free or 0)


def test_a_clone_that_was_measured_says_how_long_the_next_one_takes(servers: Servers, standby: Node) -> None:
    """The standby of these tests was cloned just now, and pg_basebackup said how much that was."""
    clone = standby.directory
    assert isinstance(clone, ClonedDirectory)
    assert clone.backup_rate
    nowhere = clone.replace(name="db2", data_directory=str(servers.place("nowhere")))
    told = cost_of(nowhere, None)
    assert told
    assert re.search(r"MiB, about \d+ s at the \d+\.\d MiB/s of its last base backup$", told.text), told
    assert told.seconds
    assert told.seconds * clone.backup_rate == pytest.approx(told.size, rel=0.01)
    unknown = cost_of(nowhere.replace(backup_rate=None), None)
    assert unknown
    assert (unknown.seconds, "about" in unknown.text) == (None, False)


def test_the_speed_of_a_base_backup_is_known_as_long_as_the_directory(standby: Node) -> None:
    """It is no difference, and a state of an earlier version is without it."""
    clone = standby.directory
    assert isinstance(clone, ClonedDirectory)
    live = clone.read()
    assert live
    assert live.backup_rate == clone.backup_rate
    earlier = clone.model_dump(exclude={"backup_rate"})
    before = ClonedDirectory.model_validate(earlier)
    assert before.backup_rate is None
    assert clone.changed(before) == set()
    assert not clone.stores(before)


def test_a_clone_over_data_that_the_primary_has_not_loses_it(standby: Node) -> None:
    there = standby.directory
    assert isinstance(there, ClonedDirectory)
    promoted = there.replace(follows=PRIMARY_ONCE)
    losses = [cost_of(there.replace(disposable=disposable), promoted) for disposable in (True, False)]
    assert [PRIMARY_ONCE in cost.loses for cost in losses if cost] == [True, False]


def test_a_clone_tells_its_progress(servers: Servers, primary: Node) -> None:
    clone = servers.clone(primary)
    said: list[str] = []
    with reported_to(lambda text, _: said.append(text)):
        made = clone.create()
    assert said[-1].startswith("base backup of db1: ")
    assert "(100 %)" in said[-1]
    made.delete()
    ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot}).delete()


def test_no_process_shows_the_password_during_a_clone(servers: Servers, primary: Node) -> None:
    clone = servers.clone(primary)
    with watched("pg_basebackup") as seen:
        made = clone.create()
    assert any("pg_basebackup\0" in line for line in seen)  # it did watch
    assert not [line for line in seen if PASSWORD in line]
    files = [*Path(made.data_directory).rglob("postgresql*.conf"), Path(made.data_directory) / "standby.signal"]
    assert not [file for file in files if file.exists() and PASSWORD in file.read_text()]
    assert PASSWORD not in primary.log
    made.delete()
    ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot}).delete()


def test_a_wrong_password_is_told_and_leaves_nothing(servers: Servers, primary: Node) -> None:
    clone = servers.clone(primary)
    Path(clone.upstream.passfile).write_text("*:*:*:*:wrong-password\n")
    with pytest.raises(UserError) as told:
        clone.create()
    text = str(told.value)
    assert 'password authentication failed for user "replicator"' in text
    assert "Nothing of it is left; `up` tries again" in text
    assert "\n" not in text
    assert "wrong-password" not in text
    assert clone.read() is None
    assert not list(Path(clone.data_directory).parent.glob(".data*"))
    primary.host.write(PurePosixPath(clone.upstream.passfile), passfile("replicator", PASSWORD), mode=0o600)
    made = clone.create()
    assert follows(made) == "the primary"
    made.delete()
    ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot}).delete()


CLONE = """
import sys
from tde_replication.postgres.base_backup import ClonedDirectory
ClonedDirectory.model_validate_json(sys.argv[1]).create()
"""


def test_a_killed_caller_leaves_no_process_no_slot_in_use_and_nothing_taken_for_whole(
    servers: Servers, primary: Node
) -> None:
    clone = servers.clone(primary)
    caller = subprocess.Popen(
        [sys.executable, "-c", CLONE, clone.model_dump_json(by_alias=True)], cwd=PROJECT, stderr=subprocess.DEVNULL
    )
    draft = Path(clone.data_directory).with_name(".data.unfinished")
    assert until(lambda: draft.exists() and any(draft.iterdir()), seconds=30)
    mine = [p for p in psutil.process_iter() if belongs(p, clone)]
    caller.kill()
    caller.wait()
    assert until(lambda: not any(map(lives, mine)), seconds=10)
    if draft.exists():
        assert clone.read() is None
    made = clone.create()  # it waits for the slot, and uses it again
    assert follows(made) == "the primary"
    assert not draft.exists()
    made.delete()
    ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot}).delete()


def belongs(process: psutil.Process, clone: ClonedDirectory) -> bool:
    try:
        return any(clone.slot in word for word in process.cmdline()) and "pg_basebackup" in process.name()
    except psutil.Error:
        return False


def test_what_cannot_be_followed_any_more(servers: Servers, primary: Node) -> None:
    made = servers.standby(primary, "lost")
    clone = made.directory
    assert isinstance(clone, ClonedDirectory)
    assert follows(clone) == "the primary"
    other = clone.replace(primary_identifier="1")
    assert "clone of another cluster" in follows(other)
    assert other.changed(other.read() or other) == {"follows"} <= ClonedDirectory.replaced_by
    made.stop()
    ahead = replace(clone.control(), timeline=9)
    assert clone._hindrance(ahead) == "it is on timeline 9, the primary on 1"
    made.server.update(made.server.replace(running=False))

    made.rows("SELECT pg_promote()")
    assert until(lambda: made.value("SELECT pg_is_in_recovery()") is False, seconds=20)
    made.rows("CHECKPOINT")
    assert follows(clone) == "it was promoted, or started without standby.signal"
    live = made.server.read()
    assert live is not None
    assert "recovery" in made.server.changed(live)
    made.stop()
    assert follows(clone) == "it was promoted, or started without standby.signal"
    # Create again: ours, and no good: a new clone takes its place.
    again = clone.create()
    assert again.made_at != clone.made_at or again.read() == again
    assert follows(again) == "the primary"
    again.delete()
    ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot}).delete()


def test_a_promoted_standby_whose_data_is_the_primarys_by_now_is_not_taken_away(
    servers: Servers, primary: Node
) -> None:
    """The stack file followed a failover: the clone's resource goes, and the server that was made of it stays."""
    made = servers.standby(primary, "successor")
    clone = made.directory
    assert isinstance(clone, ClonedDirectory)
    made.rows("SELECT pg_promote()")
    assert until(lambda: made.value("SELECT pg_is_in_recovery()") is False, seconds=20)
    kept = InitializedDirectory.model_validate(clone.model_dump(exclude={"origin"}))
    assert kept.create().made_at == clone.made_at
    clone.delete()
    assert made.running
    kept.delete()
    assert not made.file("PG_VERSION").exists()
    ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot}).delete()


def test_a_standby_that_has_wal_of_its_own(servers: Servers, primary: Node) -> None:
    """As one that was started without its signal file, or whose primary came back from an older copy of its disk."""
    made = servers.standby(primary, "ahead")
    clone = made.directory
    assert isinstance(clone, ClonedDirectory)
    made.stop()
    made.file("standby.signal").unlink()
    made.server.replace(recovery="none").update(made.server.replace(running=False, recovery="none"))
    made.rows("CREATE TABLE own AS SELECT generate_series(1, 100000)")
    made.rows("CHECKPOINT")
    made.stop()
    made.file("standby.signal").touch()
    made.server.update(made.server.replace(running=False))
    assert not clone.control().left_recovery, "its control file is a standby's again"
    told = r"it has WAL up to \S+ of timeline 1, which ends at \S+ on the primary"
    assert re.fullmatch(told, follows(clone))
    made.stop()
    assert re.fullmatch(told, follows(clone))
    ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot}).delete()
    clone.delete()


def test_a_standby_follows_its_primary_to_another_timeline_unless_it_went_further(servers: Servers) -> None:
    first = servers.primary("first", max_wal_senders="6")
    middle, last, astray = (servers.standby(first, name) for name in ("middle", "last", "astray"))
    for each in (middle, last, astray):
        assert until(lambda each=each: each.value("SELECT pg_last_wal_receive_lsn() IS NOT NULL"), seconds=20)  # type: ignore[misc]
    last.stop()
    middle.rows("SELECT pg_promote()")
    assert until(lambda: middle.value("SELECT pg_is_in_recovery()") is False, seconds=20)
    first.rows("CREATE TABLE after_the_fork AS SELECT generate_series(1, 1000)")
    end = first.value("SELECT pg_current_wal_flush_lsn()::text")
    assert until(lambda: astray.value("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [end]), seconds=20)

    def seen_from_middle(node: Node) -> str:
        clone = node.directory
        assert isinstance(clone, ClonedDirectory)
        ReplicationSlot.model_validate({**middle.inside, "slot": clone.slot}).create()
        return follows(clone.replace(primary_directory=str(middle.data)))

    assert seen_from_middle(last) == "the primary"
    assert re.fullmatch(
        r"it has WAL up to \S+ of timeline 1, which ends at \S+ on the primary", seen_from_middle(astray)
    )
    for each in (middle, last, astray, first):
        each.stop()
        each.directory.delete()


def test_a_switch_of_wal_files_just_replayed_is_no_wal_of_its_own(servers: Servers) -> None:
    """A record that ends a WAL file counts up to the file's end for who replays it, and on the primary once all of it is written:
    not yet where others commit meanwhile."""
    primary = servers.primary("switching", wal_buffers="4MB", wal_writer_delay="1ms")
    standby = servers.standby(primary, "switched")
    clone = standby.directory
    assert isinstance(clone, ClonedDirectory)
    stop = threading.Event()

    def repeat(*queries: bytes) -> None:
        with primary.host.connect(primary.data, "postgres") as session:
            while not stop.is_set():
                for query in queries:
                    session.execute(query)

    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(repeat, b"SELECT txid_current()") for _ in range(2)]
        writing.append(pool.submit(repeat, b"SELECT txid_current()", b"SELECT pg_switch_wal()"))
        try:
            seen = {follows(clone) for _ in range(100)}
        finally:
            stop.set()
        for each in writing:
            each.result()
    assert seen == {"the primary"}
    standby.stop()
    clone.delete()
    primary.stop()


def test_a_slot_given_up_for_idleness_costs_no_clone(servers: Servers) -> None:
    primary = servers.primary("idle", idle_replication_slot_timeout="1s")
    made = servers.standby(primary, "idling")
    clone = made.directory
    assert isinstance(clone, ClonedDirectory)
    made.stop()
    slot = ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot})

    def is_lost() -> bool:
        primary.rows("CHECKPOINT")
        return slot.changed(slot.read() or slot) == {"wal_status"}

    assert until(is_lost, seconds=20)
    assert follows(clone) == "the primary"
    for each in (made, primary):
        each.stop()
        each.directory.delete()


def test_a_clone_that_does_not_fit_leaves_the_old_data_where_it_is(
    primary: Node, standby: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = standby.directory
    assert isinstance(clone, ClonedDirectory)
    lost = clone.replace(follows="nothing: lost", disposable=False)
    kept = clone.replace(disposable=False)
    assert kept.refusal(lost) is None
    monkeypatch.setattr(ClonedDirectory, "_needed", lambda _: 2.0**60)
    told = rf"needs a new clone \(nothing: lost\): 1048576.0 TiB beside its old data in {re.escape(str(clone.path))}, which is"
    assert re.search(told, kept.refusal(lost) or "")
    assert clone.refusal(lost) is None, "that of a disposable stack makes room"
    assert kept.refusal(kept) is None
    elsewhere = clone.replace(data_directory=str(clone.path.parent / "new" / "data"))
    for cost in (cost_of(kept, lost), cost_of(elsewhere, None)):
        assert cost
        assert "it will not fit" in cost.text
        assert (cost.free or 0) < (cost.size or 0)
    assert primary.running


def test_a_slot_made_anew_does_not_bring_back_wal_that_is_gone(servers: Servers) -> None:
    """As a new clone that was cut off leaves it: the slot is new, the standby the old one."""
    primary = servers.primary("forgets")
    made = servers.standby(primary, "late")
    clone = made.directory
    assert isinstance(clone, ClonedDirectory)
    slot = ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot})
    made.stop()
    slot.delete()
    for _ in range(3):
        switch_wal(primary)
    primary.rows("CHECKPOINT")
    slot.create()
    assert slot.read() == slot
    assert follows(clone) == "the WAL that it needs is gone"
    made.server.update(made.server.replace(running=False))
    assert until(lambda: follows(clone) == "the WAL that it needs is gone", seconds=20)


def test_a_stopped_standby_that_has_the_wal_itself_can_follow(servers: Servers) -> None:
    primary = servers.primary("forgets too")
    made = servers.standby(primary, "has it")
    clone = made.directory
    assert isinstance(clone, ClonedDirectory)
    for _ in range(3):
        switch_wal(primary)
    check(primary, made).create()
    redo = clone.control().redo_wal_file
    made.stop()
    slot = ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot})
    slot.delete()
    primary.rows("CHECKPOINT")
    assert redo not in [name for (name,) in primary.rows("SELECT name FROM pg_ls_waldir()")]
    assert follows(clone) == "the primary"
    slot.create()
    made.server.update(made.server.replace(running=False))
    check(primary, made).create()
    assert follows(clone) == "the primary"


def switch_wal(primary: Node) -> None:
    primary.rows("SELECT pg_logical_emit_message(true, '', 'x')")
    primary.rows("SELECT pg_switch_wal()")


def test_only_a_clone_without_a_control_file_is_condemned(servers: Servers, primary: Node) -> None:
    """Not one whose programs are missing, or whose disk hangs: it would be replaced for nothing."""
    clone = servers.clone(primary).create()
    with pytest.raises(Unavailable, match="pg_controldata failed "):
        clone.replace(binaries="/nowhere").read()
    assert follows(clone) == "the primary"
    (Path(clone.data_directory) / "global" / "pg_control").unlink()
    assert follows(clone) == "nothing: it is not a data directory"
    clone.delete()
    ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot}).delete()


def test_a_clone_can_be_read_while_its_primary_is_down(servers: Servers) -> None:
    primary = servers.primary("short")
    clone = servers.clone(primary)
    made = clone.create()
    primary.stop()
    assert made.read() == made
    with pytest.raises(UserError, match="no server runs on"):
        clone.replace(data_directory=str(servers.place())).create()


def test_somebody_elses_directory_is_refused(servers: Servers, primary: Node) -> None:
    clone = servers.clone(primary)
    path = Path(clone.data_directory)
    path.mkdir(parents=True)
    (path / "precious").touch()
    with pytest.raises(Conflict, match="was not made by this stack"):
        clone.create()
    assert [entry.name for entry in path.iterdir()] == ["precious"]
    ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot}).delete()


def test_a_slot_in_use_by_something_else_is_told(
    servers: Servers, standby: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tde_replication.postgres.base_backup.SLOT_DEADLINE", 0.2)
    used = standby.directory
    assert isinstance(used, ClonedDirectory)
    with pytest.raises(UserError, match=rf"slot {used.slot} is in use by the server process \d+ of the primary"):
        used.replace(data_directory=str(servers.place())).create()


def test_a_stopped_or_slotless_standby_does_not_pass_for_streaming(
    primary: Node, standby: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tde_replication.postgres.replication_check.STREAM_DEADLINE", 0.3)
    proof = check(primary, standby)
    standby.stop()
    assert until(lambda: proof.changed(proof.read()) == {"streaming"}, seconds=10)
    with pytest.raises(UserError, match=r"does not stream from slot .*: no server runs on") as told:
        proof.create()
    assert "\n" not in str(told.value)
    standby.server.update(standby.server.replace(running=False))
    monkeypatch.undo()
    proof.create()


def test_paused_replay_is_shown_and_goes_on(primary: Node, standby: Node) -> None:
    standby.rows("SELECT pg_wal_replay_pause()")
    assert until(lambda: standby.value("SELECT pg_get_wal_replay_pause_state()") != "not paused", seconds=10)
    live = standby.server.read()
    assert live is not None
    assert standby.server.changed(live) == {"replay"}
    standby.server.update(live)
    assert standby.server.read() == standby.server
    check(primary, standby).create()


def test_replay_that_paused_itself_for_a_higher_value_of_the_primary_goes_on(servers: Servers) -> None:
    primary = servers.primary("raised")
    standby = servers.standby(primary, "too low")
    primary.rows("ALTER SYSTEM SET max_locks_per_transaction = 80")
    starting.restart(primary.server, primary.server.name, primary.server.binaries)
    assert until(lambda: standby.value("SELECT pg_is_wal_replay_paused()"), seconds=30)
    live = standby.server.read()
    assert live is not None
    assert standby.server.changed(live) == {"replay"}
    assert "will be restarted: max_locks_per_transaction" in text_of(cost_of(standby.server, live))
    assert "restart: refused" in (standby.server.replace(restart="refused").refusal(live) or "")
    standby.server.update(live)
    assert standby.value("SHOW max_locks_per_transaction") == "80"
    assert standby.server.read() == standby.server
    check(primary, standby).create()


def test_a_standby_that_replays_late_because_it_is_told_to(primary: Node, standby: Node) -> None:
    """What has arrived is proved; after a restart it asks for more once it has replayed what it has."""
    proof, server = check(primary, standby), standby.server
    standby.rows("ALTER SYSTEM SET recovery_min_apply_delay = '1h'")
    standby.rows("SELECT pg_reload_conf()")
    assert until(lambda: standby.value("SHOW recovery_min_apply_delay") == "1h", seconds=10)
    proof.create()
    assert until(
        lambda: (
            standby.value("SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'")
            == "RecoveryApplyDelay"
        ),
        seconds=20,
    )
    standby.stop()
    starting.start(server, server.name, server.binaries)
    assert not standby.rows("SELECT 1 FROM pg_stat_wal_receiver")
    assert proof.read() == proof, "no drift"
    told: list[str] = []
    with reported_to(lambda text, kept: told.append(text) if kept else None):
        proof.create()
    late = "it replays its local WAL with a delay of 1h (recovery_min_apply_delay) before it streams"
    assert told == [f"standby {server.name} was not verified: {late}"]
    standby.rows("ALTER SYSTEM RESET recovery_min_apply_delay")
    standby.rows("SELECT pg_reload_conf()")
    proof.create()


def test_nothing_is_known_of_a_standby_whose_primary_is_down(servers: Servers) -> None:
    primary = servers.primary("down")
    standby = servers.standby(primary, "alone")
    proof = check(primary, standby)
    proof.create()
    primary.stop()
    assert proof.changed(proof.read()) == {"streaming"}
    for each in (standby, primary):
        each.stop()
        each.directory.delete()


def test_a_lost_signal_file_is_put_back_before_the_next_start_makes_a_primary_of_it(standby: Node) -> None:
    standby.file("standby.signal").unlink()
    live = standby.server.read()
    assert live is not None
    assert standby.server.changed(live) == {"recovery"}
    standby.server.update(live)
    assert standby.file("standby.signal").exists()
    assert standby.server.read() == standby.server


def test_a_connection_string_that_points_elsewhere_is_put_back(primary: Node, standby: Node) -> None:
    standby.rows("ALTER SYSTEM SET primary_conninfo = 'host=nowhere.invalid'")
    standby.rows("SELECT pg_reload_conf()")
    server = standby.server
    assert until(lambda: server.changed(server.read() or server) == {"settings"}, seconds=10)
    server.update(server.read() or server)
    assert server.read() == server
    check(primary, standby).create()


def test_a_standby_killed_while_it_streams_comes_back(primary: Node, standby: Node) -> None:
    found = standby.host.postmaster(standby.data)
    assert found
    psutil.Process(found.pid).kill()
    assert until(lambda: not standby.running or not pid_lives(found.pid), seconds=10)
    standby.server.update(standby.server.replace(running=False))
    check(primary, standby).create()


def test_a_slot_is_dropped_though_a_standby_streams_from_it(servers: Servers, primary: Node) -> None:
    made = servers.standby(primary, "quick")
    clone = made.directory
    assert isinstance(clone, ClonedDirectory)
    made.stop()
    slot = ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot})
    slot.delete()
    assert slot.read() is None
    assert "slot" not in json.dumps(follows(clone))  # its WAL is still there: a new slot will do
    clone.delete()


def test_control_data_of_a_real_directory(standby: Node, primary: Node) -> None:
    found = control_data(standby.host, PurePosixPath(standby.server.binaries), standby.data)
    assert found.system_identifier == primary.directory.system_identifier
    assert not found.left_recovery
    assert found.timeline == 1


def test_a_clone_obeys_no_file_that_was_written_for_another_server(servers: Servers, root: Path) -> None:
    """It would stop at a recovery target, take no connections, start on the primary's directory, write into its archive."""
    origin = servers.primary("origin")
    outside = root / "conf.d"
    rules = outside / "rules"
    files = {
        "data_directory": str(origin.data),
        "hba_file": str(rules),
        "external_pid_file": str(outside / "origin.pid"),
        "hot_standby": "off",
        "recovery_target_timeline": "current",
        "archive_mode": "on",
        "archive_command": "exit 1",
        "log_line_prefix": "%m it's \\ ",
        "Work_Mem": "7MB",
    }
    origin.host.write(PurePosixPath(rules), b"# from outside\n" + origin.file("pg_hba.conf").read_bytes(), mode=0o600)
    text = "".join(f"{name} = {quoted(value)}\n" for name, value in files.items())
    origin.host.write(PurePosixPath(outside / "one.conf"), text.encode(), mode=0o600)
    with origin.file("postgresql.conf").open("a") as conf:
        conf.write(f"include_dir = {quoted(str(outside))}\n")
    for name, value in {
        "recovery_target": "immediate",
        "recovery_target_action": "promote",
        "restore_command": "exit 1",
        "synchronous_standby_names": "nobody",
        "log_directory": str(root / "log"),
        "maintenance_work_mem": "70MB",
    }.items():
        origin.rows(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))
    origin.stop()
    origin.server.create()
    said: list[str] = []
    with reported_to(lambda text, kept: said.append(text) if kept else None):
        made = servers.clone(origin).replace(origin="base backup of origin", name="copy").create()
    [told] = said
    assert told == (
        "copy does not take over from origin: archive_command, archive_mode (two servers would write into one archive); "
        "hot_standby (a standby that takes no connections cannot be checked); log_directory (two servers would write into one "
        "directory); recovery_target, recovery_target_action, recovery_target_timeline (the clone would stop there, or become a "
        "primary); restore_command (it belongs to a recovery of the primary); synchronous_standby_names (once promoted, it would "
        "wait for servers that follow the primary). Declare it in its settings to have it there"
    )
    copy = servers.on_clone(made, "copy", origin)
    assert follows(made) == "the primary"
    shown = {
        "data_directory": str(copy.data),
        "hba_file": f"{copy.data}/pg_hba.conf",
        "log_line_prefix": files["log_line_prefix"],
        "work_mem": "7MB",
        "maintenance_work_mem": "70MB",
        "recovery_target": "",
        "restore_command": "",
        "archive_mode": "off",
    }
    assert {name: copy.value(f"SHOW {name}") for name in shown} == shown
    assert copy.file("pg_hba.conf").read_text().startswith("# from outside\n")
    assert check(origin, copy).create()
    assert origin.running


def test_files_that_a_clone_could_not_start_with_are_told_before_it_is_made(servers: Servers, primary: Node) -> None:
    clone = servers.clone(primary)
    conf, rules = primary.file("postgresql.conf"), primary.file("pg_hba.conf")
    before = conf.read_text(), rules.read_text()
    other = Path(primary.data).parent / "others.rules"
    primary.host.write(PurePosixPath(other), b"host all all 192.0.2.1/32 reject\n", mode=0o600)
    try:
        with conf.open("a") as file:
            file.write("wal_level_ = minimal\n")
        with rules.open("a") as file:
            file.write(f'include "{other}"\n')
        with pytest.raises(UserError) as told:
            clone.create()
    finally:
        conf.write_text(before[0])
        rules.write_text(before[1])
    text = str(told.value)
    assert "is wrong (unrecognized configuration parameter" in text
    assert f"{rules} on the primary includes {other}, which is outside of the data directory" in text
    assert clone.read() is None
    ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot}).delete()


def test_a_tablespace_in_the_way_is_told_and_nobody_is_told_to_empty_it(servers: Servers) -> None:
    """On one machine it is the primary's own directory."""
    origin = servers.primary("origin2")
    with TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        fast = f"{place}/fast disk"
        origin.host.make_directory(PurePosixPath(fast))
        shutil.chown(fast, origin.host.account)
        origin.rows(sql.SQL("CREATE TABLESPACE fast LOCATION {}").format(sql.Literal(fast)))
        clone = servers.clone(origin).replace(name="db2")
        with pytest.raises(UserError) as told:
            clone.create()
        assert "is never written over. Find out whose files these are, move them to another place" in str(told.value)
        assert "empty that" not in str(told.value)
        origin.host.make_directory(clone.path / "base")
        assert clone.refusal(clone.replace(follows="nothing: it is not a data directory")) == (
            f"db2 needs a new clone (nothing: it is not a data directory): tablespace fast is cloned to {fast}, which is not "
            f"empty: "
            "stop db2, move what is there away. Nothing is changed"
        )
        origin.stop()


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
def test_a_directory_that_is_removed_under_its_server_is_cloned_again(
    servers: Servers, primary: Node, *, replaced: bool
) -> None:
    """PostgreSQL looks for its lock file once a minute; until then the server runs on, and has the port."""
    made = servers.standby(primary, "orphaned")
    clone = made.directory
    assert isinstance(clone, ClonedDirectory)
    running = made.host.postmaster(made.data)
    assert running
    removed_under_its_server(Path(made.data))
    if replaced:
        made.host.make_directory(made.data)
    assert clone.read() is None
    assert "its former directory was removed under its server, which is stopped" in text_of(cost_of(clone, None))
    found = made.host.postmaster(made.data)
    assert found
    assert (found.pid, found.lost, made.running) == (running.pid, True, True)
    again = clone.create()
    assert made.host.postmaster(made.data) is None
    node = Node(again, made.server.replace(made_at=again.made_at))
    node.server.create()
    assert node.value("SELECT pg_is_in_recovery()") is True
    node.stop()
    ReplicationSlot.model_validate({**primary.inside, "slot": clone.slot}).delete()
    again.delete()
