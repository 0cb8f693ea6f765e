"""What is registered for one standby beside what every server has, from its slot on the primary to the proof that it streams."""

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from pulumi import Output, Resource, ResourceOptions

from tde_replication.keys import wal_encryption
from tde_replication.member import ClusterContext, Member, after, as_primary, urn_of_child
from tde_replication.postgres import resources
from tde_replication.postgres.upstream import Upstream, passfile


def standby(
    context: ClusterContext,
    member: Member,
    inside: Mapping[str, Any],
    on_primary: ResourceOptions,
    ready: Sequence[Resource],
    token: pulumi.Input[str],
    password: Output[str],
) -> resources.ReplicationCheck:
    """Slot → base backup, token and passfile → server → check; the last of them. `ready`: what the primary must have first."""
    plan, placement, replication = context.plan, member.placement, context.cluster.replication
    databases = plan.databases(member)
    slot = resources.ReplicationSlot(
        context.named(member.slot),
        after(on_primary, member.ready[0]),
        **inside,
        slot=member.slot,
        stack=plan.stack,
        standby_host=placement.address,
        standby_directory=str(placement.data),
    )
    upstream = Upstream(
        host=plan.primary.placement.replication_host,
        port=plan.primary.placement.port,
        role=replication.role,
        tls=replication.tls,
        root_certificate=replication.root_certificate,
        passfile=member.beside_data(context.passfile),
    )
    pgpass = resources.HostFile(
        context.named(f"{member.name}-pgpass"),
        context.child(depends_on=member.ready),
        host=placement.address,
        path=upstream.passfile,
        content=password.apply(lambda value: passfile(replication.role, value, databases).decode()),
    )
    files = member.vault_files(context, token)
    encrypt_wal = context.cluster.wal_encryption and plan.in_force
    directory = resources.ServerDirectory(
        context.named(member.name),
        context.child(depends_on=[slot, pgpass, *files, *ready]),
        **member.directory(context),
        role="standby",
        others=plan.places_beside(member),
        origin=f"base backup of {plan.primary.name}",
        upstream=upstream.model_dump(by_alias=True, exclude_none=True),
        slot=member.slot,
        encrypted=plan.in_force,
        encrypt_wal=encrypt_wal,
        cipher=context.cluster.cipher,
        **as_primary(inside),
        urn=urn_of_child(context.parent, resources.ServerDirectory, context.named(member.name)),
    )
    parameters = {
        "primary_conninfo": upstream.conninfo(member.name, *databases),
        "primary_slot_name": member.slot,
    }
    server = member.server(context, directory, context.child(depends_on=[directory, *files]), parameters)
    last: Resource = server
    if plan.in_force:
        last = wal_encryption(
            context,
            member,
            inside["system_identifier"],  # of the one cluster: a new clone is no new server
            context.child(depends_on=[server], deleted_with=member.ready[0]),
        )
    primary_place = {name: value for name, value in as_primary(inside).items() if name != "primary_identifier"}
    return resources.ReplicationCheck(
        context.named(member.name),
        context.child(depends_on=[last]),
        **placement.location,
        system_identifier=directory.system_identifier,
        made_at=directory.made_at,
        standby=member.name,
        slot=member.slot,
        **primary_place,
        database=context.cluster.database,
        encryption=plan.in_force,
        key=plan.key if plan.in_force else "",
        vault=plan.vault_url if plan.in_force else "",
    )
