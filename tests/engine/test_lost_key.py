"""Keys that are gone from Vault are told plainly, and never made again over a cluster that needs them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import hvac.exceptions
import pytest

from tests.engine.change import edited
from tests.engine.cluster import Cluster, base_directory
from tests.engine.status import asked
from tests.engine.workspace import Workspace
from tests.openbao import OpenBao


@pytest.fixture
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path: Path) -> Iterator[Cluster]:
    base = base_directory()
    workspace = Workspace(tmp_path, "lost", openbao.environment)
    made = Cluster(workspace, base, 1, openbao, binaries=encrypted_binaries)
    workspace.init()
    workspace.up_well()
    made.sql("db1", "CREATE TABLE t USING tde_heap AS SELECT 1 AS a")
    yield made
    workspace.destroy("--refresh=false", "--continue-on-error")
    shutil.rmtree(base)


def _unmount(bao: OpenBao) -> None:
    bao.client().sys.disable_secrets_engine("tde-lost")


def _delete_key(bao: OpenBao) -> None:
    bao.client().secrets.kv.v2.delete_metadata_and_all_versions("lost-principal-key", mount_point="tde-lost")


def _replace_key(bao: OpenBao) -> None:
    value = {"key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    bao.client().secrets.kv.v2.create_or_update_secret("lost-principal-key", value, mount_point="tde-lost")


@pytest.mark.parametrize("lose", [_delete_key, _replace_key])
def test_a_lost_key_is_told(cluster: Cluster, lose: Callable[[OpenBao], None]) -> None:
    before = asked(cluster, "needed_keys")
    assert before.code == 0, before.text
    for line in ("server key: lost-principal-key of vault", "database postgres: lost-principal-key of vault"):
        assert before.text.count(f"   {line} since ") == 2, before.text
    lose(cluster.bao)
    after = asked(cluster, "needed_keys")
    assert after.code == 1, after.text
    assert after.text.count(", so that this data cannot be opened: ") == 6, after.text
    preview = cluster.workspace.preview()
    assert preview.code != 0
    assert "cluster.key.name: principal key lost-principal-key is lost" in preview.text, preview.errors
    assert cluster.sql("db1", "SELECT a FROM t") == [(1,)]
    up = cluster.workspace.up()
    assert up.code != 0
    if lose is not _replace_key:
        with pytest.raises(hvac.exceptions.InvalidPath):
            cluster.bao.client().secrets.kv.v2.read_secret_version(
                "lost-principal-key", mount_point="tde-lost", raise_on_deleted_version=True
            )


def test_a_lost_key_is_told_where_another_is_declared(cluster: Cluster) -> None:
    """It has no resource that the new one would replace, and the standby, which cannot open it either, is not to blame."""
    _delete_key(cluster.bao)
    cluster.workspace.write(edited(cluster.workspace.cluster, lambda declared: declared.update(key={"name": "next"})))
    for done in (cluster.workspace.preview(), cluster.workspace.up()):
        assert done.code != 0
        assert (
            'cluster.key.name: principal key lost-principal-key is lost: key "lost-principal-key" not found'
            in done.text
        )
        assert "cannot open its keys" not in done.text
    with pytest.raises(hvac.exceptions.InvalidPath):
        cluster.bao.client().secrets.kv.v2.read_secret_version(
            "next", mount_point="tde-lost", raise_on_deleted_version=True
        )
    assert cluster.sql("db1", "SELECT a FROM t") == [(1,)]


@pytest.mark.parametrize("runs", [True, False], ids=["primary up", "primary down"])
def test_a_mount_that_is_gone_is_told_and_not_made_anew(cluster: Cluster, runs: bool) -> None:  # noqa: FBT001
    _unmount(cluster.bao)
    if not runs:
        cluster.stop("db1")
    for command in (cluster.workspace.preview, cluster.workspace.up):
        done = command()
        assert done.code != 0
        assert 'cluster.vault.mount: "tde-lost" is gone from Vault, and with it the keys of the cluster' in done.text
    assert "tde-lost/" not in cluster.bao.client().sys.list_mounted_secrets_engines()["data"]
    assert cluster.running("db1") == runs
