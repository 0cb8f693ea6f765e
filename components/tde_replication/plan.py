"""Plans a cluster before any of it is registered: asks machines and Vault for facts, decides, and checks what is decided."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

from tde_replication import hosts, settings
from tde_replication.cluster_plan import ClusterPlan
from tde_replication.decision import Facts, decide, declared_key, mount_of, vault_of, why_not_encrypted
from tde_replication.errors import UserError
from tde_replication.hosts.placement import Placement, PlacementContext
from tde_replication.member import Occupied
from tde_replication.parallel import parallel_map
from tde_replication.preflight.cluster import preflight
from tde_replication.stack_file import StackFileError
from tde_replication.vault.address import VaultAddress
from tde_replication.vault.key_age import newest_key


def plan(
    context: PlacementContext,
    cluster: settings.Cluster,
    vault_address: VaultAddress,
    source: str,
    others: Mapping[Occupied, str],
) -> ClusterPlan:
    """`others`: what other clusters of the same program occupy, and who does.

    Raises `StackFileError` with all that settings, machines and Vault have against it, each with the key of the setting;
    `source` is what it calls the settings.
    """
    placements = _placements(cluster, context, source)
    address, key = vault_of(cluster, vault_address), declared_key(context, cluster)
    if not why_not_encrypted(cluster, placements.values()):
        key = newest_key(address.client, mount_of(context, cluster), key.name, key.others)
    decided = decide(context, cluster, address, Facts(placements, key, datetime.now(UTC)))
    findings = preflight(decided, others)
    if findings.mistakes:
        raise StackFileError(source, list(findings.mistakes))
    return replace(decided, findings=findings)


def context_of(project: str, stack: str, name: str, cluster: settings.Cluster) -> PlacementContext:
    return PlacementContext(project, stack, name, cluster.vault.network, keep=not cluster.disposable)


def _placements(cluster: settings.Cluster, context: PlacementContext, source: str) -> dict[str, Placement]:
    """Every declared server's place; where there can be none for some, all of them are told."""

    def place(server: settings.Server) -> Placement | UserError:
        try:
            return hosts.resolve_placement(server, cluster.port(server, context.named(server.name)), context)
        except UserError as problem:
            return problem

    found = list(zip(cluster.members, parallel_map(place, cluster.members), strict=True))
    mistakes = [f"{server.place}: {one}" for server, one in found if isinstance(one, UserError)]
    if mistakes:
        raise StackFileError(source, mistakes)
    return {server.name: one for server, one in found if isinstance(one, Placement)}
