"""All that is looked up before a cluster is touched: what running servers, machines and Vault say of its plan."""

from collections.abc import Mapping

from tde_replication import hosts
from tde_replication.cluster_plan import ClusterPlan, Findings
from tde_replication.errors import UserError
from tde_replication.hosts import facts
from tde_replication.member import Member, Occupied
from tde_replication.parallel import parallel_map
from tde_replication.postgres.host_file import is_token_of
from tde_replication.postgres.marker import marker
from tde_replication.preflight.adoption import (
    adoption,
    check_adopted_standby,
    check_adoption,
    check_databases,
    check_dependents,
)
from tde_replication.preflight.archive import check_archive
from tde_replication.preflight.clone import check_clones
from tde_replication.preflight.keys import (
    check_cipher,
    check_keys_in_use,
    check_own_keys,
    check_weaker_cipher,
    notice_of_rotation,
    notices_of_cipher,
)
from tde_replication.preflight.moving import check_move
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


def preflight(plan: ClusterPlan, others: Mapping[Occupied, str]) -> Findings:
    """`others`: what other clusters of the same program occupy, and who does."""
    primary = plan.primary
    with facts.shared():
        refusal, cost = (
            adoption(primary.declared, primary.placement, primary.parameters) if primary.adopted else (None, None)
        )
        mistakes, notices = _asked(plan, others, refusal)
        return Findings(tuple(mistakes), tuple(notices), cost, _is_there(primary))


def _asked(plan: ClusterPlan, others: Mapping[Occupied, str], refusal: str | None) -> tuple[list[str], list[str]]:
    """Mistakes, and notices."""
    cluster, primary, address, in_force = plan.cluster, plan.primary, plan.vault_address, plan.in_force
    told = parallel_map(
        lambda one: check_server(one.declared, one.placement, plan.stack, is_primary=one is primary), plan.members
    )
    found = [line for lines in told for line in lines]
    placements = [member.placement for member in plan.members]
    found += _used_twice(plan, others)
    for one in plan.members:
        found += of_adopted(cluster, one.declared, one.placement)
    for standby in plan.standbys:
        if standby.adopted:
            first = primary.declared, primary.placement
            found += check_adopted_standby(first, standby.declared, standby.placement)
    places = [(one.declared.place, one.declared, one.placement) for one in plan.members]
    uncloned, notices = check_clones(places[0], places[1:], archived=bool(plan.stanza))
    not_archived, of_archive = check_archive(plan)
    found += [*uncloned, *not_archived]
    notices = [*notices, *of_archive]
    found += check_versions(cluster.places, placements)
    found += check_failover(cluster.members, placements)
    found += check_rejoin(cluster, [member.name for member in plan.members], placements, in_force=in_force)
    found += check_vault(address, plan.vault_names)
    if in_force:
        found += check_vault_from_servers(cluster, address.address)
    token = _token(plan)
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
        stays, told_of_move = check_move(plan)
        found += stays
        notices += told_of_move
        lost = lost or check_keys_in_use(cluster, primary.placement, plan.key)
    found += lost
    found += check_databases(cluster, primary.placement, in_force=in_force)
    found += check_dependents(cluster, primary.placement, token, in_force=in_force)
    if refusal:
        found.append(f"{cluster.primary_server.place}: {refusal}")
    if cluster.encryption == "required" and plan.reason:
        found.append(f"cluster.encryption: required, and {plan.reason} (see docs/encryption.md)")
    return found, notices


def _used_twice(plan: ClusterPlan, others: Mapping[Occupied, str]) -> list[str]:
    """Before either cluster is made, no machine can tell."""
    return [
        f"{member.declared.place}.{one.setting}: {one.value} is also used by {others[one]}: choose another"
        for member in plan.members
        for one in member.occupies
        if one in others
    ]


def _token(plan: ClusterPlan) -> str:
    """Where the primary has a token of the stack's, also of a former key provider: an earlier `up` has put it there."""
    there = plan.primary.placement
    try:
        names = hosts.host(there.address).listing(there.data.parent)
    except UserError:
        names = []
    found = [name for name in names if name == plan.files.token or is_token_of(plan.name, name)]
    return there.beside_data(plan.files.token if plan.files.token in found or not found else found[0])


def _is_there(member: Member) -> bool:
    """Also where its machine cannot be asked now."""
    try:
        return member.adopted or bool(marker(hosts.host(member.placement.address), member.placement.data))
    except UserError:
        return True
