"""A whole cluster in a namespace of the Vault."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.cluster import Cluster, base_directory
from tests.engine.workspace import Workspace
from tests.openbao import OpenBao

NAMESPACE = "department"


@pytest.fixture
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path: Path) -> Iterator[Cluster]:
    base = base_directory()
    openbao.client().write_data(f"sys/namespaces/{NAMESPACE}")
    workspace = Workspace(tmp_path, "apart", openbao.environment)
    yield Cluster(workspace, base, 1, openbao, binaries=encrypted_binaries, vault={"namespace": NAMESPACE})
    openbao.client().delete(f"sys/namespaces/{NAMESPACE}")
    shutil.rmtree(base)
    workspace.close()


def test_mount_tokens_and_keys_are_all_in_it(cluster: Cluster) -> None:
    cluster.workspace.init()
    cluster.workspace.up_well()
    cluster.workspace.unchanged()
    assert cluster.sql("db2", "SELECT pg_tde_verify_server_key()") == [("",)]
    declared = cluster.workspace.cluster
    cluster.workspace.write({**declared, "vault": {}})
    elsewhere = cluster.workspace.up()
    assert elsewhere.code != 0
    told = f'cluster.vault.namespace: the keys of the running cluster are in "{NAMESPACE}" and stay there'
    assert told in elsewhere.text
    cluster.workspace.write(declared)
    cluster.workspace.unchanged()
    assert "tde-apart/" not in cluster.bao.client().sys.list_mounted_secrets_engines()["data"]
    done = cluster.workspace.destroy()
    assert done.code == 0, done.errors
