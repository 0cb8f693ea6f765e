"""A server with pg_tde, and what is declared in it: the Vault as the component sets it up, and the reconcilers of its keys."""

from pathlib import PurePosixPath
from typing import Any

import hvac

from tde_replication.postgres.base_backup import ClonedDirectory
from tde_replication.postgres.extension import Extension
from tde_replication.postgres.key_binding import KeyBinding
from tde_replication.postgres.key_provider import KeyProvider
from tde_replication.postgres.principal_key import PrincipalKey
from tde_replication.postgres.replication_check import ReplicationCheck
from tde_replication.vault.names import VaultNames
from tests.openbao import OpenBao
from tests.providers.servers import Node, Servers

MOUNT = "team/tde-orders"
NAMES = VaultNames("orders", "tde-replication/orders/orders", MOUNT, shared=False, role="replicator")


class KeyStore:
    """The Vault as the component sets it up, and each server's files of it."""

    def __init__(self, openbao: OpenBao) -> None:
        self.openbao = openbao
        self.client = openbao.client()
        self.client.sys.enable_secrets_engine("kv", path=MOUNT, options={"version": "2"})
        for kind in ("primary", "standby"):
            self.client.sys.create_or_update_policy(f"orders-{kind}", NAMES.policy_text(kind))

    def in_namespace(self, namespace: str) -> Any:
        """A client of a new namespace that has a mount and the primary's policy."""
        self.client.write_data(f"sys/namespaces/{namespace}")
        client = hvac.Client(
            url=self.client.url, token=self.client.token, verify=str(self.openbao.ca), namespace=namespace
        )
        client.sys.enable_secrets_engine("kv", path=MOUNT, options={"version": "2"})
        client.sys.create_or_update_policy("orders-primary", NAMES.policy_text("primary"))
        return client

    def token(self, kind: str, client: Any = None) -> str:
        made = (client or self.client).auth.token.create(
            policies=[f"orders-{kind}"], no_default_policy=True, no_parent=True
        )
        return str(made["auth"]["client_token"])

    def equip(self, host: Any, data: PurePosixPath, kind: str) -> None:
        host.write(data.parent / "orders.vault-token", self.token(kind).encode(), mode=0o600)
        host.write(data.parent / "orders.vault-ca.pem", self.openbao.ca.read_bytes(), mode=0o644)

    def versions(self, key: str) -> int:
        return len(self.client.secrets.kv.v2.read_secret_metadata(key, mount_point=MOUNT)["data"]["versions"])


def here(node: Node) -> dict[str, str]:
    return {**node.inside, "database": "postgres"}


def provider(node: Node, store: KeyStore, **fields: Any) -> KeyProvider:
    declared = {
        "provider": "vault",
        "url": store.openbao.address,
        "mount_path": MOUNT,
        "token_path": "../orders.vault-token",
        "ca_path": "../orders.vault-ca.pem",
    }
    return KeyProvider.model_validate(here(node) | declared | fields)


def key(node: Node, name: str = "orders-key", **fields: Any) -> PrincipalKey:
    return PrincipalKey.model_validate({**here(node), "key": name, "provider": "vault"} | fields)


def binding(node: Node, scope: str, name: str = "orders-key", **fields: Any) -> KeyBinding:
    return KeyBinding.model_validate({**here(node), "scope": scope, "key": name, "provider": "vault"} | fields)


def check(primary: Node, standby: Node) -> ReplicationCheck:
    clone = standby.directory
    assert isinstance(clone, ClonedDirectory)
    return ReplicationCheck.model_validate(
        {
            **standby.inside,
            "made_at": clone.made_at,
            "standby": standby.server.name,
            "slot": clone.slot,
            "primary_host": "local",
            "primary_directory": str(primary.data),
            "encryption": True,
            "key": "orders-key",
        }
    )


def encrypted_server(cluster: Servers, store: KeyStore, name: str, **settings: str) -> Node:
    """A primary on which tables can be encrypted."""
    node = cluster.primary(name, shared_preload_libraries="pg_tde", **settings)
    store.equip(node.host, node.data, "primary")
    Extension.model_validate(here(node)).create()
    provider(node, store).create()
    key(node).create()
    binding(node, "server").create()
    binding(node, "default").create()
    return node
