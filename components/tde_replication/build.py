"""One pass that registers the resources of a plan.

KeyVault ─ mount, policies, a token per server, the role's secret
└ Primary ─ CleanupRecord → DataDirectory + token file → Server
├ Extension → KeyProvider → PrincipalKey → KeyBinding (server, default) → WalEncryption
├ ReplicationRole → HbaRule
└ for each standby: CleanupRecord → ReplicationSlot → BaseBackup + token file + passfile → Server → ReplicationCheck
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pulumi import Output, Resource, ResourceOptions

from tde_replication import report
from tde_replication.keys import key_vault, keys
from tde_replication.member import ClusterContext, after, as_primary
from tde_replication.plan import ClusterPlan
from tde_replication.postgres import resources
from tde_replication.standby import standby
from tde_replication.unknown import as_input


@dataclass(frozen=True)
class Results:
    """What a component has as outputs, known once all is done."""

    primary: Output[dict[str, Any]]
    standbys: Output[list[dict[str, Any]]]
    primary_dsn: Output[str]
    standby_dsns: Output[list[str]]
    vault: Output[dict[str, str]]
    encryption: Output[dict[str, Any]]
    summary: Output[str]
    servers: Output[list[str]]
    """Their names."""


def build(context: ClusterContext) -> Results:
    plan, cluster, primary = context.plan, context.cluster, context.plan.primary
    for member in plan.members:
        member.ready.extend(member.placement.make(context.child()))
    password = resources.Password(
        f"{plan.name}-replication-password", context.child(), version=cluster.replication.password_version
    ).output("value")
    vault = key_vault(context, password)
    adopted = primary.declared.adopt
    if not adopted:
        primary.cleanup_record(context, context.token_file, context.ca_file)
    kind = resources.AdoptedDirectory if adopted else resources.InitializedDirectory
    opts = context.child(depends_on=list(primary.ready), protect=cluster.protect)
    directory = kind(context.named(primary.name), opts, **primary.directory(context))
    inside = {**primary.placement.location, "system_identifier": directory.system_identifier}
    if adopted:
        known = {"role": cluster.replication.role, "clients": plan.clients, **as_primary(inside)}
        known["settings"] = primary.parameters(cluster, encrypted=plan.in_force) | (
            {"pg_tde.wal_encrypt": "on"} if cluster.wal_encryption and plan.in_force else {}
        )
        primary.cleanup_record(context, context.token_file, context.ca_file, on_primary=known)
    vault_files = primary.vault_files(context, vault.tokens[primary.name])
    opts = context.child(depends_on=[directory, *vault_files], protect=cluster.protect)
    server = primary.server(context, directory, opts, {})
    # Where the whole data directory goes, nothing in it has to be taken away first; one that is set aside or that stays
    # must not keep a slot, which would fill its disk, or a way in. With the claim, and not with the directory: that is in no
    # state any more where somebody has removed it.
    goes = cluster.disposable and not adopted
    on_primary = context.child(depends_on=[server], deleted_with=primary.ready[0] if goes else None)
    last_keys = keys(context, inside, vault.mount, on_primary) if plan.in_force else []
    role = resources.ReplicationRole(
        context.named(cluster.replication.role),
        on_primary,
        **inside,
        role=cluster.replication.role,
        password=password,
        stack=plan.stack,
    )
    rules = [_hba_rule(context, address, inside, after(on_primary, role)) for address in plan.clients]
    for member in plan.standbys:
        slot = {"slot": member.slot, "primary_goes": goes, **as_primary(inside)}
        files = (context.token_file, context.ca_file, context.passfile)
        member.cleanup_record(context, *files, after=[server], on_primary=slot)
    checks = [
        standby(context, member, inside, on_primary, [*last_keys, *rules], vault.tokens[member.name], password)
        for member in plan.standbys
    ]
    return _results(plan, [server, *last_keys, role, *rules, *checks])


def _hba_rule(
    context: ClusterContext, address: str, inside: dict[str, Any], opts: ResourceOptions
) -> resources.HbaRule:
    plan, role = context.plan, context.cluster.replication.role
    return resources.HbaRule(
        context.named(f"{role} from {address}"),
        opts,
        **inside,
        connection_type="hostssl" if plan.cluster.replication.encrypted else "host",
        databases=[
            "replication",
            *plan.databases(*(n for n in plan.standbys if address in plan.clients_of(n))),
        ],
        role=role,
        address=address,
    )


def _results(plan: ClusterPlan, last: Sequence[Resource]) -> Results:
    done = Output.all(*(resource.urn for resource in last))

    def after(value: Any) -> Output[Any]:
        return done.apply(lambda _: Output.from_input(as_input(value)))

    primary, *standbys = [
        report.Line(member.name, member.declared.machine, *member.placement.seen_at, str(member.placement.data), slot)
        for member in plan.members
        for slot in [None if member is plan.primary else member.slot]
    ]
    state = {"provider": plan.cluster.vault.provider, "key": plan.key} if plan.in_force else {"reason": plan.reason}
    cap = plan.cluster.replication.max_slot_wal_keep_size
    return Results(
        primary=after(primary.output),
        standbys=after([line.output for line in standbys]),
        primary_dsn=Output.secret(after(plan.primary.placement.dsn)),
        standby_dsns=Output.secret(after([member.placement.dsn for member in plan.standbys])),
        vault=after({"address": plan.vault_address.address, "mount": plan.mount}),
        encryption=after({"mode": plan.cluster.encryption, "inForce": plan.in_force} | state),
        summary=after(report.summary(plan.name, [primary, *standbys], cap, plan.reason)),
        servers=after([member.name for member in plan.members]),
    )
