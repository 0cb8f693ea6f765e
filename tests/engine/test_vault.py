"""The Vault on the real engine: with the least rights, with what is in the way there, and without it."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import official
from tests.engine.cluster import Cluster, base_directory
from tests.engine.workspace import ROOT, Output, Workspace
from tests.openbao import OpenBao

SECRET = {"path": "replication/replicator", "mount_point": "tde-orders"}


def documented_policy() -> str:
    """The policy that docs/security.md offers for a stack called orders."""
    [found] = re.findall(r"```hcl\n(.*?)```", (ROOT / "docs" / "security.md").read_text(), re.DOTALL)
    return str(found)


def restricted(bao: OpenBao, policy: str, name: str = "operators") -> str:
    """A token with that policy and the default one."""
    client = bao.client()
    client.sys.create_or_update_policy(name, policy)
    return str(client.auth.token.create(policies=[name])["auth"]["client_token"])


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Raised, and destroyed, with the documented rights alone."""
    base = base_directory()
    workspace = Workspace(tmp_path_factory.mktemp("orders"), "orders", openbao.environment)
    workspace.environment["VAULT_TOKEN"] = restricted(openbao, documented_policy())
    made = Cluster(workspace, base, 1, openbao, binaries=encrypted_binaries)
    workspace.init()
    try:
        done = workspace.up_well()
        assert "deprecat" not in done.text
        yield made
    finally:
        done = workspace.destroy()
        assert done.code == 0, done.text
        shutil.rmtree(base)


def test_the_documented_rights_are_enough_and_all_that_is_shown_is_ours(cluster: Cluster) -> None:
    workspace = cluster.workspace
    workspace.unchanged()
    workspace.write({**workspace.cluster, "vault": {"tokenPeriod": "24h"}})
    before = {name: cluster.file(name, "vault-token").read_text() for name in cluster.names}
    done = workspace.up_well()
    assert "deprecat" not in done.text
    for name, old in before.items():
        assert cluster.file(name, "vault-token").read_text() != old
        assert not cluster.bao.client(old).is_authenticated()
    workspace.unchanged()


@pytest.mark.parametrize("line", documented_policy().strip().splitlines(), ids=lambda line: line.split('"')[1])
def test_each_of_them_is_needed_and_missing_ones_are_told_at_preview(cluster: Cluster, line: str) -> None:
    """Asked of the code that a preview runs; the table below runs the preview itself."""
    policy = documented_policy().replace(line, "")
    path = line.split('"')[1].rstrip("*")
    told = check_server(cluster, restricted(cluster.bao, policy, "fewer"))
    assert [one for one in told if path in one], told


def check_server(cluster: Cluster, token: str) -> list[str]:
    from tde_replication.preflight import vault as preflight  # noqa: PLC0415
    from tde_replication.vault.client import Client  # noqa: PLC0415
    from tde_replication.vault.names import VaultNames  # noqa: PLC0415

    names = VaultNames(
        "orders",
        "tde-replication/orders/orders",
        "tde-orders",
        shared=False,
        role="replicator",
        keys=("orders-principal-key",),
        servers=("db1", "db2"),
    )
    missing = preflight._missing_rights(Client(cluster.bao.address, token, str(cluster.bao.ca)), names)
    return [missing] if missing else []


def test_a_deleted_secret_is_seen_and_comes_back(cluster: Cluster) -> None:
    kv = cluster.bao.client().secrets.kv.v2
    kv.delete_latest_version_of_secret(**SECRET)
    plan = cluster.workspace.preview().plan
    assert plan == {"SecretContent orders-replication-secret": "update"}
    cluster.workspace.up_well()
    cluster.workspace.unchanged()
    assert kv.read_secret_version(**SECRET, raise_on_deleted_version=True)["data"]["metadata"]["version"] == 1


def nobody(cluster: Cluster) -> str:
    cluster.bao.kill()
    return "nothing listens at "


def sealed(cluster: Cluster) -> str:
    cluster.bao.seal()
    return "is sealed: unseal it"


def forgotten(cluster: Cluster) -> str:
    for name in ("VAULT_ADDR", "VAULT_TOKEN"):
        del cluster.workspace.environment[name]
    return "cannot be asked: set VAULT_ADDR and VAULT_TOKEN"


