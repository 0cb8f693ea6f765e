"""What a cluster is to be, decided before any of it is registered: settings, and what machines and Vault say of them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pulumi

from tde_replication import hosts, settings
from tde_replication.errors import Problem
from tde_replication.hosts.site import Surroundings
from tde_replication.node import Node
from tde_replication.preflight import (
    adoption,
    objections,
    objections_of_adoption,
    objections_of_dependents,
    objections_of_failover,
    objections_of_keys,
    objections_of_lost_mount,
    objections_of_versions,
)
from tde_replication.preflight_clone import clones
from tde_replication.preflight_keys import (
    notices_of_cipher,
    objections_of_cipher,
    objections_of_keys_in_use,
    objections_of_weaker_cipher,
)
from tde_replication.preflight_ports import of_adopted
from tde_replication.side_by_side import side_by_side
from tde_replication.stack_file import Mistakes
from tde_replication.vault.address import VaultAddress
from tde_replication.vault.names import VaultNames
from tde_replication.vault.preflight import objections_of_reach, objections_of_vault

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
    surroundings: Surroundings
    primary: Node
    standbys: tuple[Node, ...]
    reason: str
    """Why pg_tde is not used; empty where it is."""
    notices: tuple[str, ...] = ()
    """What a person should know before an `up`."""

    @property
    def in_force(self) -> bool:
        return not self.reason

    @property
    def nodes(self) -> list[Node]:
        return [self.primary, *self.standbys]

    @property
    def key(self) -> str:
        """The principal key."""
        return self.vault_names.keys[0]

    @property
    def mount(self) -> str:
        return self.vault_names.mount

    @property
    def token_file(self) -> str:
        return f"{self.name}.vault-token"


def plan(name: str, cluster: settings.Cluster, vault_address: VaultAddress, source: str) -> ClusterPlan:
    """Ask the machines and Vault what they have against it.

    Raises `Mistakes` with all of that, each with the key of the setting; `source` is what it calls the settings.
    """
    declared = cluster.vault
    surroundings = Surroundings(pulumi.get_stack(), name, declared.network, keep=not cluster.disposable)
    stack = f"{pulumi.get_project()}/{pulumi.get_stack()}/{name}"
    primary, *standbys = _placed(cluster, surroundings, source)
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
            surroundings.prefix,
            stack,
            declared.mount or f"tde-{surroundings.prefix}",
            shared=declared.existing,
            role=cluster.replication.role,
            keys=(cluster.key.name or f"{surroundings.prefix}-principal-key", *cluster.key.former),
        ),
        surroundings,
        primary,
        tuple(standbys),
        _why_not_encrypted(cluster, [primary, *standbys]),
    )
    mistakes, notices = _asked(found, source)
    if mistakes:
        raise Mistakes(source, mistakes)
    return replace(found, notices=tuple(notices))


def _placed(cluster: settings.Cluster, around: Surroundings, source: str) -> list[Node]:
    """Every declared server's place; where there can be none for some, all of them are told."""

    def place(server: settings.Server) -> Node | Problem:
        try:
            return Node(server, hosts.place(server, cluster.port(server, around.named(server.name)), around))
        except Problem as problem:
            return problem

    found = side_by_side(place, cluster.servers)
    mistakes = [f"{key}: {one}" for key, one in zip(cluster.places, found, strict=True) if isinstance(one, Problem)]
    if mistakes:
        raise Mistakes(source, mistakes)
    return [one for one in found if isinstance(one, Node)]


def _why_not_encrypted(cluster: settings.Cluster, nodes: Iterable[Node]) -> str:
    """Empty where pg_tde is used."""
    if cluster.encryption == "off":
        return "the stack file says encryption: off"
    for node in nodes:
        if node.site.has_pg_tde is False:
            return f"this {node.site.server} has no pg_tde"
    return ""


def _asked(plan: ClusterPlan, source: str) -> tuple[list[str], list[str]]:
    """Mistakes, and notices."""
    cluster, primary, address, in_force = plan.cluster, plan.primary, plan.vault_address, plan.in_force
    objection, cost = _of_adopted(plan)
    told = side_by_side(
        lambda each: objections(each[0], each[1].declared, each[1].site, plan.stack),
        zip(cluster.places, plan.nodes, strict=True),
    )
    found = [line for lines in told for line in lines]
    sites = [node.site for node in plan.nodes]
    found += _taken_twice(plan, source)
    found += of_adopted(cluster, primary.site)
    places = [(place, node.declared, node.site) for place, node in zip(cluster.places, plan.nodes, strict=True)]
    uncloned, notices = clones(places[0], places[1:])
    found += uncloned
    found += objections_of_versions(cluster.places, sites)
    found += objections_of_failover(cluster.places, sites, [node.name for node in plan.nodes])
    found += objections_of_vault(address, plan.vault_names)
    if in_force:
        found += objections_of_reach(cluster, address.address)
    token = primary.beside_data(plan.token_file)
    found += objections_of_adoption(cluster, primary.site, token, in_force=in_force) or objections_of_keys(
        cluster, primary.site, plan.vault_names, address.namespace or "", in_force=in_force
    )
    lost = objections_of_lost_mount(address, cluster, primary.site, plan.mount, token)
    if in_force:
        found += objections_of_cipher(cluster, cluster.places, sites)
        found += objections_of_weaker_cipher(cluster, primary.site, token)
        notices += notices_of_cipher(cluster, primary.site)
        lost = lost or objections_of_keys_in_use(cluster, primary.site, plan.key)
    found += lost
    found += objections_of_dependents(cluster, primary.site, token, in_force=in_force)
    if objection:
        found.append(f"cluster.primary: {objection}")
    if cluster.encryption == "required" and plan.reason:
        found.append(f"cluster.encryption: required, and {plan.reason} (see docs/encryption.md)")
    return found, [*([cost] if cost else []), *notices]


def _of_adopted(plan: ClusterPlan) -> tuple[str | None, str | None]:
    primary = plan.primary
    if not primary.declared.adopt:
        return None, None
    return adoption(primary.declared, primary.site, primary.parameters(plan.cluster, encrypted=plan.in_force))


def _taken_twice(plan: ClusterPlan, source: str) -> list[str]:
    """What another cluster of this program has, too: before either is made, no machine can tell."""
    places = zip(plan.cluster.places, plan.nodes, strict=True)
    mine = {one: (place, node.name) for place, node in places for one in node.occupies}
    others = [taken for name, taken in _taken.items() if name != plan.name]
    _taken[plan.name] = {one: f"{name}'s of {source}" for one, (_, name) in mine.items()}
    return [
        f"{place}.{one[1]}: {one[2]} is {other[one]} too: name another one"
        for one, (place, _) in mine.items()
        for other in others
        if one in other
    ]
