"""Other shapes than a primary with standbys of its own, on the real engine: cascading, synchronous and delayed standbys; after a
switchover, and in the middle of one. Drift, changes, interruptions and teardown, for none of which anything is cloned again."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.cluster import Cluster, base_directory, discard
from tests.engine.drift import Row, shown_and_repaired
from tests.engine.interruption import Kill, at_every_step, kill_engine, kill_provider, lose_state, strays_gone
from tests.engine.shapes import FIRST, SECOND, SERVERS, SOAK, SYNCHRONOUS, UPSTREAMS, half_done
from tests.engine.workspace import Workspace, eventually
from tests.openbao import OpenBao

PRIORITY = {"standbys": ["db1", "db2", "db3"], "mode": "priority", "number": 2, "whenTooFew": "wait"}
NAMES = "SynchronousStandbys synchronous_standby_names"


def made(directory: Path, openbao: OpenBao, binaries: Path, **more: Any) -> Cluster:
    workspace = Workspace(directory, "drift", openbao.environment)
    cluster = Cluster(workspace, base_directory(), 3, openbao, binaries=binaries, synchronous=SYNCHRONOUS, **more)
    declare(cluster, **SERVERS)
    workspace.init()
    workspace.up_well()
    cluster.sql("db1", "CREATE TABLE t USING tde_heap AS SELECT 42 AS a")
    return cluster


def declare(cluster: Cluster, cluster_wide: dict[str, Any] | None = None, **servers: dict[str, Any]) -> None:
    """Change settings; None takes one out."""

    def changed(former: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in (former | new).items() if value is not None}

    former = cluster.workspace.cluster
    of_servers = {name: changed(one, servers.get(name, {})) for name, one in former["servers"].items()}
    cluster.workspace.write(changed(former, cluster_wide or {}) | {"servers": of_servers})


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    one = made(tmp_path_factory.mktemp("shapes"), openbao, encrypted_binaries)
    yield one
    # In the middle of a switchover, without the synchronous standby: see the last test.
    done = one.workspace.destroy()
    assert done.code == 0, done.text
    assert [name for name in one.names if one.running(name) or one.data(name).exists()] == []
    shutil.rmtree(one.base)


@pytest.fixture(autouse=True)
def no_clone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every data directory stays the one that was made first; and no failure spoils the next test."""
    if "cluster" not in request.fixturenames:
        yield
        return
    one: Cluster = request.getfixturevalue("cluster")
    before, failed = made_at(one), request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        one.workspace.unlock()
        one.workspace.up()
    else:
        assert made_at(one) == before


def made_at(cluster: Cluster) -> dict[str, str]:
    return {
        name: json.loads((cluster.data(name) / "tde-replication.json").read_text())["madeAt"] for name in cluster.names
    }


def slots(cluster: Cluster) -> dict[str, set[str]]:
    found = {name: cluster.sql(name, "SELECT slot_name FROM pg_replication_slots") for name in cluster.names}
    return {name: {slot for (slot,) in rows} for name, rows in found.items()}


def whole(cluster: Cluster, primary: str, upstreams: dict[str, str] | None = None) -> None:
    """Each standby has its slot on the right server, and none elsewhere; and all but the delayed one surely stream by now."""
    upstreams = upstreams or UPSTREAMS[primary]
    wanted = {
        name: {f"tde_{standby}" for standby, above in upstreams.items() if above == name} for name in cluster.names
    }
    eventually(lambda: slots(cluster) == wanted)
    active = "SELECT count(*) FROM pg_replication_slots WHERE active AND slot_name <> 'tde_db4'"
    for name in set(upstreams.values()):
        eventually(lambda name=name: cluster.sql(name, active) == [(len(wanted[name] - {"tde_db4"}),)])  # type: ignore[misc]
    for name in cluster.names:
        assert cluster.sql(name, "SELECT pg_is_in_recovery()") == [(name != primary,)]


