"""One pass that registers the resources of a plan.

KeyVault ─ mount, a policy and a token per server, the role's secret
└ Primary ─ CleanupRecord → Topology → DataDirectory + token file → Server
├ Extension → KeyProvider → PrincipalKey → KeyBinding (server, default, then databases) → WalEncryption
├ ReplicationRole → HbaRule
├ Stanza
├ for each standby: CleanupRecord → ReplicationSlot → DataDirectory + token file + passfile → Server → WalEncryption
│ → ReplicationCheck
├ SynchronousStandbys
├ Adoption, of a server that was here before
├ TableEncryption
└ MinorUpgrade
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from pulumi import Output, Resource, ResourceOptions

from tde_replication.cluster_context import ClusterContext, after, alone, as_primary, urn_of_child
from tde_replication.keys import databases, extensions, key_vault, keys, token
from tde_replication.member import Member
from tde_replication.postgres import resources
from tde_replication.postgres.synchronous import PARAMETER
from tde_replication.postgres.topology_server import Rule, TopologyServer
from tde_replication.results import Results, results
from tde_replication.server_resources import (
    Registered,
    data_directory,
    places,
    record,
    server,
    token_renewal,
    vault_files,
)
from tde_replication.standby import before_keys, recorded_standby, standby


def build(context: ClusterContext) -> Results:
    plan, cluster, primary = context.plan, context.cluster, context.plan.primary
    expiry = _expiry(context)
    if expiry:
        context = replace(context, first=(*context.first, expiry))
    place = places(context)
    password = resources.Password(
        f"{plan.name}-replication-password", context.child(), version=cluster.replication.password_version
    ).output("value")
    vault = key_vault(context, password)
    # Of an adopted primary, it holds what the directory says of its cluster, and comes after that.
    recorded = None if primary.adopted else record(context, primary, place[primary.name])
    policy, opens = token(context, vault, primary)
    before = recorded.before if recorded else list(place[primary.name].resources)
    # Who becomes the primary may make keys before; a new one needs no Vault for its initdb. Who was it may no more, afterwards.
    topology = _topology(
        context, context.child(depends_on=[*before, policy] if plan.findings.primary_is_there else before)
    )
    of_standbys = {member.name: token(context, vault, member, topology) for member in plan.standbys}
    # In force before a rotation: a standby that may not open the new key dies of it.
    policies = [policy for policy, _ in of_standbys.values()]
    opts = context.child(depends_on=[*before, topology], protect=cluster.protect)
    directory = data_directory(context, primary, opts, role="primary")
    inside = {
        **primary.placement.location,
        "others": plan.places_beside(primary),
        "system_identifier": directory.system_identifier,
    }
    if recorded is None:
        known = {"role": cluster.replication.role, "clients": plan.replication_sources, **as_primary(inside)}
        recorded = record(context, primary, place[primary.name], known)
    files = vault_files(context, primary, recorded.before, opens)
    opts = context.child(depends_on=[directory, topology, *files], protect=cluster.protect)
    running = server(context, recorded, directory, opts)
    # Where the whole data directory goes, nothing in it has to be taken away first; one that is set aside or that stays
    # must not keep a slot, which would fill its disk, or a way in. With the record, and not with the directory: that is in no
    # state any more where somebody has removed it.
    goes = cluster.disposable and not primary.adopted
    on_primary = context.child(depends_on=[running], deleted_with=recorded.record if goes else None)
    # A former primary's directory may be replaced, and no other standby for that: it may be processed at the same time.
    apart = {**inside, "system_identifier": alone(directory.system_identifier)}
    made = {primary.name: Registered(recorded, directory, running, running)}
    records, opened = before_keys(context, place, apart, made[primary.name], of_standbys)
    with_files = after(on_primary, *policies, *files, *(file for of_one in opened.values() for file in of_one))
    others = extensions(context, inside, on_primary) if plan.in_force else {}
    last_keys = keys(context, inside, vault.mount, with_files, others) if plan.in_force else []
    of_databases = databases(context, inside, on_primary, last_keys, others) if plan.in_force else []
    role = resources.ReplicationRole(
        context.named(cluster.replication.role),
        on_primary,
        **inside,
        role=cluster.replication.role,
        password=password,
        stack=plan.stack,
    )
    rules = [_hba_rule(context, address, inside, after(on_primary, role)) for address in plan.replication_sources]
    ready = [*last_keys, *rules]
    for member in plan.downstream:
        above = made[plan.upstream(member).name]
        recorded = records.get(member.name) or recorded_standby(context, member, place[member.name], apart, above)
        made[member.name] = standby(
            context, member, recorded, apart, on_primary, above, ready, opened[member.name], password
        )
    last = [one.last for one in made.values()]
    if name := plan.stanza:
        last.append(resources.Stanza(context.named(name), on_primary, **inside, stanza=name))
    if synchronous := plan.synchronous:
        last.append(
            resources.SynchronousStandbys(
                context.named(PARAMETER),
                after(on_primary, *last),
                **inside,
                names=synchronous.names(),
                when_too_few=synchronous.when_too_few,
            )
        )
    last += [
        _adoption(context, member, [vault, *last_keys, *of_databases, *rules, *last])
        for member in plan.members
        if member.adopted
    ]
    if plan.in_force:
        last += _tables(
            context, inside, after(on_primary, *last_keys, *of_databases, *(one.last for one in made.values()))
        )
    opened[primary.name] = files
    last += [
        one
        for member in plan.members
        for one in token_renewal(context, member, place[member.name], opened[member.name])
    ]
    last += _minor_upgrade(context, last)
    expires = expiry.output("expires_at") if expiry else Output.from_input(None)
    return results(plan, [*last_keys, *of_databases, role, *rules, *last], expires)


def _adoption(context: ClusterContext, member: Member, before: Sequence[Resource]) -> resources.Adoption:
    return resources.Adoption(
        context.named(member.name),
        after(context.child(), *before),
        **member.placement.location,
        name=member.name,
        binaries=str(member.placement.binaries),
    )


def _expiry(context: ClusterContext) -> resources.Expiry | None:
    after = context.cluster.expires
    return resources.Expiry(context.named("expiry"), context.child(), after=after) if after else None


def _topology(context: ClusterContext, opts: ResourceOptions) -> resources.Topology:
    plan, cluster = context.plan, context.cluster
    return resources.Topology(
        plan.name,
        opts,
        primary=plan.primary.name,
        servers=_servers(plan.members),
        synchronous=plan.synchronous.model_dump(by_alias=True) if plan.synchronous else None,
        role=cluster.replication.role,
        rules=[
            Rule(
                connection_type=plan.connection_type, databases=plan.databases_from(address), address=address
            ).model_dump(by_alias=True)
            for address in plan.replication_sources
        ],
        database=cluster.database,
        encryption=plan.in_force,
        urn=urn_of_child(context.parent, resources.Topology, plan.name),
    )


def _servers(members: Sequence[Member]) -> list[dict[str, Any]]:
    """As a resource of all of them knows each, whoever is the primary."""
    return [
        TopologyServer(
            name=member.name,
            host=member.placement.address,
            data_directory=str(member.placement.data),
            binaries=str(member.placement.binaries),
            slot=member.slot,
            upstream=member.declared.upstream or "",
            restart=member.declared.restart,
            adopted=member.adopted,
        ).model_dump(by_alias=True)
        for member in sorted(members, key=attrgetter("name"))
    ]


def _minor_upgrade(context: ClusterContext, before: Sequence[Resource]) -> list[resources.MinorUpgrade]:
    plan, name = context.plan, context.named("minor upgrade")
    if not plan.restarted_for_upgrades:
        return []
    return [
        resources.MinorUpgrade(
            name,
            after(context.child(), *before),
            servers=_servers(plan.restarted_for_upgrades),
            primary=plan.primary.name,
            waiting=[],
            urn=urn_of_child(context.parent, resources.MinorUpgrade, name),
        )
    ]


def _tables(
    context: ClusterContext, inside: Mapping[str, Any], opts: ResourceOptions
) -> list[resources.TableEncryption]:
    """Once standbys follow: a rewrite takes long, and its WAL would be in the way of a clone."""
    made = []
    for database, patterns in context.plan.tables.items():
        name = context.named(f"tables of {database}")
        made.append(
            resources.TableEncryption(
                name,
                opts,
                **inside,
                database=database,
                patterns=[one.model_dump(by_alias=True) for one in patterns],
                urn=urn_of_child(context.parent, resources.TableEncryption, name),
            )
        )
    return made


def _hba_rule(
    context: ClusterContext, address: str, inside: dict[str, Any], opts: ResourceOptions
) -> resources.HbaRule:
    plan, role = context.plan, context.cluster.replication.role
    upstreams = plan.upstreams_of(address)
    return resources.HbaRule(
        context.named(f"{role} from {address}"),
        opts,
        **inside,
        connection_type=plan.connection_type,
        databases=plan.databases_from(address),
        role=role,
        address=address,
        upstreams=sorted(upstreams),
        upstream_places=upstreams,
    )
