"""What a stack does when a standby was promoted by hand because its primary had died, and how it goes on with that one."""

import pytest

from tests.engine.cluster import Cluster
from tests.engine.workspace import eventually


@pytest.fixture
def cluster(not_there_yet: Cluster) -> Cluster:
    return not_there_yet


def test_a_promoted_standby_is_kept_and_becomes_the_stack_s_primary(cluster: Cluster) -> None:
    """docs/failover.md, step by step."""
    workspace = cluster.workspace
    workspace.up_well()
    cluster.sql("db1", "CREATE TABLE written (a int) USING tde_heap; INSERT INTO written VALUES (1)")
    eventually(lambda: cluster.sql("db2", "SELECT to_regclass('written') IS NOT NULL") == [(True,)])
    eventually(lambda: cluster.sql("db2", "SELECT a FROM written") == [(1,)])
    cluster.kill("db1")
    cluster.sql("db2", "SELECT pg_promote()")
    eventually(lambda: cluster.sql("db2", "SELECT pg_is_in_recovery()") == [(False,)])
    cluster.sql("db2", "INSERT INTO written VALUES (2)")
    before = cluster.pid("db2")

    for refused in (workspace.preview(), workspace.up()):
        assert refused.code != 0
        assert "db2 was promoted" in refused.text
        assert "nothing was touched" in refused.text
        assert not cluster.running("db1"), "two primaries would be worse than none"

    forgotten = workspace.run("stack", "rm", "--force", "--yes", "--preserve-config")
    assert forgotten.code == 0, forgotten.text
    workspace.init()
    declared = workspace.cluster
    workspace.write({**declared, "primary": "db2", "vault": {**declared.get("vault", {}), "existing": True}})
    workspace.up_well()
    assert cluster.pid("db2") == before
    assert cluster.sql("db2", "SELECT a FROM written ORDER BY a") == [(1,), (2,)]
    for name in ("db1", "db3"):
        assert cluster.sql(name, "SELECT count(*), pg_is_in_recovery() FROM written") == [(2, True)]
        assert cluster.sql(name, "SELECT pg_tde_is_encrypted('written')") == [(True,)]
    workspace.unchanged()
    assert workspace.destroy().code == 0