def pending(cluster: Cluster, primary: str) -> None:
    """Have the delayed standby wait with a commit: it heeds nothing else before that."""
    cluster.sql(primary, "INSERT INTO t VALUES (1)")
    query = "SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'startup'"
    eventually(lambda: cluster.sql("db4", query) == [("RecoveryApplyDelay",)])


def test_a_delayed_standby_moves_once_it_has_replayed(cluster: Cluster) -> None:
    """While it is late it goes on by its former slot, which is shown and dropped when it has moved."""
    workspace = cluster.workspace
    pending(cluster, "db1")
    declare(cluster, {"synchronous": None}, db4={"upstream": None})
    preview = workspace.preview()
    assert preview.plan == {
        **dict.fromkeys(("Topology drift", "HbaRule replicator from 127.0.0.1/32"), "update"),
        **dict.fromkeys(("CleanupRecord db4", "DataDirectory db4", "Server db4", "ReplicationCheck db4"), "update"),
        "ReplicationSlot tde_db4": "create",
        "ReplicationSlot tde_db4 on db2": "delete",
        NAMES: "delete",
    }
    began = time.monotonic()
    done = workspace.up_well()
    assert time.monotonic() - began < 60, "nobody waits for its delay"
    late = "for its delay of 1h (recovery_min_apply_delay) before it changes over"
    assert f"standby db4 was not verified: it streams from 127.0.0.1:{cluster.ports['db2']} {late}" in done.words
    assert cluster.sql("db2", "SELECT slot_name, active FROM pg_replication_slots") == [("tde_db4", True)]
    assert cluster.sql("db1", "SHOW synchronous_standby_names") == [("",)]
    declare(cluster, {"synchronous": PRIORITY}, db4={"applyDelay": None})
    workspace.up_well()
    states = "SELECT application_name, sync_state FROM pg_stat_replication WHERE sync_state = 'sync' ORDER BY 1"
    eventually(lambda: cluster.sql("db1", states) == [("db2", "sync"), ("db3", "sync")])
    preview = workspace.preview()
    assert preview.plan == {"Topology drift": "update"}
    assert '"tde_db4 on db2"' in preview.words
    workspace.up_well()
    workspace.unchanged()
    whole(cluster, "db1", {"db2": "db1", "db3": "db1", "db4": "db1"})


@pytest.mark.parametrize(
    ("kill", "among"),
    [
        pytest.param(lose_state, "ReplicationSlot|SynchronousStandbys", id="lose_state at some steps"),
        *(
            pytest.param(kill, "", id=f"{kill.__name__} at every step", marks=pytest.mark.soak)
            for kill in (kill_engine, lose_state, kill_provider)
        ),
    ],
)
def test_a_killed_change_of_shape_is_finished_by_the_next_up(cluster: Cluster, kill: Kill, among: str) -> None:
    """Back to what it was: a cascading, delayed standby again, and another mode of waiting."""
    declare(cluster, {"synchronous": PRIORITY}, db4={"upstream": None, "applyDelay": None})
    cluster.workspace.up_well()
    begin = declared(cluster)
    steps = at_every_step(cluster, ["up"], kill, begin, among)
    assert len(steps) > 2, steps
    whole(cluster, "db1")
    assert cluster.sql("db1", "SHOW synchronous_standby_names") == [('ANY 1 ("db2")',)]
    cluster.workspace.unchanged()


def declared(cluster: Cluster) -> Callable[[], None]:
    return lambda: declare(cluster, {"synchronous": SYNCHRONOUS}, **SERVERS)


@pytest.mark.parametrize("rows", FIRST.values(), ids=FIRST)
def test_drift_is_shown_and_repaired(cluster: Cluster, rows: list[Row]) -> None:
    shown_and_repaired(cluster, rows)
    whole(cluster, "db1")


