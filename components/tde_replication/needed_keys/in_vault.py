"""What Vault has of the keys that were found, and what a running server calls their databases and providers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import sql
from pydantic import TypeAdapter, ValidationError

from tde_replication import hosts
from tde_replication.errors import UserError
from tde_replication.needed_keys.model import InVault, NeededKey
from tde_replication.postgres.pg_tde import PROVIDERS, PgTde
from tde_replication.rotations import with_rotations
from tde_replication.status.declared import Declared, DeclaredServer
from tde_replication.status.observation import limited_session
from tde_replication.values import VaultPath
from tde_replication.vault.client import Client
from tde_replication.vault.key_age import names_beside
from tde_replication.vault_url import same_address

PATH: TypeAdapter[str] = TypeAdapter(VaultPath)


@dataclass(frozen=True)
class Names:
    """What a running server calls things; ids and oids are the same in all copies of a cluster, and are not used twice."""

    databases: Mapping[int, str] = field(default_factory=dict)
    providers: Mapping[int, tuple[str, str, str, str]] = field(default_factory=dict)
    """Name, type, url and mount."""


def names(server: DeclaredServer, database: str) -> Names | None:
    """None of a server that does not answer."""
    if server.placement is None:
        return None
    try:
        host = hosts.host(server.placement.address)
        with limited_session(host, server.placement.data, f"server {server.name}", database) as session:
            databases: dict[int, str] = dict(session.shown("SELECT oid::bigint, datname FROM pg_database"))
            query = sql.SQL(
                "SELECT id, name, type, coalesce(options->>'url', ''), coalesce(options->>'mountPath', '') FROM {}"
            )
            rows = session.shown(query.format(PgTde(session).table(PROVIDERS)))
    except UserError:
        return None
    return Names(databases, {number: tuple(rest) for number, *rest in rows})


class StackVault:
    """The stack's Vault, asked once for each key."""

    def __init__(self, found: Declared, known: Names) -> None:
        self.found = found
        self.names = known
        self.mount = found.cluster.vault.mount or f"tde-{found.stack}"
        self._client = found.vault.client if found.vault else None
        self._known: dict[tuple[str, str], tuple[InVault, str]] = {}

    def completed(self, key: NeededKey) -> NeededKey:
        number = int(key.provider)
        provider = self.names.providers.get(number)
        vault, problem = self._state(key.name, provider)
        return key.model_copy(
            update={
                "database": self.names.databases.get(key.database_oid or 0),
                "provider": provider[0] if provider else key.provider,
                "vault": vault,
                "problem": problem,
            }
        )

    def of_this_cluster(self) -> set[str]:
        """The declared keys and their rotations, as far as Vault lists them."""
        if self._client is None:
            return set()
        cluster = self.found.cluster
        declared_key = cluster.key.name or f"{self.found.stack}-principal-key"
        held: set[str] = set()
        for key in (declared_key, *cluster.key.former, *(one.name for one in cluster.keys.values())):
            try:
                listed = names_beside(self._client, self.mount, key)
            except UserError:
                continue
            held |= set(with_rotations(key, listed)) & set(listed)
        return held

    def _state(self, key: str, provider: tuple[str, str, str, str] | None) -> tuple[InVault, str]:
        mount = self.mount
        if provider:
            name, kind, url, mount = provider
            if kind != "vault-v2":
                return "not looked up", f"key provider {name} is of type {kind}"
            declared_url = self.found.cluster.vault.address_from_servers
            ours = [one for one in (declared_url, self._client.address if self._client else None) if one]
            if ours and not any(same_address(url, one) for one in ours):
                return "not looked up", f"key provider {name} is of another Vault"
        if self._client is None:
            return "unknown", self.found.vault_problem
        if (mount, key) not in self._known:
            self._known[mount, key] = _asked(self._client, mount, key)
        state, problem = self._known[mount, key]
        if provider is None and state == "gone":  # it may be in another place, which only a running server could name
            return "unknown", f"{problem}, and no running server says where its key provider has its keys"
        return state, problem


def _asked(client: Client, mount: str, key: str) -> tuple[InVault, str]:
    try:
        found = client.get(f"{PATH.validate_python(mount)}/metadata/{PATH.validate_python(key)}")
    except ValidationError:
        return "unknown", "its name is not one that a Vault takes"
    except UserError as why:
        return "unknown", str(why)
    return _judged(found, mount, key)


def _judged(found: dict[str, Any] | None, mount: str, key: str) -> tuple[InVault, str]:
    """By the metadata of the key."""
    if found is None:
        return "gone", f"Vault has no {mount}/{key}"
    versions, current = found.get("versions"), found.get("current_version")
    newest = versions.get(str(current)) if isinstance(versions, dict) else None
    if not isinstance(newest, dict):
        return "unknown", "Vault does not report its versions"
    if newest.get("destroyed"):
        return "gone", "it was destroyed in Vault"
    if newest.get("deletion_time"):
        restore = f"vault kv undelete -mount={mount} -versions={current} {key}"
        return "deleted", f"it was deleted in Vault; `{restore}` restores it"
    if current != 1:
        return "replaced", f"Vault has version {current} of it, and pg_tde writes one: it was replaced"
    return "held", ""
