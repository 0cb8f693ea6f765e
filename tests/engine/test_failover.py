"""The primary died: what a stack does, and how it goes on with another server. docs/topology.md, line by line."""

import re
import shutil

import pytest

from tests.engine.cluster import Cluster
from tests.engine.workspace import eventually

STREAMING = "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' ORDER BY 1"
GRANTED = "SELECT proname FROM pg_proc, aclexplode(proacl) WHERE grantee = 'replicator'::regrole"


@pytest.fixture
def cluster(not_there_yet: Cluster) -> Cluster:
    made = not_there_yet
    made.workspace.up_well()
    made.sql("db1", "CREATE TABLE written (a int) USING tde_heap; INSERT INTO written VALUES (1)")
    for name in ("db2", "db3"):
        eventually(lambda name=name: has(made, name) == [(1,)])  # type: ignore[misc]
    return made


def has(cluster: Cluster, name: str) -> list[tuple[int]] | None:
    if cluster.sql(name, "SELECT to_regclass('written') IS NULL") == [(True,)]:
        return None
    return cluster.sql(name, "SELECT a FROM written ORDER BY a")


def declare(cluster: Cluster, primary: str) -> None:
    cluster.workspace.write({**cluster.workspace.cluster, "primary": primary})


def well(cluster: Cluster, primary: str, rows: list[tuple[int]]) -> None:
    for name in cluster.names:
        eventually(lambda name=name: has(cluster, name) == rows)  # type: ignore[misc]
        assert cluster.sql(name, "SELECT pg_is_in_recovery()") == [(name != primary,)]
        assert cluster.sql(name, "SELECT pg_tde_is_encrypted('written')") == [(True,)]
    cluster.workspace.unchanged()


def test_a_standby_that_was_promoted_by_hand_becomes_the_primary_by_one_line(cluster: Cluster) -> None:
    workspace = cluster.workspace
    cluster.kill("db1")
    cluster.sql("db2", "SELECT pg_promote()")
    eventually(lambda: cluster.sql("db2", "SELECT pg_is_in_recovery()") == [(False,)])
    cluster.sql("db2", "INSERT INTO written VALUES (2)")
    before = cluster.pid("db2")

    for refused in (workspace.preview(), workspace.up()):
        assert refused.code != 0
        assert "db2 was promoted" in refused.text
        assert "write primary: db2" in refused.text
        assert "nothing was touched" in refused.text
        assert not cluster.running("db1"), "two primaries would be worse than none"

    declare(cluster, "db2")
    preview = workspace.preview()
    assert preview.code == 0, preview.errors
    assert preview.plan["DataDirectory db1"] == "replace"
    assert preview.plan["DataDirectory db3"] == "update", "only who has diverged is cloned"
    assert "it was the primary, and did not stop cleanly" in preview.text
    workspace.up_well()
    assert cluster.pid("db2") == before
    well(cluster, "db2", [(1,), (2,)])
    assert workspace.destroy().code == 0


def test_a_dead_primary_is_given_up_only_by_a_person_for_one_run(cluster: Cluster) -> None:
    workspace = cluster.workspace
    cluster.kill("db1")
    declare(cluster, "db2")
    for refused in (workspace.preview(), workspace.up()):
        assert refused.code != 0
        assert (
            "failover from db1 to db2: db1 does not run, and what it had written last may be on no other server"
            in refused.text
        )
        assert "db2 has received WAL up to " in refused.text
        assert "TDE_REPLICATION_ACCEPT_LOSS=db2 pulumi up" in refused.text
        assert cluster.sql("db2", "SELECT pg_is_in_recovery()") == [(True,)]
    workspace.environment["TDE_REPLICATION_ACCEPT_LOSS"] = "db3"
    assert workspace.preview().code != 0, "that is the name of another server"
    workspace.environment["TDE_REPLICATION_ACCEPT_LOSS"] = "db2"
    preview = workspace.preview()
    assert preview.code == 0, preview.errors
    assert "what db1 had written last may be lost; it is kept from starting as a primary" in preview.text
    # The former primary's directory is looked at once another server is the primary: the next `up` clones it.
    first = workspace.up()
    assert cluster.sql("db2", "SELECT pg_is_in_recovery()") == [(False,)], first.text
    del workspace.environment["TDE_REPLICATION_ACCEPT_LOSS"]
    workspace.up_well()
    well(cluster, "db2", [(1,)])
    assert workspace.destroy().code == 0


