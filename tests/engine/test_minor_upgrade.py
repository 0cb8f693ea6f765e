"""Packages that replace the programs of running servers, and what restarts them: standbys first, the primary last."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tde_replication.errors import Unavailable
from tests.engine.cluster import Cluster, base_directory
from tests.engine.interruption import kill_provider, strays_gone
from tests.engine.status import DEGRADED, WELL, expect
from tests.engine.workspace import Workspace, eventually
from tests.openbao import OpenBao

PLAN = {"MinorUpgrade minor upgrade": "update"}


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """db3 streams from db2."""
    base = base_directory()
    tree = encrypted_binaries.parents[2]  # with the libraries beside it
    shutil.copytree(tree, base / "postgresql", symlinks=True)
    workspace = Workspace(tmp_path_factory.mktemp("minor"), "minor", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=base / "postgresql" / encrypted_binaries.relative_to(tree))
    workspace.cluster["servers"]["db3"]["upstream"] = "db2"
    workspace.write(workspace.cluster | {"minorUpgrade": "all"})
    workspace.init()
    workspace.up_well()
    yield made
    done = workspace.destroy()
    assert done.code == 0, done.text
    shutil.rmtree(base)


def installed(cluster: Cluster, name: str = "bin/postgres", content: bytes | None = None) -> None:
    """What a package does: another file of the same name."""
    path = programs(cluster) / name
    draft = path.with_name("draft")
    shutil.copy2(path, draft)
    if content is not None:
        draft.write_bytes(content)
    draft.replace(path)


def programs(cluster: Cluster) -> Path:
    return Path(cluster.binaries).parent


def started(cluster: Cluster) -> dict[str, float]:
    return {name: started_at(cluster, name) for name in cluster.names}


def started_at(cluster: Cluster, name: str) -> float:
    [(seconds,)] = cluster.sql(name, "SELECT extract(epoch FROM pg_postmaster_start_time())::float")
    return float(seconds)


def test_nothing_was_replaced(cluster: Cluster) -> None:
    cluster.workspace.unchanged()
    expect(cluster, WELL)


def test_standbys_are_restarted_first_and_the_primary_last(cluster: Cluster) -> None:
    workspace, before = cluster.workspace, started(cluster)
    installed(cluster)
    expect(cluster, DEGRADED, "db2: postgres was replaced on disk since it started")
    preview = workspace.preview()
    assert preview.plan == PLAN, preview.changes
    for name in cluster.names:
        assert f"server {name} will be restarted: postgres was replaced on disk since it started" in preview.text
    workspace.up_well()
    after = started(cluster)
    assert all(after[name] > before[name] for name in cluster.names)
    assert after["db3"] < after["db2"] < after["db1"]
    workspace.unchanged()
    expect(cluster, WELL)


def test_a_run_that_is_killed_is_finished_by_the_next(cluster: Cluster) -> None:
    """After the first restart; a library, as a package of pg_tde alone replaces it."""
    workspace, before = cluster.workspace, started(cluster)
    [library] = (programs(cluster) / "lib").rglob("pg_tde.so")
    installed(cluster, str(library.relative_to(programs(cluster))))
    with workspace.start("up", "--yes", "--skip-preview") as process:
        eventually(lambda: was_restarted(cluster, "db3", before["db3"]))
        kill_provider(cluster, process.pid)
        process.communicate()
    strays_gone(cluster)
    workspace.unlock()
    between = started_at(cluster, "db3")
    workspace.up_well()
    after = started(cluster)
    assert before["db3"] < between == after["db3"] < after["db2"] < after["db1"]
    workspace.unchanged()
    expect(cluster, WELL)


def was_restarted(cluster: Cluster, name: str, before: float) -> bool:
    try:
        return started_at(cluster, name) > before
    except (psycopg.OperationalError, Unavailable):  # it is just being restarted
        return False


def test_a_version_that_would_not_start_restarts_nobody(cluster: Cluster) -> None:
    workspace, before = cluster.workspace, started(cluster)
    good = (programs(cluster) / "bin" / "postgres").read_bytes()
    broken = b"""#!/bin/sh
case $1 in --version) echo "postgres (PostgreSQL) 18.99";; *) echo "postgres: FATAL:  this one is broken" >&2; exit 1;; esac
"""
    installed(cluster, content=broken)
    try:
        preview = workspace.preview()
        assert "server db3 will be restarted: PostgreSQL 18.99 is installed, and it runs 18." in preview.text
        done = workspace.up()
        assert done.code != 0
        assert any("server db3 would not start with the programs that are installed" in one for one in done.errors)
        assert started(cluster) == before
    finally:
        installed(cluster, content=good)
    workspace.up_well()
    workspace.unchanged()


def test_the_primary_is_left_to_a_switchover(cluster: Cluster) -> None:
    """With `minorUpgrade: standbys`; a former primary starts with what is installed, as a standby."""
    workspace, before = cluster.workspace, started(cluster)
    installed(cluster)
    workspace.write(workspace.cluster | {"minorUpgrade": "standbys"})
    workspace.up_well()
    workspace.unchanged()
    assert started(cluster)["db1"] == before["db1"]
    expect(cluster, DEGRADED, "db1: postgres was replaced on disk since it started")
    workspace.write(workspace.cluster | {"primary": "db2"})
    preview = workspace.preview()
    assert "db1: primary → standby of db2, without a new clone" in preview.text, preview.errors
    assert "will be restarted" not in preview.text
    workspace.up_well()
    workspace.unchanged()
    expect(cluster, WELL)
    workspace.write(workspace.cluster | {"primary": "db1", "minorUpgrade": "all"})
    workspace.up_well()
