"""Every row of the drift table, on the real engine: what the preview says, what `up` does, and that nothing is left to do."""

import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tde_replication import unasked
from tde_replication.records import FACTS
from tde_replication.review import as_text, read, review
from tests.engine.cluster import Cluster, base_directory
from tests.engine.drift import NO_DRIFT, REFUSALS, ROWS, Refusal, Row, batches_here, shown_and_repaired, started
from tests.engine.drift_actions import bounce, lose_wal, restart_primary
from tests.engine.workspace import Output, Workspace, eventually
from tests.openbao import OpenBao

SPELLINGS = {
    "wal_compression": "on",
    "TimeZone": "utc",
    "wal_buffers": "-1",
    "shared_buffers": "2048",
    "work_mem": "4096",
    "synchronous_commit": "true",
    "log_checkpoints": "of",
    "checkpoint_timeout": "600s",
    "wal_sync_method": "FDATASYNC",
}
"""Of which the server makes words of its own: declared so, none may ever show as drift."""


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = base_directory()
    workspace = Workspace(tmp_path_factory.mktemp("drift"), "drift", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=encrypted_binaries)
    made.workspace.cluster["servers"]["db1"]["settings"] = {"wal_level": "logical", **SPELLINGS}
    made.workspace.cluster["enforceEncryption"] = True
    made.workspace.cluster["tables"] = ["*.shop.*"]
    workspace.write(made.workspace.cluster)
    workspace.init()
    workspace.up_well()
    yield made
    workspace.unchanged()
    done = workspace.destroy()
    assert done.code == 0, done.text
    assert not [name for name in made.names if made.data(name).exists()]
    shutil.rmtree(base)