@pytest.mark.parametrize("away", [nobody, sealed, forgotten])
def test_without_the_vault_a_person_reads_why_once_and_soon(cluster: Cluster, away: Callable[[Cluster], str]) -> None:
    """By hand, where refresh comes before the program: pulumi-vault still says it in words of its own besides."""
    environment = dict(cluster.workspace.environment)
    try:
        sentence = away(cluster)
        began = time.monotonic()
        done = cluster.workspace.preview()
        took = time.monotonic() - began
    finally:
        cluster.workspace.environment.update(environment)
        cluster.bao.unseal()
    assert done.code != 0
    assert done.text.count(sentence) == 1, done.text
    assert took < (60 if official.plugin("vault") else 20)  # Pulumi's own asks anew for each resource, 4 s each
    cluster.workspace.unchanged()


@pytest.fixture
def fresh(openbao: OpenBao, tmp_path: Path) -> Iterator[Workspace]:
    """A stack that was never raised."""
    base = base_directory()
    workspace = Workspace(tmp_path, "fresh", openbao.environment)
    Cluster(workspace, base, 1, openbao, encryption="off")
    workspace.init()
    yield workspace
    shutil.rmtree(base)


def refused(workspace: Workspace, **vault: Any) -> Output:
    workspace.write({**workspace.cluster, "vault": vault})
    done = workspace.preview()
    assert done.code != 0
    assert "nothing was touched" in done.text
    return done


def test_missing_rights_are_told_all_at_once(fresh: Workspace, openbao: OpenBao) -> None:
    fresh.environment["VAULT_TOKEN"] = restricted(
        openbao, 'path "sys/mounts/tde-fresh" { capabilities = ["read"] }', "few"
    )
    text = refused(fresh).text
    for missing in ("sys/mounts/tde-fresh (delete, update)", "auth/token/create-orphan (sudo, update)"):
        assert missing in text
    assert "docs/security.md" in text
    fresh.environment["VAULT_TOKEN"] = "hvs.nobody-knows"
    assert "does not know this token" in refused(fresh).text


def test_somebody_elses_policy_is_left_as_it_is(fresh: Workspace, openbao: OpenBao) -> None:
    client = openbao.client()
    theirs = 'path "payments/*" { capabilities = ["read"] }'
    client.sys.create_or_update_policy("tde-fresh__db1", theirs)
    try:
        text = refused(fresh).text
        assert 'Vault has a policy "tde-fresh__db1" that was not made by this stack: it is left as it is' in text
        assert client.sys.read_policy("tde-fresh__db1")["data"]["rules"] == theirs
    finally:
        client.sys.delete_policy("tde-fresh__db1")


@pytest.mark.parametrize(
    ("options", "config", "sentence"),
    [
        (None, {}, 'Vault has no mount "shared", and vault.existing: true says that it has'),
        ({"version": "1"}, {}, '"shared" is of type kv version 1, and pg_tde needs kv version 2'),
        ({"version": "2"}, {"cas_required": True}, '"shared" has cas_required'),
        (
            {"version": "2"},
            {"delete_version_after": "720h"},
            '"shared" has delete_version_after=720h0m0s: keys would vanish',
        ),
    ],
)
def test_a_mount_that_would_not_keep_keys_is_refused(
    fresh: Workspace, openbao: OpenBao, options: dict[str, str] | None, config: dict[str, Any], sentence: str
) -> None:
    client = openbao.client()
    if options:
        client.sys.enable_secrets_engine("kv", path="shared", options=options)
    try:
        if config:
            configured(client, config)
        assert sentence in refused(fresh, mount="shared", existing=True).text
    finally:
        client.sys.disable_secrets_engine("shared")


def configured(client: Any, config: dict[str, Any]) -> None:
    """A new mount is unavailable for a moment."""
    for _ in range(100):
        try:
            client.write_data("shared/config", data=config)
        except Exception:  # noqa: BLE001 - it is asked again
            time.sleep(0.1)
        else:
            return


def test_a_mount_of_somebody_elses_is_not_taken(fresh: Workspace, openbao: OpenBao) -> None:
    client = openbao.client()
    client.sys.enable_secrets_engine("kv", path="tde-fresh", options={"version": "2"}, description="payments")
    try:
        assert '"tde-fresh" is there already (payments), and was not made by this stack' in refused(fresh).text
    finally:
        client.sys.disable_secrets_engine("tde-fresh")
