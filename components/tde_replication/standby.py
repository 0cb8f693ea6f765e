"""What is registered for one standby beside what every server has, from its slot to the proof that it streams."""

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi import Output, Resource, ResourceOptions

from tde_replication.cluster_context import ClusterContext, after, as_primary, urn_of_child
from tde_replication.hosts.registration import Place
from tde_replication.keys import wal_encryption
from tde_replication.member import Standby
from tde_replication.postgres import resources
from tde_replication.postgres.upstream import passfile
from tde_replication.server_resources import Recorded, Registered, data_directory, record, server, vault_files


def recorded_standby(
    context: ClusterContext, member: Standby, at: Place, inside: Mapping[str, Any], above: Registered
) -> Recorded:
    """`above`: what it streams from; `inside`: as resources in the primary know that."""
    place = above.sender(context, inside)[0] if member.declared.upstream else dict(inside)
    leaves = {"slot": member.slot, "others": place["others"], **as_primary(place)}
    leaves["primary_goes"] = context.cluster.disposable and not above.member.adopted
    return record(context, member, at, leaves, after=[above.server])


def before_keys(
    context: ClusterContext,
    at: Mapping[str, Place],
    inside: Mapping[str, Any],
    primary: Registered,
    tokens: Mapping[str, tuple[Resource, Output[str]]],
) -> tuple[dict[str, Recorded], dict[str, list[Resource]]]:
    """What each standby opens for pg_tde, by their names, and their records before that: before the primary gets a key provider
    that names it, for they replay that.

    One that streams from a standby has no record yet, because that one is cloned later: its record removes the files too.
    """
    records: dict[str, Recorded] = {}
    files: dict[str, list[Resource]] = {}
    for member in context.plan.standbys:
        name, place = member.name, at[member.name]
        before = list(place.resources)
        if not member.declared.upstream:
            records[name] = recorded_standby(context, member, place, inside, primary)
            before = records[name].before
        files[name] = vault_files(context, member, before, tokens[name][1])
    return records, files


def standby(
    context: ClusterContext,
    member: Standby,
    recorded: Recorded,
    inside: Mapping[str, Any],
    on_primary: ResourceOptions,
    above: Registered,
    ready: Sequence[Resource],
    files: Sequence[Resource],
    password: Output[str],
) -> Registered:
    """Slot → base backup, token and passfile → server → check. `above`: what it streams from; `ready`: what the primary must
    have first; `files`: what it opens for pg_tde."""
    plan, placement, replication = context.plan, member.placement, context.cluster.replication
    declared = member.declared.upstream
    place, opts = above.sender(context, inside) if declared else (dict(inside), on_primary)
    slot = resources.ReplicationSlot(
        context.named(f"{member.slot} on {declared}" if declared else member.slot),
        after(opts, recorded.record),
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
        context.child(depends_on=recorded.before),
        host=placement.address,
        path=member.source.passfile,
        content=password.apply(lambda value: passfile(replication.role, value, plan.logins(member)).decode()),
    )
    encrypt_wal = context.cluster.wal_encryption and plan.in_force
    directory = data_directory(
        context,
        member,
        context.child(depends_on=[slot, pgpass, *files, *ready]),
        role="standby",
        origin="adopted" if member.adopted else f"base backup of {plan.primary.name}",
        upstream=member.source.model_dump(by_alias=True, exclude_none=True),
        slot=member.slot,
        encrypted=plan.in_force,
        encrypt_wal=encrypt_wal,
        cipher=context.cluster.cipher,
        rejoin=context.cluster.rejoin,
        stanza=plan.stanza,
        database=context.cluster.database,
        **as_primary(inside),
        **sender,
        urn=urn_of_child(context.parent, resources.ServerDirectory, context.named(member.name)),
    )
    running = server(context, recorded, directory, context.child(depends_on=[directory, *files]))
    last: Resource = running
    if plan.in_force:
        last = wal_encryption(
            context,
            member,
            inside["system_identifier"],  # of the one cluster: a new clone is no new server
            context.child(depends_on=[running], deleted_with=None if member.adopted else recorded.record),
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
    return Registered(recorded, directory, running, check)
