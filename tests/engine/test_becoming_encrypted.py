"""A plain cluster that is declared encrypted: its servers restart with pg_tde, and none is cloned again."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.cluster import Cluster, base_directory
from tests.engine.workspace import Workspace, eventually
from tests.openbao import OpenBao


@pytest.fixture
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path: Path) -> Iterator[Cluster]:
    base = base_directory()
    workspace = Workspace(tmp_path, "plain", openbao.environment)
    made = Cluster(workspace, base, 1, openbao, binaries=encrypted_binaries, encryption="off")
    workspace.init()
    yield made
    done = workspace.destroy()
    shutil.rmtree(base)
    workspace.close()
    assert done.code == 0, done.errors


def made_at(cluster: Cluster) -> list[str]:
    return [json.loads((cluster.data(name) / "tde-replication.json").read_text())["madeAt"] for name in cluster.names]


def test_its_servers_restart_with_pg_tde_and_keep_their_data(cluster: Cluster) -> None:
    workspace = cluster.workspace
    workspace.up_well()
    cluster.sql("db1", "CREATE TABLE in_clear AS SELECT 1 AS n")
    before = made_at(cluster)

    workspace.write({**workspace.cluster, "encryption": "required"})
    preview = workspace.preview()
    for name in cluster.names:
        assert f"server {name} will be restarted: shared_preload_libraries can only change at start" in preview.text
    kept = {name for name, step in preview.plan.items() if step != "create"}
    assert kept == {"Server db1", "Server db2", "DataDirectory db2", "ReplicationCheck db2"}, preview.changes
    assert {preview.plan[name] for name in kept} == {"update"}, preview.changes

    workspace.up_well()
    workspace.unchanged()
    assert made_at(cluster) == before
    cluster.sql("db1", "CREATE TABLE secret USING tde_heap AS SELECT 'text' AS t")
    [(written,)] = cluster.sql("db1", "SELECT pg_current_wal_flush_lsn()")
    eventually(lambda: cluster.sql("db2", f"SELECT pg_last_wal_replay_lsn() >= '{written}'") == [(True,)])
    assert cluster.sql(
        "db2", "SELECT n, pg_tde_is_encrypted('in_clear'), pg_tde_is_encrypted('secret') FROM in_clear"
    ) == [(1, False, True)]