def test_the_former_primary_comes_back_with_wal_of_its_own_and_is_rewound(cluster: Cluster) -> None:
    workspace = cluster.workspace
    for name in ("db2", "db3"):
        cluster.stop(name)
    cluster.sql("db1", "INSERT INTO written SELECT 2 FROM generate_series(1, 1000)")
    cluster.kill("db1")
    for name in ("db2", "db3"):
        cluster.start(name)
    declare(cluster, "db2")
    workspace.environment["TDE_REPLICATION_ACCEPT_LOSS"] = "db2"
    first = workspace.up()
    del workspace.environment["TDE_REPLICATION_ACCEPT_LOSS"]
    assert cluster.sql("db2", "SELECT pg_is_in_recovery()") == [(False,)], first.text
    cluster.sql("db2", "INSERT INTO written VALUES (3)")
    eventually(lambda: has(cluster, "db3") == [(1,), (3,)])
    before = {name: cluster.pid(name) for name in ("db2", "db3")}

    assert workspace.preview().plan["DataDirectory db1"] == "replace", "that is the default"
    workspace.write({**workspace.cluster, "rejoin": "rewind", "disposable": False})
    preview = workspace.preview()
    assert preview.code == 0, preview.errors
    assert preview.plan["DataDirectory db1"] == "update"
    assert "replace" not in preview.plan.values()
    assert re.search(
        r"db1: is rewound to db2 by pg_tde_rewind, because it has [\d.]+ [KM]iB of WAL that no other server has \(diverged since "
        r"0/[0-9A-F]+ of timeline 1\); that is done on a copy of its data \([\d.]+ MiB\), and the data as it is now is set aside",
        preview.words,
    ), preview.text
    assert not list(cluster.data("db1").parent.glob("data.*")), "a preview changes nothing"
    workspace.up_well()
    well(cluster, "db2", [(1,), (3,)])
    eventually(lambda: cluster.sql("db2", STREAMING) == [("db1",), ("db3",)])
    assert {name: cluster.pid(name) for name in before} == before
    [aside] = cluster.data("db1").parent.glob("data.set-aside-*")
    assert (aside / "PG_VERSION").exists()
    assert cluster.sql("db2", GRANTED) == []
    workspace.write({**workspace.cluster, "disposable": True})
    workspace.up_well()
    assert workspace.destroy().code == 0


def test_a_primary_that_ended_cleanly_and_alone_is_followed_without_a_word(cluster: Cluster) -> None:
    """It was stopped by hand, and all that it had written is there: nothing can be lost."""
    workspace = cluster.workspace
    cluster.stop("db1")
    declare(cluster, "db2")
    workspace.up_well()
    well(cluster, "db2", [(1,)])
    assert not [line for line in workspace.preview().changes if "replace" in line]
    assert workspace.destroy().code == 0


def test_a_switchover_and_the_end_of_the_former_primary_in_one_edit(cluster: Cluster) -> None:
    workspace = cluster.workspace
    servers = {name: one for name, one in workspace.cluster["servers"].items() if name != "db1"}
    workspace.write({**workspace.cluster, "primary": "db2", "servers": servers})
    preview = workspace.preview()
    assert "db1: primary → taken away; writes are refused for about 1 s, while it stops" in preview.text, preview.errors
    workspace.up_well()
    assert not cluster.running("db1")
    assert not cluster.data("db1").exists()
    cluster.names.remove("db1")
    well(cluster, "db2", [(1,)])
    eventually(lambda: cluster.sql("db2", "SELECT slot_name, active FROM pg_replication_slots") == [("tde_db3", True)])
    assert cluster.sql("db3", "SELECT slot_name FROM pg_replication_slots") == []
    assert workspace.destroy().code == 0


def test_a_primary_whose_machine_is_gone_is_given_up_with_it_in_one_edit(cluster: Cluster) -> None:
    """Its data directory is gone: as on a machine that was made anew."""
    workspace = cluster.workspace
    cluster.kill("db1")
    shutil.rmtree(cluster.data("db1"))
    servers = {name: one for name, one in workspace.cluster["servers"].items() if name != "db1"}
    workspace.write({**workspace.cluster, "primary": "db2", "servers": servers})
    refused = workspace.up()
    assert refused.code != 0
    assert "failover from db1 to db2: db1 does not run, and what it had written last may be on no other" in refused.text
    workspace.environment["TDE_REPLICATION_ACCEPT_LOSS"] = "db2"
    workspace.up_well()
    del workspace.environment["TDE_REPLICATION_ACCEPT_LOSS"]
    cluster.names.remove("db1")
    well(cluster, "db2", [(1,)])
    assert workspace.destroy().code == 0
