"""What a cluster is to be, decided before any of it is registered: settings, and what machines and Vault say of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import pulumi

from tde_replication import hosts, settings
from tde_replication.errors import UserError
from tde_replication.hosts import facts
from tde_replication.hosts.addresses import networks
from tde_replication.hosts.placement import PlacementContext
from tde_replication.member import Member
from tde_replication.parallel import parallel_map
from tde_replication.postgres.guc import is_off
from tde_replication.postgres.host_file import TOKEN
from tde_replication.postgres.synchronous import Synchronous
from tde_replication.preflight.adoption import adoption, check_adoption, check_dependents
from tde_replication.preflight.clone import check_clones
from tde_replication.preflight.keys import check_cipher, check_keys_in_use, check_weaker_cipher, notices_of_cipher
from tde_replication.preflight.ports import of_adopted
from tde_replication.preflight.server import (
    check_failover,
    check_keys,
    check_mount_exists,
    check_server,
    check_versions,
)
from tde_replication.preflight.vault import check_vault, check_vault_from_servers
from tde_replication.records import Cost
from tde_replication.stack_file import StackFileError
from tde_replication.vault.address import VaultAddress
from tde_replication.vault.names import VaultNames

_taken: dict[str, dict[tuple[str, str, object], str]] = {}
"""By cluster of this program: what its servers occupy, and which one does."""


@dataclass(frozen=True)
class ClusterPlan:
    name: str
    """The component's."""
    stack: str
    """The cluster's whole name: what a data directory is marked with."""
    cluster: settings.Cluster
    vault_address: VaultAddress
    vault_names: VaultNames
    context: PlacementContext
    primary: Member
    standbys: tuple[Member, ...]
    reason: str
    """Why pg_tde is not used; empty where it is."""
    notices: tuple[str, ...] = ()
    """What a person should know before an `up`."""
    cost: Cost | None = None
    """Of the adoption of the primary, which no resource knows yet."""

    @property
    def in_force(self) -> bool:
        return not self.reason

    @property
    def members(self) -> list[Member]:
        return [self.primary, *self.standbys]

    def upstream(self, standby: Member) -> Member:
        """The one that it streams from."""
        name = self.cluster.upstream(standby.declared).name
        return next(member for member in self.members if member.name == name)

    @property
    def downstream(self) -> list[Member]:
        """The standbys, each after the one that it streams from."""

        def depth(standby: Member) -> int:
            above = self.upstream(standby)
            return 0 if above is self.primary else 1 + depth(above)

        return sorted(self.standbys, key=depth)

    def places_beside(self, member: Member) -> list[tuple[str, str]]:
        """Host and data directory of each other server, the primary's first."""
        return [(one.placement.address, str(one.placement.data)) for one in self.members if one is not member]

    @property
    def key(self) -> str:
        """The principal key."""
        return self.vault_names.keys[0]

    @property
    def mount(self) -> str:
        return self.vault_names.mount

    @property
    def token_file(self) -> str:
        return f"{self.name}{TOKEN}"

    @property
    def vault_url(self) -> str:
        """As the servers see it."""
        return self.cluster.vault.address_from_servers or self.vault_address.address

    @property
    def mount_stays(self) -> bool:
        """An adopted primary goes on after the stack, and its server key can never be unset: without key and token it could not
        start again."""
        return not self.cluster.disposable or self.primary.declared.adopt

    @property
    def clients(self) -> list[str]:
        """Where servers connect from, each once: any of them may be a standby, after a switchover."""
        return list(dict.fromkeys(one for member in self._following for one in self.clients_of(member)))

    @property
    def _following(self) -> list[Member]:
        """In an order that a switchover does not change."""
        return sorted(self.members, key=attrgetter("name")) if self.standbys else []

    @property
    def synchronous(self) -> Synchronous | None:
        """Which standbys commits wait for."""
        declared = self.cluster.synchronous
        if declared is None:
            return None
        return Synchronous(
            mode=declared.mode,
            number=declared.number,
            standbys=self.cluster.synchronous_standbys,
            when_too_few=declared.when_too_few,
        )

    def upstreams_of(self, address: str) -> dict[str, tuple[str, str]]:
        """The servers by name, with host and data directory, that standbys at this address stream from by declaration."""
        found = [
            self.upstream(one) for one in self.standbys if one.declared.upstream and address in self.clients_of(one)
        ]
        return {one.name: (one.placement.address, str(one.placement.data)) for one in found}

    def clients_of(self, member: Member) -> Sequence[str]:
        return member.placement.replication_sources or networks(self.primary.placement.replication_host)

    def databases_from(self, address: str) -> list[str]:
        """What pg_hba.conf lets servers at this address connect to."""
        return ["replication", *self.databases(*(one for one in self._following if address in self.clients_of(one)))]

    @property
    def connection_type(self) -> str:
        return "hostssl" if self.cluster.replication.encrypted else "host"

    def databases(self, *standbys: Member) -> list[str]:
        """The database that these log in to: those that synchronize the primary's slots need one."""
        syncs = [member.declared.settings.get("sync_replication_slots", "off") for member in standbys]
        return [] if all(map(is_off, syncs)) else [self.cluster.database]


