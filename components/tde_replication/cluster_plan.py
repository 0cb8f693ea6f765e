"""What a cluster is to be, as data: `decision` decides it, and `build` registers it."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from tde_replication import settings
from tde_replication.hosts.addresses import networks
from tde_replication.hosts.placement import PlacementContext
from tde_replication.member import Files, Member, Occupied, Standby
from tde_replication.postgres.synchronous import Synchronous
from tde_replication.postgres.tables import Pattern, patterns
from tde_replication.records import Cost
from tde_replication.server_parameters import synchronizes_slots
from tde_replication.vault.address import VaultAddress
from tde_replication.vault.key_age import NewestKey
from tde_replication.vault.names import VaultNames


@dataclass(frozen=True)
class Findings:
    """What running servers, machines and Vault say of a plan."""

    mistakes: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    """What a person should know before an `up`."""
    cost: Cost | None = None
    """Of the adoption of the primary, which no resource knows yet."""
    primary_is_there: bool = False
    """Whether the primary has data already: it may be a standby until now."""


@dataclass(frozen=True)
class ClusterPlan:
    context: PlacementContext
    cluster: settings.Cluster
    vault_address: VaultAddress
    vault_names: VaultNames
    primary: Member
    standbys: tuple[Standby, ...]
    reason: str
    """Why pg_tde is not used; empty where it is."""
    newest_key: NewestKey
    """The principal key that there is now, before this `up`."""
    files: Files
    synchronous: Synchronous | None
    """Which standbys commits wait for."""
    findings: Findings = Findings()

    @property
    def name(self) -> str:
        """The component's."""
        return self.context.cluster

    @property
    def stack(self) -> str:
        """The cluster's whole name: what a data directory is marked with."""
        return self.context.whole

    @property
    def in_force(self) -> bool:
        return not self.reason

    @property
    def members(self) -> list[Member]:
        return [self.primary, *self.standbys]

    def upstream(self, standby: Standby) -> Member:
        """The one that it streams from."""
        return self.member(self.cluster.upstream(standby.declared).name)

    def member(self, name: str) -> Member:
        return next(one for one in self.members if one.name == name)

    @property
    def downstream(self) -> list[Standby]:
        """The standbys, each after the one that it streams from."""

        def depth(standby: Standby) -> int:
            above = self.upstream(standby)
            return 1 + depth(above) if isinstance(above, Standby) else 0

        return sorted(self.standbys, key=depth)

    def places_beside(self, member: Member) -> list[tuple[str, str]]:
        """Host and data directory of each other server, the primary's first."""
        return [(one.placement.address, str(one.placement.data)) for one in self.members if one is not member]

    @property
    def stanza(self) -> str:
        """Of pgBackRest; empty: the stack declares no archive."""
        return self.cluster.archive.pgbackrest.stanza if self.cluster.archive else ""

    @property
    def key(self) -> str:
        """The principal key to use."""
        return self.vault_names.keys[0]

    @property
    def mount(self) -> str:
        return self.vault_names.mount

    def occupied(self, source: str) -> dict[Occupied, str]:
        """What no other cluster may have, and who has it; `source` is what the settings are called."""
        return {one: f"{member.name} of {source}" for member in self.members for one in member.occupies}

    @property
    def vault_url(self) -> str:
        """As the servers see it."""
        return self.cluster.vault.address_from_servers or self.vault_address.address

    @property
    def mount_stays(self) -> bool:
        """An adopted server goes on after the stack, and its server key can never be unset: without key and token it could not
        start again."""
        return not self.cluster.disposable or any(member.adopted for member in self.members)

    @property
    def replication_sources(self) -> list[str]:
        """Where servers connect from, each once: any of them may be a standby, after a switchover."""
        return list(dict.fromkeys(one for member in self._following for one in self.sources_of(member)))

    @property
    def _following(self) -> list[Member]:
        """In an order that a switchover does not change."""
        return sorted(self.members, key=attrgetter("name")) if self.standbys else []

    @property
    def restarted_for_upgrades(self) -> list[Member]:
        """The servers that are restarted where packages have replaced their programs."""
        which = self.cluster.minor_upgrade
        found = [self.primary, *self.standbys] if which == "all" else self.standbys if which else ()
        return [one for one in found if one.declared.restart == "allowed" and not one.placement.in_container]

    @property
    def tables(self) -> dict[str, list[Pattern]]:
        """What is declared of the tables of each database."""
        return {name: patterns(declared) for name, declared in self.cluster.tables_by_database.items()}

    def upstreams_of(self, address: str) -> dict[str, tuple[str, str]]:
        """The servers by name, with host and data directory, that standbys at this address stream from by declaration."""
        found = [
            self.upstream(one) for one in self.standbys if one.declared.upstream and address in self.sources_of(one)
        ]
        return {one.name: (one.placement.address, str(one.placement.data)) for one in found}

    def sources_of(self, member: Member) -> Sequence[str]:
        return member.placement.replication_sources or networks(self.primary.placement.replication_host)

    def databases_from(self, address: str) -> list[str]:
        """What pg_hba.conf lets servers at this address connect to."""
        return ["replication", *self.logins(*(one for one in self._following if address in self.sources_of(one)))]

    @property
    def connection_type(self) -> str:
        return "hostssl" if self.cluster.replication.encrypted else "host"

    def logins(self, *standbys: Member) -> list[str]:
        """The database that these may log in to: a former primary is rewound by queries, too."""
        return [self.cluster.database] if self.cluster.rejoin == "rewind" else self.databases(*standbys)

    def databases(self, *standbys: Member) -> list[str]:
        """The database that these stream with."""
        return [self.cluster.database] if any(synchronizes_slots(one.declared) for one in standbys) else []
