"""Who streams from whom, and what commits wait for, on the real engine: cascading, delayed and synchronous standbys."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tde_replication.postgres.following import WAL_GONE
from tests.engine.cluster import Cluster, base_directory
from tests.engine.workspace import Workspace, eventually
from tests.engine.writer import writing
from tests.openbao import OpenBao

SERVERS = ["db1", "db2", "db3"]
SLOTS = "SELECT slot_name, active FROM pg_replication_slots ORDER BY 1"
DIRECTORIES = [f"DataDirectory {name}" for name in SERVERS]


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """db3 streams from db2, and commits wait for the one of db1 and db2 that is a standby."""
    base = base_directory()
    workspace = Workspace(tmp_path_factory.mktemp("cascade"), "cascade", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=encrypted_binaries, synchronous={"standbys": ["db1", "db2"]})
    declare(made, db3={"upstream": "db2"})
    workspace.init()
    workspace.up_well()
    made.sql("db1", "CREATE TABLE written (number int PRIMARY KEY) USING tde_heap")
    yield made
    done = workspace.destroy()
    assert done.code == 0, done.text
    assert [name for name in SERVERS if made.running(name) or made.data(name).exists()] == []
    shutil.rmtree(base)


def declare(cluster: Cluster, cluster_wide: dict[str, Any] | None = None, **servers: dict[str, Any]) -> None:
    """Change settings; None takes one out."""

    def changed(former: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in (former | new).items() if value is not None}

    former = cluster.workspace.cluster
    of_servers = {name: changed(one, servers.get(name, {})) for name, one in former["servers"].items()}
    cluster.workspace.write(changed(former, cluster_wide or {}) | {"servers": of_servers})


def streams(cluster: Cluster, standby: str, upstream: str) -> None:
    """By its slot there, and it has no other slot."""
    slot = f"tde_{standby}"
    eventually(lambda: (slot, True) in cluster.sql(upstream, SLOTS))
    for name in SERVERS:
        if name != upstream:
            assert slot not in dict(cluster.sql(name, SLOTS)), name


def synchronous(cluster: Cluster, primary: str) -> list[Any]:
    [[names]] = cluster.sql(primary, "SHOW synchronous_standby_names")
    rows = cluster.sql(
        primary, "SELECT application_name FROM pg_stat_replication WHERE sync_state = 'quorum' ORDER BY 1"
    )
    return [names, *(name for (name,) in rows)]


def test_a_standby_streams_from_a_standby(cluster: Cluster) -> None:
    streams(cluster, "db2", "db1")
    streams(cluster, "db3", "db2")
    assert synchronous(cluster, "db1") == ['ANY 1 ("db2")', "db2"]
    cluster.sql("db1", "INSERT INTO written VALUES (1)")
    eventually(
        lambda: cluster.sql("db3", "SELECT count(*) FROM written WHERE pg_tde_is_encrypted('written')") == [(1,)]
    )
    cluster.workspace.unchanged()


def test_it_moves_to_the_primary_and_back_without_a_clone(cluster: Cluster) -> None:
    workspace, started = cluster.workspace, "SELECT pg_postmaster_start_time()"
    since = {name: cluster.sql(name, started) for name in SERVERS}
    declare(cluster, db3={"upstream": None, "applyDelay": "1h"})
    preview = workspace.preview()
    assert preview.code == 0, preview.errors
    assert [preview.plan.get(one) for one in DIRECTORIES] == [None, None, "update"]
    assert {step for one, step in preview.plan.items() if one.startswith("ReplicationSlot")} == {"create", "delete"}
    workspace.up_well()
    streams(cluster, "db3", "db1")
    assert cluster.sql("db3", "SHOW recovery_min_apply_delay") == [("1h",)]
    declare(cluster, db3={"upstream": "db2", "applyDelay": None})
    workspace.up_well()
    streams(cluster, "db3", "db2")
    workspace.unchanged()
    assert {name: cluster.sql(name, started) for name in SERVERS} == since


def test_what_is_lost_on_the_upstream_is_drift_and_comes_back(cluster: Cluster) -> None:
    workspace = cluster.workspace
    cluster.stop("db3")
    cluster.sql("db2", "SELECT pg_drop_replication_slot('tde_db3')")
    cluster.edit(
        "db2",
        "pg_hba.conf",
        lambda text: "".join(line for line in text.splitlines(keepends=True) if "tde-" not in line),
    )
    cluster.sql("db1", "ALTER SYSTEM RESET synchronous_standby_names; SELECT pg_reload_conf()")
    preview = workspace.preview()
    assert preview.plan == {
        "ReplicationSlot tde_db3 on db2": "create",
        "HbaRule replicator from 127.0.0.1/32": "update",
        "Server db3": "update",
        "ReplicationCheck db3": "update",
        "SynchronousStandbys synchronous_standby_names": "update",
    }
    workspace.up_well()
    streams(cluster, "db3", "db2")
    workspace.unchanged()


def test_an_upstream_that_is_cloned_again_gets_its_slots_again(cluster: Cluster) -> None:
    """It has no WAL from before its base backup: what streams from it is cloned by the next `up`, which says so first."""
    workspace = cluster.workspace
    cluster.kill("db2")
    shutil.rmtree(cluster.data("db2"))
    preview = workspace.preview()
    assert preview.code == 0, preview.errors
    assert preview.plan["DataDirectory db2"] == "create"
    assert preview.plan["ReplicationSlot tde_db3 on db2"] == "update"
    first = workspace.up()
    assert [error for error in first.errors if "db3" in error] == [
        f"UserError: standby db3 does not stream from slot tde_db3: {WAL_GONE}: run `up` again, which clones it again"
    ]
    assert workspace.preview().plan["DataDirectory db3"] == "replace"
    workspace.up_well()
    streams(cluster, "db2", "db1")
    streams(cluster, "db3", "db2")


def test_a_switchover_takes_all_of_it_along(cluster: Cluster) -> None:
    """Commits wait for the former primary afterwards, and never in the middle; whatever streamed from the next one goes on, which
    nobody waits for where it is late."""
    workspace = cluster.workspace
    cluster.sql("db1", "TRUNCATE written")
    declare(cluster, db3={"applyDelay": "1h"})
    workspace.up_well()
    declare(cluster, {"primary": "db2"})
    with writing(cluster, SERVERS) as writer:
        eventually(lambda: len(writer.commits) > 20)
        done = workspace.up_well()
        count = len(writer.commits)
        eventually(lambda: len(writer.commits) > count + 20)
    assert writer.lost("db2") == set()
    assert writer.torn() == []
    assert "standby db3 was not verified: it replays its local WAL with a delay of 1h" in done.text
    assert cluster.sql("db3", "SELECT pg_is_in_recovery()") == [(True,)]
    streams(cluster, "db1", "db2")
    assert synchronous(cluster, "db2") == ['ANY 1 ("db1")', "db1"]
    # Who follows the primary anyway need not say so: its slot there is the same one.
    declare(cluster, db3={"upstream": None, "applyDelay": None})
    workspace.up_well()
    streams(cluster, "db3", "db2")
    workspace.unchanged()