def test_a_switchover_and_changes_in_one_edit(cluster: Cluster) -> None:
    """The next primary is not the first server, from which another standby goes on to stream; nothing is cloned, and the delayed
    one is told to be late."""
    workspace = cluster.workspace
    pending(cluster, "db1")
    declare(cluster, {"primary": "db2"}, db1={"settings": {"work_mem": "5MB"}}, db2={"settings": {"work_mem": "5MB"}})
    preview = workspace.preview()
    assert preview.code == 0, preview.errors
    assert {step for what, step in preview.plan.items() if what.startswith(("DataDirectory", "Server"))} == {"update"}
    assert preview.plan[NAMES] == "update"
    done = workspace.up_well()
    assert "standby db4 was not verified: it replays its local WAL with a delay of 1h" in done.text
    whole(cluster, "db2")
    assert cluster.sql("db2", "SHOW synchronous_standby_names") == [('ANY 1 ("db1")',)]
    workspace.unchanged()


@pytest.mark.parametrize(
    "rows",
    [pytest.param(rows, marks=pytest.mark.soak if what in SOAK else (), id=what) for what, rows in SECOND.items()],
)
def test_drift_after_a_switchover_is_shown_and_repaired(cluster: Cluster, rows: list[Row]) -> None:
    shown_and_repaired(cluster, rows)
    whole(cluster, "db2")


def test_a_switchover_half_done_is_finished_with_what_drifted_meanwhile(cluster: Cluster) -> None:
    """And with a change; and it is killed once more."""
    workspace = cluster.workspace
    half_done(cluster, "db2")
    cluster.edit(
        "db1",
        "pg_hba.conf",
        lambda text: "".join(line for line in text.splitlines(keepends=True) if "tde-" not in line),
    )
    declare(cluster, {"primary": "db1"}, db1={"settings": {"work_mem": "6MB"}}, db3={"applyDelay": "1min"})
    preview = workspace.preview()
    assert preview.code == 0, preview.errors
    assert "db2: primary → standby of db1, without a new clone; it takes no writes now" in preview.text
    assert "db1: standby → primary" in preview.text
    assert "replace" not in preview.plan.values()
    steps = at_every_step(cluster, ["up"], kill_engine, lambda: None, "Topology")
    assert steps
    whole(cluster, "db1")
    assert cluster.sql("db1", "SHOW work_mem") == [("6MB",)]
    workspace.unchanged()
    # For the end: see the fixture.
    cluster.kill("db2")
    half_done(cluster, "db1")


def gone(cluster: Cluster) -> None:
    cluster.kill("db2")
    shutil.rmtree(cluster.data("db2"))


STATES: dict[str, Callable[[Cluster], object]] = {
    "untouched": lambda _: None,
    "an upstream killed, which is the synchronous standby": lambda cluster: cluster.kill("db2"),
    "an upstream gone": gone,
    "a switchover half done": lambda cluster: half_done(cluster, "db1"),
    "a slot left on a standby": lambda cluster: cluster.sql(
        "db2", "SELECT pg_create_physical_replication_slot('tde_db3', true)"
    ),
}


@pytest.mark.soak
@pytest.mark.parametrize("disposable", [True, False], ids=["disposable", "kept"])
@pytest.mark.parametrize("after", ["db1", "db2"], ids=["first", "after a switchover"])
@pytest.mark.parametrize("state", STATES)
def test_destroy(
    openbao: OpenBao,
    encrypted_binaries: Path,
    tmp_path: Path,
    state: str,
    after: str,
    disposable: bool,  # noqa: FBT001
) -> None:
    cluster = made(tmp_path, openbao, encrypted_binaries, disposable=disposable)
    workspace = cluster.workspace
    if after == "db2":
        declare(cluster, {"primary": "db2"})
        workspace.up_well()
    try:
        STATES[state](cluster)
        done = workspace.destroy()
        if done.code and state == "a switchover half done" and not disposable:
            assert "Make it reachable" in done.text
            workspace.environment["TDE_REPLICATION_LEAVE_UNREACHABLE"] = "true"
            done = workspace.destroy()
        assert done.code == 0, done.errors
        strays_gone(cluster)
        assert [name for name in cluster.names if cluster.running(name) or cluster.data(name).exists()] == []
        for aside in cluster.base.glob("*/data.set-aside-*"):
            assert not disposable
            assert "a switchover half done" in state or list((aside / "pg_replslot").iterdir()) == [], aside
    finally:
        discard(cluster)
