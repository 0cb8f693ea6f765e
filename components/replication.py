"""`EncryptedReplication`: a primary and its standbys with pg_tde, as one component.

KeyVault ─ mount, policies, a token per server, the role's secret
   └ Primary ─ DataDirectory → token file → Server
       ├ Extension → KeyProvider → PrincipalKey → KeyBinding (server, default) → WalEncryption
       ├ ReplicationRole → HbaRule
       └ for each standby: ReplicationSlot → BaseBackup + token file + passfile → Server → ReplicationCheck
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pulumi
import pulumi_vault as vault
from psycopg.conninfo import make_conninfo
from pulumi import Output, ResourceOptions

from components import settings
from components.hosts.account import local_root
from components.hosts.installation import Installation, find_installation
from components.key_vault import KeyVault, VaultAddress
from components.postgres import resources
from components.postgres.upstream import Upstream, passfile
from components.preflight import objections

PROJECT = Path(__file__).resolve().parents[1]
TYPE = "tde:index:EncryptedReplication"
BASE_BACKUP = "pulumi-python:dynamic/postgres:BaseBackup"


@dataclass(frozen=True)
class Encryption:
    mode: str
    in_force: bool
    reason: str
    """Why it is not in force; empty where it is."""


@dataclass
class Node:
    """One server of the cluster, as far as it is declared."""

    declared: settings.Server
    port: int
    data: PurePosixPath
    installation: Installation
    server: resources.Server | None = None

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def location(self) -> dict[str, Any]:
        return {"host": self.declared.host, "data_directory": str(self.data)}

    @property
    def dsn(self) -> str:
        return make_conninfo(host="/tmp", port=self.port, user="postgres", dbname="postgres")  # noqa: S108


class EncryptedReplication(pulumi.ComponentResource):
    primary: Output[dict[str, Any]]
    standbys: Output[list[dict[str, Any]]]
    primary_dsn: Output[str]
    standby_dsns: Output[list[str]]
    vault: Output[dict[str, str]]
    encryption: Output[dict[str, Any]]
    summary: Output[str]

    def __init__(
        self, name: str, cluster: settings.Cluster, vault_address: VaultAddress, opts: ResourceOptions | None = None
    ) -> None:
        super().__init__(TYPE, name, None, opts)
        self._name = name
        self._cluster = cluster
        self._stack = f"{pulumi.get_project()}/{pulumi.get_stack()}/{name}"
        self._nodes = [self._node(server) for server in cluster.servers]
        self._encryption = _encryption(cluster, self._nodes[0].installation)
        self._refuse_mistakes()
        primary, *standbys = self._nodes
        if not self._encryption.in_force:
            pulumi.log.warn(f"NOT ENCRYPTED: {self._encryption.reason}", self)

        mount = cluster.vault.mount or f"tde-{name}"
        password = resources.Password(
            f"{name}-replication-password", self._child(), version=cluster.replication.password_version
        ).output("value")
        key_vault = self._key_vault(mount, password, vault_address)
        directory = resources.InitializedDirectory(
            primary.name,
            self._child(),
            **primary.location,
            binaries=str(primary.installation.binaries),
            stack=self._stack,
            disposable=cluster.is_disposable,
        )
        identifier = directory.output("system_identifier")
        files = self._vault_files(primary, key_vault, vault_address)
        primary.server = self._server(
            primary, directory, [directory, *files], settings_of(self._cluster, primary, self._in_force)
        )
        on_primary = self._child(depends_on=[primary.server], deleted_with=directory if cluster.is_disposable else None)
        inside = {**primary.location, "system_identifier": identifier}
        keys = self._keys(primary, inside, key_vault, vault_address, on_primary) if self._in_force else []
        role = resources.ReplicationRole(
            cluster.replication.role, on_primary, **inside, role=cluster.replication.role, password=password
        )
        rules = [
            resources.HbaRule(
                f"{cluster.replication.role} {address}",
                ResourceOptions.merge(on_primary, ResourceOptions(depends_on=[role])),
                **inside,
                connection_type="hostssl"
                if cluster.replication.tls in {"require", "verify-ca", "verify-full"}
                else "host",
                role=cluster.replication.role,
                address=address,
            )
            for address in dict.fromkeys(node.declared.address or "127.0.0.1/32" for node in standbys)
        ]
        checks = [
            self._standby(node, primary, directory, inside, [*keys, *rules], key_vault, vault_address, password)
            for node in standbys
        ]
        self._register(primary, standbys, mount, vault_address, [*keys, role, *rules, *checks])

    @property
    def _in_force(self) -> bool:
        return self._encryption.in_force

    def _refuse_mistakes(self) -> None:
        found = [
            line
            for place, node in zip(self._cluster.places, self._nodes, strict=True)
            for line in objections(place, node.declared, node.data, node.port, self._stack)
        ]
        if self._cluster.encryption == "required" and not self._in_force:
            found.append(f"cluster.encryption: required, and {self._encryption.reason} (see docs/encryption.md)")
        if found:
            raise settings.Mistakes(f"stacks/Pulumi.{pulumi.get_stack()}.yaml", found)

    def _child(self, **options: Any) -> ResourceOptions:
        return ResourceOptions(parent=self, **options)

    def _node(self, server: settings.Server) -> Node:
        root = local_root(PROJECT) / pulumi.get_stack() / server.name
        data = PurePosixPath(server.data_directory or root / "data")
        installation = find_installation(PROJECT, server.binaries, settings.SUPPORTED)
        return Node(server, self._cluster.port(server), data, installation)

    def _key_vault(self, mount: str, password: Output[str], address: VaultAddress) -> KeyVault:
        provider = vault.Provider(
            f"{self._name}-vault",
            address=address.address,
            token=address.token,
            ca_cert_file=self._cluster.vault.ca or address.ca,
            namespace=self._cluster.vault.namespace,
            skip_child_token=True,
            opts=self._child(),
        )
        return KeyVault(
            self._name,
            mount=mount,
            existing=self._cluster.vault.existing,
            keep=not self._cluster.is_disposable,
            primary=self._nodes[0].name,
            standbys=[node.name for node in self._nodes[1:]],
            token_period_hours=int(self._cluster.vault.token_period.removesuffix("h")),
            role=self._cluster.replication.role,
            password=password,
            opts=self._child(providers=[provider]),
        )

    def _path_from_data(self, suffix: str) -> str:
        """A file beside the data directory, by a path that is the same on every server: pg_tde counts it from PGDATA."""
        return f"../{self._name}.{suffix}"

    def _vault_files(self, node: Node, key_vault: KeyVault, address: VaultAddress) -> list[resources.HostFile]:
        """What pg_tde opens before it can talk to Vault: the server's own token, and the CA."""
        files = [
            resources.HostFile(
                f"{node.name}-vault-token",
                self._child(),
                host=node.declared.host,
                path=str(node.data.parent / f"{self._name}.vault-token"),
                content=key_vault.tokens[node.name],
            )
        ]
        if ca := self._cluster.vault.ca or address.ca:
            files.append(
                resources.HostFile(
                    f"{node.name}-vault-ca",
                    self._child(),
                    host=node.declared.host,
                    path=str(node.data.parent / f"{self._name}.vault-ca.pem"),
                    content=Path(ca).read_text(),
                    mode="0644",
                )
            )
        return files

    def _server(
        self, node: Node, directory: Any, depends_on: list[pulumi.Resource], parameters: dict[str, str], **more: Any
    ) -> resources.Server:
        return resources.Server(
            node.name,
            self._child(depends_on=depends_on),
            **node.location,
            system_identifier=directory.output("system_identifier"),
            made_at=directory.output("made_at"),
            name=node.name,
            binaries=str(node.installation.binaries),
            settings=parameters,
            restart=node.declared.restart,
            **more,
        )

    def _keys(
        self, primary: Node, inside: dict[str, Any], key_vault: KeyVault, address: VaultAddress, opts: ResourceOptions
    ) -> list[pulumi.Resource]:
        """Extension → key provider → principal key → what it is set for, in the order that pg_tde needs."""
        cluster = self._cluster
        name = cluster.key.name or f"{self._name}-principal-key"
        here = {**inside, "database": cluster.database}
        last: pulumi.Resource = resources.Extension(f"pg_tde in {cluster.database}", opts, **here)
        last = resources.KeyProvider(
            cluster.vault.provider,
            _after(opts, last),
            **here,
            provider=cluster.vault.provider,
            url=address.address,
            mount_path=key_vault.mount,
            token_path=self._path_from_data("vault-token"),
            ca_path=self._path_from_data("vault-ca.pem") if cluster.vault.ca or address.ca else "",
        )
        last = resources.PrincipalKey(
            name, _after(opts, last), **here, key=name, provider=cluster.vault.provider, bits=cluster.key.bits
        )
        standbys = [(node.declared.host, str(node.data)) for node in self._nodes[1:]]
        for scope in sorted(
            cluster.key.scope, reverse=True
        ):  # the server's first: setting a default alone would set both
            last = resources.KeyBinding(
                f"{scope} key",
                _after(opts, last),
                **here,
                scope=scope,
                key=name,
                provider=cluster.vault.provider,
                standbys=standbys,
            )
        if cluster.wal_encryption:
            last = resources.WalEncryption(
                f"WAL of {primary.name}",
                _after(opts, last),
                **inside,
                name=primary.name,
                binaries=str(primary.installation.binaries),
                restart=primary.declared.restart,
            )
        return [last]

    def _standby(
        self,
        node: Node,
        primary: Node,
        primary_directory: resources.InitializedDirectory,
        inside: dict[str, Any],
        ready: list[pulumi.Resource],
        key_vault: KeyVault,
        vault_address: VaultAddress,
        password: Output[str],
    ) -> resources.ReplicationCheck:
        cluster = self._cluster
        slot_name = f"tde_{node.name.replace('-', '_')}"
        slot = resources.ReplicationSlot(
            slot_name,
            self._child(depends_on=[primary.server], deleted_with=primary_directory if cluster.is_disposable else None),
            **inside,
            slot=slot_name,
        )
        upstream = Upstream(
            host="127.0.0.1",
            port=primary.port,
            role=cluster.replication.role,
            tls=cluster.replication.tls,
            passfile=str(node.data.parent / f"{self._name}.pgpass"),
        )
        pgpass = resources.HostFile(
            f"{node.name}-pgpass",
            self._child(),
            host=node.declared.host,
            path=upstream.passfile,
            content=password.apply(lambda value: passfile(cluster.replication.role, value).decode()),
        )
        directory = resources.ClonedDirectory(
            node.name,
            self._child(depends_on=[slot, pgpass, *ready]),
            **node.location,
            binaries=str(node.installation.binaries),
            stack=self._stack,
            disposable=cluster.is_disposable,
            origin=f"base backup of {primary.name}",
            # As text: the component's own URN would make it depend on its children.
            urn=f"urn:pulumi:{pulumi.get_stack()}::{pulumi.get_project()}::{TYPE}${BASE_BACKUP}::{node.name}",
            upstream=upstream.model_dump(by_alias=True),
            slot=slot_name,
            encrypt_wal=cluster.wal_encryption and self._in_force,
            primary_host=primary.declared.host,
            primary_directory=str(primary.data),
            primary_identifier=inside["system_identifier"],
        )
        files = self._vault_files(node, key_vault, vault_address)
        parameters = settings_of(cluster, node, self._in_force) | {
            "primary_conninfo": upstream.conninfo(node.name),
            "primary_slot_name": slot_name,
        }
        node.server = self._server(node, directory, [directory, *files], parameters, recovery="standby")
        return resources.ReplicationCheck(
            node.name,
            self._child(depends_on=[node.server]),
            **node.location,
            system_identifier=directory.output("system_identifier"),
            made_at=directory.output("made_at"),
            standby=node.name,
            slot=slot_name,
            primary_host=primary.declared.host,
            primary_directory=str(primary.data),
            database=cluster.database,
            encryption=self._in_force,
            key=(cluster.key.name or f"{self._name}-principal-key") if self._in_force else "",
        )

    def _register(
        self, primary: Node, standbys: list[Node], mount: str, vault_address: VaultAddress, last: list[pulumi.Resource]
    ) -> None:
        done = Output.all(*(resource.urn for resource in last))
        cluster = self._cluster

        def described(node: Node, role: str) -> dict[str, Any]:
            slot = {"slot": f"tde_{node.name.replace('-', '_')}"} if role == "standby" else {}
            state = "streaming" if role == "standby" else "running"
            return {
                "name": node.name,
                "host": node.declared.host,
                "port": node.port,
                "dataDirectory": str(node.data),
                "state": state,
                **slot,
            }

        def after(value: Any) -> Output[Any]:
            return done.apply(lambda _: value)

        self.primary = after(described(primary, "primary"))
        self.standbys = after([described(node, "standby") for node in standbys])
        self.primary_dsn = Output.secret(after(primary.dsn))
        self.standby_dsns = Output.secret(after([node.dsn for node in standbys]))
        self.vault = after({"address": vault_address.address, "mount": mount})
        facts: dict[str, Any] = {"mode": cluster.encryption, "inForce": self._in_force}
        if self._in_force:
            facts |= {"provider": cluster.vault.provider, "key": cluster.key.name or f"{self._name}-principal-key"}
        else:
            facts |= {"reason": self._encryption.reason}
        self.encryption = after(facts)
        self.summary = after(self._summary(primary, standbys))
        self.register_outputs(
            {
                "primary": self.primary,
                "standbys": self.standbys,
                "vault": self.vault,
                "encryption": self.encryption,
                "summary": self.summary,
            }
        )

    def _summary(self, primary: Node, standbys: list[Node]) -> str:
        count = f"{len(standbys)} standby" if len(standbys) == 1 else f"{len(standbys)} standbys"
        state = "encrypted by pg_tde" if self._in_force else f"NOT ENCRYPTED: {self._encryption.reason}"
        width = max(len(node.name) for node in self._nodes)
        cap = self._cluster.replication.max_slot_wal_keep_size
        lines = [f"{pulumi.get_stack()}: 1 primary, {count}{', streaming' if standbys else ''}          {state}"]
        for node in self._nodes:
            slot = "" if node is primary else f"   slot tde_{node.name.replace('-', '_')} (WAL kept: {cap})"
            lines.append(f"  {node.name:<{width}}  127.0.0.1:{node.port}{slot}")
        return "\n".join(lines)


