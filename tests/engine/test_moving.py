"""A running cluster that moves to another key provider: of another mount, another CA, another Vault."""

import operator
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.engine.cluster import Cluster, base_directory
from tests.engine.interruption import Kill, interrupted, kill_engine, kill_provider, lose_state, strays_gone
from tests.engine.workspace import Workspace
from tests.openbao import OpenBao, thrown_away


@pytest.fixture
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path: Path) -> Iterator[Cluster]:
    """A primary, a standby, and one that streams from that; their data is no disposable one."""
    base = base_directory()
    workspace = Workspace(tmp_path, "moves", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=encrypted_binaries)
    declared = workspace.cluster
    declared["servers"]["db3"]["upstream"] = "db2"
    workspace.write({**declared, "disposable": False})
    workspace.init()
    workspace.up_well()
    made.sql("db1", "CREATE TABLE t USING tde_heap AS SELECT 1 AS a")
    yield made
    workspace.write({**declared, "disposable": True})
    workspace.up("--refresh=false")
    workspace.destroy("--refresh=false", "--continue-on-error")
    shutil.rmtree(base)


def move(cluster: Cluster, **vault: Any) -> None:
    cluster.workspace.write({**cluster.workspace.cluster, "vault": vault})


def bound(cluster: Cluster, name: str) -> list[tuple[Any, ...]]:
    kinds = ("server", "default")
    return [cluster.sql(name, f"SELECT key_name, provider_name FROM pg_tde_{kind}_key_info()")[0] for kind in kinds]


def mounts(cluster: Cluster) -> set[str]:
    return {name.rstrip("/") for name in cluster.bao.client().sys.list_mounted_secrets_engines()["data"]}


def moved(cluster: Cluster, provider: str, other: str) -> None:
    """Every server has the one provider, and nothing of the other."""
    for name in cluster.names:
        assert bound(cluster, name) == [("moves-principal-key", provider)] * 2, name
        assert cluster.sql(name, "SELECT name FROM pg_tde_list_all_global_key_providers()") == [(provider,)]
        assert cluster.file(name, f"{provider}-token").exists()
        assert not cluster.file(name, f"{other}-token").exists()
        assert not cluster.file(name, f"{other}-ca.pem").exists()
    restarted(cluster)


def restarted(cluster: Cluster) -> None:
    """Each of them starts, and reads what is encrypted."""
    for name in cluster.names:
        cluster.stop(name)
        cluster.start(name)
        assert cluster.sql(name, "SELECT a FROM t") == [(1,)]


def test_to_another_mount_and_back(cluster: Cluster) -> None:
    move(cluster, provider="there", mount="moves/there")
    cluster.workspace.up_well()
    moved(cluster, "there", "vault")
    assert {"tde-moves", "moves/there"} <= mounts(cluster)
    cluster.workspace.unchanged()
    move(cluster)
    cluster.workspace.up_well()
    moved(cluster, "vault", "there")
    cluster.workspace.unchanged()


KILLED = [
    (kill_engine, "KeyProvider there creating"),
    (kill_provider, "KeyBinding default key updating"),
    (kill_engine, "KeyProvider vault deleting"),
]


@pytest.mark.parametrize(
    "killed",
    [
        KILLED,
        pytest.param([(lose_state, step) for _, step in KILLED], marks=pytest.mark.soak),
        pytest.param(
            [
                (kill, step)
                for kill in (kill_engine, kill_provider, lose_state)
                for step in (
                    "HostFile db2-there-token creating",
                    "Policy db2-policy creating",
                    "HostFile db2-vault-token deleting",
                )
            ],
            marks=pytest.mark.soak,
        ),
    ],
    ids=["few", "in no state", "more"],
)
def test_killed_in_the_middle(cluster: Cluster, killed: list[tuple[Kill, str]]) -> None:
    """Any server can be restarted then, and the next `up` finishes."""
    move(cluster, provider="there", mount="moves/there")
    for kill, at in killed:
        output, step = interrupted(cluster, ["up"], kill, partial(operator.eq, at))
        assert step, (at, output.text)
        strays_gone(cluster)
        cluster.workspace.unlock()
        restarted(cluster)
    cluster.workspace.up_well()
    moved(cluster, "there", "vault")
    cluster.workspace.unchanged()


def test_standbys_that_were_down_find_their_way(cluster: Cluster) -> None:
    """They start with the former key, and replay the rotation."""
    for name in ("db3", "db2"):
        cluster.stop(name)
    cluster.sql("db1", "CREATE TABLE more USING tde_heap AS SELECT 2 AS b")
    move(cluster, provider="there", mount="moves/there")
    cluster.workspace.up_well()
    moved(cluster, "there", "vault")
    assert cluster.sql("db3", "SELECT b FROM more") == [(2,)]


def test_to_another_vault(cluster: Cluster) -> None:
    """Each asks for a token of its own. What was in the former one goes, but for the mount with its keys."""
    workspace, former = cluster.workspace, cluster.bao

    def declare(bao: OpenBao, left: OpenBao | None = None, **vault: str) -> None:
        move(cluster, ca=str(bao.ca), **vault)
        configuration = [["--secret", "vault:token", bao.token]]
        if left:
            configuration.append(["tde-replication:formerVaultAddress", left.address])
            configuration.append(["--secret", "tde-replication:formerVaultToken", left.token])
        for arguments in configuration:
            done = workspace.run("config", "set", *arguments)
            assert done.code == 0, done.text

    declare(former)
    workspace.up_well()
    with thrown_away(OpenBao) as bao:
        workspace.environment |= {"VAULT_ADDR": bao.address, "VAULT_CACERT": str(bao.ca), "VAULT_TOKEN": ""}
        tokens = {name: cluster.file(name, "vault-token").read_text() for name in cluster.names}
        declare(bao, former, name="there")
        notice = workspace.preview().text
        assert f"The keys in mount tde-moves stay in the Vault at {former.address}" in notice
        workspace.up_well()
        moved(cluster, "there", "vault")
        for token in tokens.values():
            assert not former.client(token).is_authenticated()
        assert not [name for name in former.client().sys.list_policies()["data"]["policies"] if "moves" in name]
        kept = former.client().secrets.kv.v2.list_secrets("", mount_point="tde-moves")["data"]["keys"]
        assert "moves-principal-key" in kept
        declare(bao, name="there")
        workspace.unchanged()
        workspace.environment |= former.environment
        declare(former, bao)
        workspace.up_well()
        moved(cluster, "vault", "there")
    declare(former)
    workspace.unchanged()


def test_another_ca_without_a_gap(cluster: Cluster) -> None:
    """The same keys, by other files: a rotation to the key that is set."""
    ca = cluster.base / "ca.pem"
    ca.write_text(f"# another file\n{cluster.bao.ca.read_text()}")
    move(cluster, provider="there", ca=str(ca))
    cluster.workspace.up_well()
    moved(cluster, "there", "vault")
    assert cluster.file("db3", "there-ca.pem").read_text() == ca.read_text()
    cluster.workspace.unchanged()
