"""What a cluster is to be, decided before any of it is registered: settings, and what machines and Vault say of them."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import pulumi

from tde_replication import hosts, settings
from tde_replication.cluster_plan import ClusterPlan
from tde_replication.errors import UserError
from tde_replication.hosts import facts
from tde_replication.hosts.placement import PlacementContext
from tde_replication.member import Member
from tde_replication.parallel import parallel_map
from tde_replication.postgres.marker import marker
from tde_replication.preflight.adoption import (
    adoption,
    check_adopted_standby,
    check_adoption,
    check_databases,
    check_dependents,
)
from tde_replication.preflight.clone import check_clones
from tde_replication.preflight.keys import (
    check_cipher,
    check_keys_in_use,
    check_own_keys,
    check_weaker_cipher,
    notice_of_rotation,
    notices_of_cipher,
)
from tde_replication.preflight.ports import of_adopted
from tde_replication.preflight.rewind import check_rejoin
from tde_replication.preflight.server import (
    check_failover,
    check_keys,
    check_mount_exists,
    check_server,
    check_versions,
)
from tde_replication.preflight.tables import check_tables
from tde_replication.preflight.vault import check_vault, check_vault_from_servers
from tde_replication.records import Cost
from tde_replication.stack_file import StackFileError
from tde_replication.vault.address import VaultAddress
from tde_replication.vault.key_age import NewestKey, newest_key
from tde_replication.vault.names import VaultNames

_taken: dict[str, dict[tuple[str, str, object], str]] = {}
"""By cluster of this program: what its servers occupy, and which one does."""


def plan(name: str, cluster: settings.Cluster, vault_address: VaultAddress, source: str) -> ClusterPlan:
    """Ask the machines and Vault what they have against it.

    Raises `StackFileError` with all of that, each with the key of the setting; `source` is what it calls the settings.
    """
    declared = cluster.vault
    context = context_of(name, cluster)
    primary, *standbys = _placed(cluster, context, source)
    reason = _why_not_encrypted(cluster, [primary, *standbys])
    address = replace(
        vault_address,
        ca=declared.ca or vault_address.ca,
        namespace=declared.namespace or vault_address.namespace,
    )
    mount = declared.mount or f"tde-{context.prefix}"
    key = NewestKey(cluster.key.name or f"{context.prefix}-principal-key", others=tuple(cluster.key.former))
    if not reason:
        key = newest_key(address.client, mount, key.name, key.others)
    keys = [*key.names(cluster.key.rotate_after, datetime.now(UTC)), *(one.name for one in cluster.keys.values())]
    found = ClusterPlan(
        name,
        context.whole,
        cluster,
        address,
        VaultNames(
            context.prefix,
            context.whole,
            mount,
            shared=declared.existing,
            role=cluster.replication.role,
            keys=tuple(keys),
            servers=tuple(sorted(cluster.servers)),
        ),
        context,
        primary,
        tuple(standbys),
        reason,
        key,
    )
    with facts.shared():
        refusal, cost = _of_adopted(found)
        mistakes, notices = _asked(found, source, refusal)
        there = _is_there(primary)
    if mistakes:
        raise StackFileError(source, mistakes)
    return replace(found, notices=tuple(notices), cost=cost, primary_is_there=there)


def context_of(name: str, cluster: settings.Cluster) -> PlacementContext:
    project, stack = pulumi.get_project(), pulumi.get_stack()
    return PlacementContext(project, stack, name, cluster.vault.network, keep=not cluster.disposable)


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
    for one in plan.members:
        found += of_adopted(cluster, one.declared, one.placement)
    for standby in plan.standbys:
        if standby.declared.adopt:
            first = primary.declared, primary.placement
            found += check_adopted_standby(first, standby.declared, standby.placement)
    places = [
        (place, member.declared, member.placement) for place, member in zip(cluster.places, plan.members, strict=True)
    ]
    uncloned, notices = check_clones(places[0], places[1:])
    found += uncloned
    found += check_versions(cluster.places, placements)
    found += check_failover(cluster.members, placements)
    found += check_rejoin(cluster, [member.name for member in plan.members], placements, in_force=in_force)
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
        found += check_own_keys(cluster, plan.vault_names.keys)
        found += check_weaker_cipher(cluster, primary.placement, token)
        notices += [
            *notice_of_rotation(cluster, plan.newest_key, plan.key),
            *notices_of_cipher(cluster, primary.placement),
        ]
        for database, patterns in plan.tables.items():
            mistakes, told_of_tables = check_tables(primary.placement, primary.declared, token, database, patterns)
            found += mistakes
            notices += told_of_tables
        lost = lost or check_keys_in_use(cluster, primary.placement, plan.key)
    found += lost
    found += check_databases(cluster, primary.placement, in_force=in_force)
    found += check_dependents(cluster, primary.placement, token, in_force=in_force)
    if refusal:
        found.append(f"{cluster.primary_server.place}: {refusal}")
    if cluster.encryption == "required" and plan.reason:
        found.append(f"cluster.encryption: required, and {plan.reason} (see docs/encryption.md)")
    return found, notices


def _is_there(member: Member) -> bool:
    """Also where its machine cannot be asked now."""
    try:
        return member.declared.adopt or bool(marker(hosts.host(member.placement.address), member.placement.data))
    except UserError:
        return True


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
    _taken[plan.name] = {one: f"{name} of {source}" for one, (_, name) in mine.items()}
    return [
        f"{place}.{one[1]}: {one[2]} is also used by {other[one]}: choose another"
        for one, (place, _) in mine.items()
        for other in others
        if one in other
    ]
