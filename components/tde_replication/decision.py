"""Decides a `ClusterPlan`: by settings and a few facts alone. Nothing is asked and nothing is registered here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from tde_replication import settings
from tde_replication.cluster_plan import ClusterPlan
from tde_replication.hosts.placement import Placement, PlacementContext
from tde_replication.member import Files, Member, Standby
from tde_replication.postgres.host_file import PASSFILE, ca_file, token_file
from tde_replication.postgres.restore import note_name
from tde_replication.postgres.synchronous import Synchronous
from tde_replication.postgres.upstream import Upstream
from tde_replication.server_parameters import parameters, set_in_all
from tde_replication.vault.address import VaultAddress
from tde_replication.vault.key_age import NewestKey
from tde_replication.vault.names import VaultNames


@dataclass(frozen=True)
class Facts:
    """What a plan is made of beside settings."""

    placements: Mapping[str, Placement]
    """By the names of the servers."""
    newest_key: NewestKey
    now: datetime


def decide(
    context: PlacementContext, cluster: settings.Cluster, vault_address: VaultAddress, facts: Facts
) -> ClusterPlan:
    """`vault_address` is as `vault_of` makes it."""
    reason = why_not_encrypted(cluster, facts.placements.values())
    keys = facts.newest_key.names(cluster.key.rotate_after, facts.now)
    name, provider = context.cluster, cluster.vault.provider
    members = _Members(
        cluster,
        facts.placements,
        Files(
            token_file(name, provider),
            ca_file(name, provider) if vault_address.ca else None,
            f"{name}{PASSFILE}",
            note_name(name),
        ),
        _synchronous(cluster),
        encrypted=not reason,
    )
    return ClusterPlan(
        context,
        cluster,
        vault_address,
        VaultNames(
            context.prefix,
            context.whole,
            mount_of(context, cluster),
            shared=cluster.vault.existing,
            role=cluster.replication.role,
            keys=(*keys, *(one.name for one in cluster.keys.values())),
            servers=tuple(sorted(cluster.servers)),
            renewing=tuple(one.name for one in cluster.members if renews_its_token(cluster, one)),
        ),
        members.primary(),
        tuple(map(members.standby, cluster.standbys)),
        reason,
        facts.newest_key,
        members.files,
        members.synchronous,
    )


@dataclass(frozen=True)
class _Members:
    """Decides each server of one cluster."""

    cluster: settings.Cluster
    placements: Mapping[str, Placement]
    files: Files
    synchronous: Synchronous | None
    encrypted: bool

    def primary(self) -> Member:
        server = self.cluster.primary_server
        own = self._parameters(server, None)
        return Member(
            server,
            self.placements[server.name],
            own,
            self._given_back(server, own),
            self._removed(server, self.files.of_vault),
        )

    def standby(self, server: settings.Server) -> Standby:
        own = self._parameters(server, self._reached(server, self.cluster.upstream(server)))
        return Standby(
            server,
            self.placements[server.name],
            own,
            self._given_back(server, own),
            self._removed(server, (*self.files.of_vault, self.files.passfile)),
            source=self._reached(server, self.cluster.primary_server),
        )

    def _parameters(self, server: settings.Server, upstream: Upstream | None) -> dict[str, str]:
        return parameters(self.cluster, server, self.placements[server.name], upstream, encrypted=self.encrypted)

    def _given_back(self, server: settings.Server, own: Mapping[str, str]) -> dict[str, str]:
        return set_in_all(own, self.cluster, self.synchronous, encrypted=self.encrypted) if server.adopt else {}

    def _removed(self, server: settings.Server, names: tuple[str, ...]) -> tuple[str, ...]:
        """An adopted server with pg_tde goes on after the stack, and could not start without what it opens."""
        kept = self.files.of_vault if server.adopt and self.encrypted else ()
        # Also where no archive is declared any more.
        return (*(one for one in names if one not in kept), self.files.drill)

    def _reached(self, standby: settings.Server, sender: settings.Server) -> Upstream:
        """How `standby` reaches `sender`."""
        replication, placement = self.cluster.replication, self.placements[sender.name]
        return Upstream(
            host=placement.replication_host,
            port=placement.port,
            role=replication.role,
            tls=replication.tls,
            root_certificate=replication.root_certificate,
            passfile=self.placements[standby.name].beside_data(self.files.passfile),
        )


def renews_its_token(cluster: settings.Cluster, server: settings.Server) -> bool:
    """Whether the server's machine has a timer for that."""
    return cluster.vault.renewal == "timer" and server.kind == "ssh" and not server.adopt


def _synchronous(cluster: settings.Cluster) -> Synchronous | None:
    declared = cluster.synchronous
    if declared is None:
        return None
    return Synchronous(
        mode=declared.mode,
        number=declared.number,
        standbys=cluster.synchronous_standbys,
        when_too_few=declared.when_too_few,
    )


def vault_of(cluster: settings.Cluster, address: VaultAddress) -> VaultAddress:
    """The Vault, with what the settings say of it before all else."""
    declared = cluster.vault
    return replace(address, ca=declared.ca or address.ca, namespace=declared.namespace or address.namespace)


def mount_of(context: PlacementContext, cluster: settings.Cluster) -> str:
    return cluster.vault.mount or f"tde-{context.prefix}"


def declared_key(context: PlacementContext, cluster: settings.Cluster) -> NewestKey:
    """The key as long as Vault was not asked."""
    return NewestKey(cluster.key.name or f"{context.prefix}-principal-key", others=tuple(cluster.key.former))


def why_not_encrypted(cluster: settings.Cluster, placements: Iterable[Placement]) -> str:
    """Empty where pg_tde is used."""
    if cluster.encryption == "off":
        return "the stack file says encryption: off"
    without = next((one for one in placements if one.has_pg_tde is False), None)
    return f"this {without.server} has no pg_tde" if without else ""
