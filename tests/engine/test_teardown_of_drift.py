"""`destroy` of a cluster that has drifted, in every way that the table of drift knows: it takes away all that is ours."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.engine.cluster import Cluster, base_directory, discard
from tests.engine.drift import REFUSALS, ROWS, Refusal, Row, batches_here
from tests.engine.interruption import strays_gone
from tests.engine.workspace import Output, Workspace
from tests.openbao import OpenBao

pytestmark = pytest.mark.soak

MOUNT = "tde-drift"
LEAVE = "TDE_REPLICATION_LEAVE_UNREACHABLE"


WAYS = {True: "disposable", False: "kept"}
THEIRS = {
    "another cluster in its place": ("data", "put-aside"),
    "a directory in its place": ("drift.vault-token",),
}
"""What somebody put there, by what they did: it stays."""


@pytest.fixture
def cluster(
    openbao: OpenBao, encrypted_binaries: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Cluster]:
    """One primary, with a table that is encrypted, and two standbys."""
    base = base_directory()
    workspace = Workspace(tmp_path, "drift", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=encrypted_binaries, disposable=request.param)
    workspace.cluster["servers"]["db1"]["settings"] = {"wal_level": "logical"}
    workspace.write(workspace.cluster)
    workspace.init()
    workspace.up_well()
    made.sql("db1", "CREATE TABLE t USING tde_heap AS SELECT 42 AS a")
    yield made
    strays_gone(made)
    discard(made, "elsewhere")


@pytest.mark.parametrize("cluster", WAYS, indirect=True, ids=WAYS.values())
@pytest.mark.parametrize("rows", batches_here(ROWS), ids=lambda rows: " + ".join(map(str, rows)))
def test_all_that_is_ours_goes(cluster: Cluster, rows: Sequence[Row]) -> None:
    for row in rows:
        row.act(cluster)
        row.check(cluster)
    alive = cluster.running("db1")
    done = _destroyed(cluster)
    assert done.code == 0, done.errors
    _nothing_of_ours_is_left(cluster)
    for aside in cluster.base.glob("db1/data.set-aside-*") if alive else ():
        assert list((aside / "pg_replslot").iterdir()) == []
        assert "tde-replication" not in (aside / "pg_hba.conf").read_text()


@pytest.mark.parametrize(
    ("cluster", "refusal"),
    [
        pytest.param(way, refusal, id=f"{name}: {refusal}")
        for way, name in WAYS.items()
        for refusal in REFUSALS
        if way or refusal.what != "does not answer"  # pulumi-vault waits for three minutes
    ],
    indirect=["cluster"],
)
def test_what_is_not_ours_stays_and_hinders_nobody_once_it_is_undone(cluster: Cluster, refusal: Refusal) -> None:
    refusal.act(cluster)
    done = _destroyed(cluster)
    if done.code:
        assert done.errors
        assert "Traceback" not in done.text
        refusal.undo(cluster)
        done = _destroyed(cluster)
    assert done.code == 0, done.errors
    _nothing_of_ours_is_left(cluster, THEIRS.get(refusal.what, ()))


def _destroyed(cluster: Cluster) -> Output:
    """Destroy; without what lies on a dead primary, where it says that it cannot."""
    dead = not cluster.running("db1") and not cluster.workspace.cluster["disposable"]
    done = cluster.workspace.destroy()
    if dead and done.code:
        assert any("Make it reachable" in line and f"{LEAVE}=true" in line for line in done.errors), done.errors
        cluster.workspace.environment[LEAVE] = "true"
        done = cluster.workspace.destroy()
        assert "left behind: " in done.text
    return done


def _nothing_of_ours_is_left(cluster: Cluster, theirs: Sequence[str] = ()) -> None:
    strays_gone(cluster)
    left = [str(path.relative_to(cluster.base)) for path in cluster.base.glob("*/*") if path.name not in theirs]
    mounts = cluster.bao.client().sys.list_mounted_secrets_engines()["data"]
    assert not [name for name in cluster.names if cluster.running(name)]
    if cluster.workspace.cluster["disposable"]:
        assert left == []
        assert f"{MOUNT}/" not in mounts
    else:
        assert [path for path in left if "set-aside" not in path and "postgresql.log" not in path] == []
        assert f"{MOUNT}/" in mounts
