"""What is registered for one standby beside what every server has, from its slot to the proof that it streams."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi import Output, Resource, ResourceOptions

from tde_replication.keys import wal_encryption
from tde_replication.member import ClusterContext, Member, after, as_primary, urn_of_child
from tde_replication.postgres import resources
from tde_replication.postgres.upstream import Upstream, passfile


@dataclass(frozen=True)
class Registered:
    """A server that standbys may stream from, with what its standbys need to know of it."""

    member: Member
    directory: resources.DataDirectory
    server: resources.Server
    last: Resource
    """What comes last of it: a standby's check."""

    def sender(self, context: ClusterContext, inside: Mapping[str, Any]) -> tuple[dict[str, Any], ResourceOptions]:
        """Where slots on it are, whichever part it has now, and their options. `inside`: the primary's."""
        # The system identifier is of the one cluster: a new clone is no new server.
        place = {**inside, **self.member.placement.location, "others": []}
        # Its directory takes them along, where that is removed.
        goes = context.cluster.disposable and not self.member.declared.adopt
        gone = self.member.ready[0] if goes else None
        return place, context.child(depends_on=[self.server], deleted_with=gone)


def standby(
    context: ClusterContext,
    member: Member,
    inside: Mapping[str, Any],
    on_primary: ResourceOptions,
    above: Registered,
    ready: Sequence[Resource],
    token: pulumi.Input[str],
    password: Output[str],
) -> Registered:
    """Slot → base backup, token and passfile → server → check. `above`: what it streams from; `ready`: what the primary must
    have first."""
    plan, placement, replication = context.plan, member.placement, context.cluster.replication
    databases = plan.databases(member)
    declared = member.declared.upstream
    place, opts = above.sender(context, inside) if declared else (dict(inside), on_primary)
    source = Upstream(
        host=plan.primary.placement.replication_host,
        port=plan.primary.placement.port,
        role=replication.role,
        tls=replication.tls,
        root_certificate=replication.root_certificate,
        passfile=member.beside_data(context.passfile),
    )
    upstream = source.model_copy(
        update={"host": above.member.placement.replication_host, "port": above.member.placement.port}
    )
    parameters = {
        "primary_conninfo": upstream.conninfo(member.name, *databases),
        "primary_slot_name": member.slot,
    }
    record = {"slot": member.slot, "others": place["others"], **as_primary(place)}
    record["primary_goes"] = context.cluster.disposable and not above.member.declared.adopt
    names = (context.token_file, context.ca_file, context.passfile)
    member.cleanup_record(context, *names, after=[above.server], on_primary=record, parameters=parameters)
    slot = resources.ReplicationSlot(
        context.named(f"{member.slot} on {declared}" if declared else member.slot),
        after(opts, member.ready[0]),
        **place,
        slot=member.slot,
        made_at=above.directory.made_at if declared else "",
        stack=plan.stack,
        standby_host=placement.address,
        standby_directory=str(placement.data),
    )
    sender = {"sender_host": place["host"], "sender_directory": place["data_directory"]} if declared else {}
    pgpass = resources.HostFile(
        context.named(f"{member.name}-pgpass"),
        context.child(depends_on=member.ready),
        host=placement.address,
        path=source.passfile,
        content=password.apply(lambda value: passfile(replication.role, value, plan.logins(member)).decode()),
    )
    files = member.vault_files(context, token)
    encrypt_wal = context.cluster.wal_encryption and plan.in_force
    directory = member.data_directory_kind(
        context.named(member.name),
        context.child(depends_on=[slot, pgpass, *files, *ready]),
        **member.directory(context),
        role="standby",
        others=plan.places_beside(member),
        origin="adopted" if member.declared.adopt else f"base backup of {plan.primary.name}",
        upstream=source.model_dump(by_alias=True, exclude_none=True),
        slot=member.slot,
        encrypted=plan.in_force,
        encrypt_wal=encrypt_wal,
        cipher=context.cluster.cipher,
        rejoin=context.cluster.rejoin,
        database=context.cluster.database,
        **as_primary(inside),
        **sender,
        urn=urn_of_child(context.parent, resources.ServerDirectory, context.named(member.name)),
    )
    server = member.server(context, directory, context.child(depends_on=[directory, *files]), parameters)
    last: Resource = server
    if plan.in_force:
        last = wal_encryption(
            context,
            member,
            inside["system_identifier"],  # of the one cluster: a new clone is no new server
            context.child(depends_on=[server], deleted_with=None if member.declared.adopt else member.ready[0]),
        )
    primary_place = {name: value for name, value in as_primary(inside).items() if name != "primary_identifier"}
    check = resources.ReplicationCheck(
        context.named(member.name),
        context.child(depends_on=[last]),
        **placement.location,
        system_identifier=directory.system_identifier,
        made_at=directory.made_at,
        standby=member.name,
        slot=member.slot,
        **primary_place,
        **sender,
        database=context.cluster.database,
        encryption=plan.in_force,
        key=plan.key if plan.in_force else "",
        vault=plan.vault_url if plan.in_force else "",
    )
    return Registered(member, directory, server, check)