def plan(name: str, cluster: settings.Cluster, vault_address: VaultAddress, source: str) -> ClusterPlan:
    """Ask the machines and Vault what they have against it.

    Raises `StackFileError` with all of that, each with the key of the setting; `source` is what it calls the settings.
    """
    declared = cluster.vault
    context = context_of(name, cluster)
    stack = f"{pulumi.get_project()}/{pulumi.get_stack()}/{name}"
    primary, *standbys = _placed(cluster, context, source)
    found = ClusterPlan(
        name,
        stack,
        cluster,
        replace(
            vault_address,
            ca=declared.ca or vault_address.ca,
            namespace=declared.namespace or vault_address.namespace,
        ),
        VaultNames(
            context.prefix,
            stack,
            declared.mount or f"tde-{context.prefix}",
            shared=declared.existing,
            role=cluster.replication.role,
            keys=(cluster.key.name or f"{context.prefix}-principal-key", *cluster.key.former),
        ),
        context,
        primary,
        tuple(standbys),
        _why_not_encrypted(cluster, [primary, *standbys]),
    )
    with facts.shared():
        refusal, cost = _of_adopted(found)
        mistakes, notices = _asked(found, source, refusal)
    if mistakes:
        raise StackFileError(source, mistakes)
    return replace(found, notices=tuple(notices), cost=cost)


def context_of(name: str, cluster: settings.Cluster) -> PlacementContext:
    return PlacementContext(pulumi.get_stack(), name, cluster.vault.network, keep=not cluster.disposable)


def _placed(cluster: settings.Cluster, context: PlacementContext, source: str) -> list[Member]:
    """Every declared server's place; where there can be none for some, all of them are told."""

    def place(server: settings.Server) -> Member | UserError:
        try:
            return Member(
                server, hosts.resolve_placement(server, cluster.port(server, context.named(server.name)), context)
            )
        except UserError as problem:
            return problem

    found = parallel_map(place, cluster.members)
    mistakes = [f"{key}: {one}" for key, one in zip(cluster.places, found, strict=True) if isinstance(one, UserError)]
    if mistakes:
        raise StackFileError(source, mistakes)
    return [one for one in found if isinstance(one, Member)]


def _why_not_encrypted(cluster: settings.Cluster, members: Iterable[Member]) -> str:
    """Empty where pg_tde is used."""
    if cluster.encryption == "off":
        return "the stack file says encryption: off"
    for member in members:
        if member.placement.has_pg_tde is False:
            return f"this {member.placement.server} has no pg_tde"
    return ""


def _asked(plan: ClusterPlan, source: str, refusal: str | None) -> tuple[list[str], list[str]]:
    """Mistakes, and notices."""
    cluster, primary, address, in_force = plan.cluster, plan.primary, plan.vault_address, plan.in_force
    told = parallel_map(
        lambda one: check_server(one.declared, one.placement, plan.stack, is_primary=one is primary), plan.members
    )
    found = [line for lines in told for line in lines]
    placements = [member.placement for member in plan.members]
    found += _taken_twice(plan, source)
    found += of_adopted(cluster, primary.placement)
    places = [
        (place, member.declared, member.placement) for place, member in zip(cluster.places, plan.members, strict=True)
    ]
    uncloned, notices = check_clones(places[0], places[1:])
    found += uncloned
    found += check_versions(cluster.places, placements)
    found += check_failover(cluster.places, placements, [member.name for member in plan.members])
    found += check_vault(address, plan.vault_names)
    if in_force:
        found += check_vault_from_servers(cluster, address.address)
    token = primary.beside_data(plan.token_file)
    found += check_adoption(cluster, primary.placement, token, in_force=in_force) or check_keys(
        cluster, primary.placement, plan.vault_names, address.namespace or "", in_force=in_force
    )
    lost = check_mount_exists(address, cluster, primary.placement, plan.mount, token)
    if in_force:
        found += check_cipher(cluster, cluster.places, placements)
        found += check_weaker_cipher(cluster, primary.placement, token)
        notices += notices_of_cipher(cluster, primary.placement)
        lost = lost or check_keys_in_use(cluster, primary.placement, plan.key)
    found += lost
    found += check_dependents(cluster, primary.placement, token, in_force=in_force)
    if refusal:
        found.append(f"{cluster.primary_server.place}: {refusal}")
    if cluster.encryption == "required" and plan.reason:
        found.append(f"cluster.encryption: required, and {plan.reason} (see docs/encryption.md)")
    return found, notices


def _of_adopted(plan: ClusterPlan) -> tuple[str | None, Cost | None]:
    primary = plan.primary
    if not primary.declared.adopt:
        return None, None
    return adoption(primary.declared, primary.placement, primary.parameters(plan.cluster, encrypted=plan.in_force))


def _taken_twice(plan: ClusterPlan, source: str) -> list[str]:
    """What another cluster of this program has, too: before either is made, no machine can tell."""
    places = zip(plan.cluster.places, plan.members, strict=True)
    mine = {one: (place, member.name) for place, member in places for one in member.occupies}
    others = [taken for name, taken in _taken.items() if name != plan.name]
    _taken[plan.name] = {one: f"{name}'s of {source}" for one, (_, name) in mine.items()}
    return [
        f"{place}.{one[1]}: {one[2]} is {other[one]} too: name another one"
        for one, (place, _) in mine.items()
        for other in others
        if one in other
    ]
