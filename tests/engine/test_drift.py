"""Every row of the drift table, on the real engine: what the preview says, what `up` does, and that nothing is left to do."""

import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import pytest

from tests.engine.cluster import Cluster, base_directory
from tests.engine.drift import NO_DRIFT, REFUSALS, ROWS, Refusal, Row
from tests.engine.workspace import Workspace, eventually
from tests.openbao import OpenBao

BATCHES = [list(rows) for _, rows in groupby(ROWS, key=lambda row: row.batch or str(row))]


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = base_directory()
    workspace = Workspace(tmp_path_factory.mktemp("drift"), "drift", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=encrypted_binaries)
    made.workspace.cluster["primary"]["settings"] = {"wal_level": "logical"}
    workspace.write(made.workspace.cluster)
    workspace.init()
    workspace.up_well()
    yield made
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


@pytest.mark.parametrize("rows", BATCHES, ids=lambda rows: " + ".join(map(str, rows)))
def test_drift_is_shown_and_repaired(cluster: Cluster, rows: list[Row]) -> None:
    for row in rows:
        row.act(cluster)
        row.check(cluster)
    preview = cluster.workspace.preview()
    assert preview.code == 0, preview.errors
    assert preview.plan == {resource: step for row in rows for resource, step in row.planned(cluster).items()}
    assert [words for row in rows for words in row.unsaid(cluster, preview.words)] == [], preview.changes
    cluster.workspace.up_well()
    cluster.workspace.unchanged()
    eventually(lambda: cluster.streaming() == ["tde_db2", "tde_db3"])


@pytest.mark.parametrize(
    "refusal",
    [pytest.param(refusal, marks=[pytest.mark.soak] if refusal.slow else []) for refusal in REFUSALS],
    ids=str,
)
def test_what_is_not_ours_to_repair_is_refused(cluster: Cluster, refusal: Refusal) -> None:
    refusal.act(cluster)
    try:
        done = cluster.workspace.preview() if refusal.command == "preview" else cluster.workspace.up()
        assert done.code != 0
        assert any(refusal.says in line for line in done.errors), done.errors
    finally:
        refusal.undo(cluster)
    cluster.workspace.up_well()
    cluster.workspace.unchanged()
    eventually(lambda: cluster.streaming() == ["tde_db2", "tde_db3"])


def test_an_untouched_cluster_under_load_shows_no_drift(cluster: Cluster) -> None:
    under_load(cluster, previews=3)


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
    under_load(cluster, previews=100)


def under_load(cluster: Cluster, previews: int) -> None:
    """Preview again and again while tables are written, WAL files are switched and checkpoints made."""
    stop = threading.Event()

    def write() -> None:
        cluster.sql("db1", "CREATE TABLE IF NOT EXISTS load (t text) USING tde_heap")
        while not stop.wait(0.01):
            cluster.sql("db1", "INSERT INTO load SELECT repeat('x', 100) FROM generate_series(1, 5000)")
            cluster.sql("db1", "SELECT pg_switch_wal()")
            cluster.sql("db1", "CHECKPOINT")

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