def settings_of(cluster: settings.Cluster, node: Node, encrypted: bool) -> dict[str, str]:  # noqa: FBT001
    """The parameters that the stack sets on a server: the person's own, and what replication needs."""
    libraries = [node.declared.settings.get("shared_preload_libraries", ""), "pg_tde" if encrypted else ""]
    needed = {
        "port": str(node.port),
        "listen_addresses": ",".join(node.declared.listen),
        "unix_socket_directories": "/tmp",  # noqa: S108 - PostgreSQL's own default; clients check who listens (requirepeer)
        "cluster_name": node.name,
        "max_slot_wal_keep_size": cluster.replication.max_slot_wal_keep_size,
    }
    if any(libraries):
        needed["shared_preload_libraries"] = ",".join(filter(None, libraries))
    if encrypted and cluster.wal_encryption and node.name != cluster.primary.name:
        needed["pg_tde.wal_encrypt"] = "on"
    return node.declared.settings | needed


def _after(opts: ResourceOptions, resource: pulumi.Resource) -> ResourceOptions:
    return ResourceOptions.merge(opts, ResourceOptions(depends_on=[resource]))


def _encryption(cluster: settings.Cluster, installation: Installation) -> Encryption:
    """Whether pg_tde is used."""
    if cluster.encryption == "off":
        return Encryption("off", in_force=False, reason="the stack file says encryption: off")
    if installation.has_pg_tde:
        return Encryption(cluster.encryption, in_force=True, reason="")
    reason = f"this PostgreSQL ({installation.version}{', embedded' if installation.embedded else ''}) has no pg_tde"
    return Encryption(cluster.encryption, in_force=False, reason=reason)