@pytest.fixture(autouse=True)
def whole(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no failure spoil the next test."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        cluster.workspace.up()


@pytest.mark.parametrize("rows", batches_here(ROWS), ids=lambda rows: " + ".join(map(str, rows)))
def test_drift_is_shown_and_repaired(cluster: Cluster, rows: list[Row]) -> None:
    shown_and_repaired(cluster, rows)
    eventually(lambda: cluster.streaming() == ["tde_db2", "tde_db3"])


@pytest.mark.parametrize(
    "refusal",
    [pytest.param(refusal, marks=[pytest.mark.soak] if refusal.slow else []) for refusal in REFUSALS],
    ids=str,
)
def test_what_is_not_ours_to_repair_is_refused(cluster: Cluster, refusal: Refusal) -> None:
    refusal.act(cluster)
    before = started(cluster)
    try:
        for run in (cluster.workspace.preview, cluster.workspace.up)[refusal.command != "preview" :]:
            done = run()
            assert done.code != 0
            assert refusal.says in done.text, done.errors
        assert started(cluster) == before
    finally:
        refusal.undo(cluster)
    cluster.workspace.up_well()
    eventually(lambda: cluster.streaming() == ["tde_db2", "tde_db3"])


def test_a_table_in_clear_is_shown_and_left(cluster: Cluster) -> None:
    workspace, shown = cluster.workspace, {"DatabaseEncryption encryption in postgres": "update"}
    cluster.sql("db1", "SET pg_tde.enforce_encryption = off; CREATE TABLE plain (a int) USING heap")
    preview = workspace.preview()
    assert preview.plan == shown
    assert "database postgres: in clear: public.plain. `up` encrypts only what `tables` declares" in preview.text
    assert '[0]: "public.plain"' in preview.words
    workspace.up_well()
    # Until somebody encrypts it.
    assert workspace.run("refresh", "--preview-only", "--expect-no-changes").code == 7
    assert workspace.preview().plan == shown
    cluster.sql("db1", "ALTER TABLE plain SET ACCESS METHOD tde_heap")
    workspace.unchanged()


PULL_REQUEST = """\
+- DataDirectory db3 (replace)
    ~ follows : "the WAL that it needs is gone" => "the primary"
+- ReplicationCheck db3 (replace)
    ~ madeAt : "…" => [unknown]
    ~ streaming : "no: nothing reads its slot" => "from its slot"
    ~ systemIdentifier: "…" => [unknown]
+- ReplicationSlot tde_db3 (replace)
    ~ walStatus : "lost" => "reserved"
+- Server db3 (replace)
    ~ madeAt : "…" => [unknown]
    ~ running : false => true
    ~ systemIdentifier: "…" => [unknown]
db3: a new base backup of db1, … MiB, about … s at the … MiB/s of its last base backup; the old data is removed
~ ReplicationRole replicator (update)
    ~ passwordMatches : false => true
"""


HEADING = re.compile(r"^ ?([~+-]+) ?\S+:\S+:(\w+): \((\S+)\)\n \[id=.*\]\n \[urn=.*::(.*)\]$", re.MULTILINE)


def reviewed(preview: Output) -> str:
    """What the preview plans and says of it, in one order and without what differs from run to run."""
    words = re.sub(r'"(\d{15,}|\d{4}-\d\d-\d\dT[\d:]+Z)"', '"…"', preview.words)
    words = measured(words)
    _, *steps = HEADING.split(words.partition("pulumi:pulumi:Stack: (same)")[2].partition("\nResources:")[0])
    found = [f"{line}\n" for line in re.findall(r"^ ?(db\d: .*)$", words, re.MULTILINE)]
    for sign, kind, step, name, rest in zip(*(steps[part::5] for part in range(5)), strict=True):
        changes = re.findall(r"^ ([~+-] .*)$", rest, re.MULTILINE)
        found.append("".join([f"{sign} {kind} {name} ({step})\n", *(f"    {line}\n" for line in changes)]))
    return "".join(sorted(found))


def measured(text: str) -> str:
    """Without what is another in every run."""
    return re.sub(r"about \d+ (s|min)", "about … s", re.sub(r"[\d.]+ MiB", "… MiB", text))


REVIEW = """\
drift: changes without interruption
  db3  a new base backup of db1, … MiB, about … s at the … MiB/s of its last base backup; the old data is removed
  db3  is started on its new data directory; it does not run now
changed behind Pulumi's back (found → after `up`):
  DataDirectory db3: it cannot follow: the WAL that it needs is gone → it is cloned again
  ReplicationCheck db3: whether it streams: no: nothing reads its slot → it is proved that it streams from its slot
  ReplicationRole replicator: its password was changed → it is set again; nobody is disconnected
  ReplicationSlot tde_db3: it has lost WAL that its standby needs → it is created again
  Server db3: it does not run → it is started
"""


def test_the_preview_of_a_pull_request(cluster: Cluster, tmp_path: Path) -> None:
    """The product: somebody changed the password, and db3 was away until its WAL was gone."""
    cluster.sql("db1", "ALTER ROLE replicator PASSWORD 'changed by hand'")
    lose_wal(cluster)
    cluster.workspace.environment |= {"PULUMI_DEBUG_COMMANDS": "true", FACTS: "true"}
    assert reviewed(cluster.workspace.preview("--event-log", str(tmp_path / "events"))) == PULL_REQUEST
    for name in ("PULUMI_DEBUG_COMMANDS", FACTS):
        del cluster.workspace.environment[name]
    preview = read((tmp_path / "events").read_text())
    assert {fact.kind: fact.of for fact in preview.facts if fact.of not in {"db2", "db3"}} == {
        "free": "db1",
        "key since": "drift-principal-key",
        "pg_tde": "drift-principal-key",
    }
    found = as_text([review(preview)])
    assert measured(found.partition("not known:")[0]) == REVIEW, found
    cluster.workspace.up_well()
    cluster.workspace.unchanged()


def test_an_untouched_cluster_under_load_shows_no_drift(cluster: Cluster) -> None:
    lagging(cluster, previews=3)


def test_a_slow_vault_is_no_drift_and_hinders_nobody(cluster: Cluster) -> None:
    token = cluster.file("db3", "vault-token")
    with cluster.bao.slow():
        cluster.workspace.unchanged()
        token.unlink()
        cluster.workspace.up_well()
    assert token.exists()
    cluster.workspace.unchanged()


@pytest.mark.soak
def test_a_hundred_previews_under_load_show_no_drift(cluster: Cluster) -> None:
    """With a standby that lags behind, logs that are rotated, and a restart of every server after each quarter."""
    for _ in range(4):
        lagging(cluster, previews=25)
        for name in ("db2", "db3"):
            bounce(name)(cluster)
        restart_primary(cluster)


def lagging(cluster: Cluster, previews: int) -> None:
    """Under load, while db3 replays nothing."""
    cluster.sql("db3", "ALTER SYSTEM SET recovery_min_apply_delay = '1h'; SELECT pg_reload_conf()")
    try:
        under_load(cluster, previews)
        lag = cluster.sql("db3", "SELECT pg_last_wal_replay_lsn() < pg_last_wal_receive_lsn()")
    finally:
        cluster.sql("db3", "ALTER SYSTEM RESET recovery_min_apply_delay; SELECT pg_reload_conf()")
    assert lag == [(True,)]


def under_load(cluster: Cluster, previews: int) -> None:
    """Preview again and again while tables are written, WAL files are switched and checkpoints made."""
    stop = threading.Event()

    def write() -> None:
        cluster.sql("db1", "CREATE TABLE IF NOT EXISTS load (t text) USING tde_heap")
        while not stop.wait(0.01):
            cluster.sql("db1", "INSERT INTO load SELECT repeat('x', 100) FROM generate_series(1, 5000)")
            cluster.sql("db1", "SELECT pg_switch_wal()")
            cluster.sql("db1", "CHECKPOINT")
            cluster.sql("db1", "SELECT pg_rotate_logfile()")

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for _ in range(previews):
                cluster.workspace.unchanged()
        finally:
            stop.set()
        writing.result()
    assert cluster.sql("db1", "SELECT count(*) > 0 FROM load") == [(True,)]


def test_what_is_no_drift_shows_none(cluster: Cluster) -> None:
    for _, _, act in NO_DRIFT:
        act(cluster)
        cluster.workspace.unchanged()


def test_what_cannot_be_asked_is_named_and_has_not_passed(cluster: Cluster, tmp_path: Path) -> None:
    """With the primary down, what lies inside it is not known: by a drift check, and above a plan."""
    workspace, file = cluster.workspace, tmp_path / "unasked"
    check = ("refresh", "--preview-only", "--expect-no-changes")
    workspace.environment[unasked.FILE] = str(file)
    try:
        assert workspace.run(*check).code == 0
        assert unasked.read(file) == []
        cluster.stop("db1")
        assert workspace.run(*check).code == 7
        missed = {what for what, _ in unasked.read(file)}
        assert {"ReplicationRole replicator", "ReplicationSlot tde_db2", "whether db3 streams"} <= missed, missed
        preview = workspace.preview()
    finally:
        del workspace.environment[unasked.FILE]
    assert "not everything could be checked, so this plan may miss something:" in preview.text
    assert preview.text.count("where the keys of the running cluster are") == 1, preview.text
    workspace.up_well()
    workspace.unchanged()
    assert "not everything could be checked" not in workspace.preview().text
