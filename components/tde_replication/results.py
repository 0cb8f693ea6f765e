"""What a component has as outputs."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from psycopg.conninfo import make_conninfo
from pulumi import Output, Resource

from tde_replication import summary
from tde_replication.cluster_plan import ClusterPlan
from tde_replication.unknown import as_input


@dataclass(frozen=True)
class Results:
    """Known once all is done."""

    primary: Output[dict[str, Any]]
    standbys: Output[list[dict[str, Any]]]
    primary_dsn: Output[str]
    standby_dsns: Output[list[str]]
    read_write_dsn: Output[str]
    read_only_dsn: Output[str]
    vault: Output[dict[str, str]]
    encryption: Output[dict[str, Any]]
    expires: Output[str | None]
    summary: Output[str]
    servers: Output[list[str]]
    """Their names."""


def _for_clients(plan: ClusterPlan, wanted: str) -> str:
    """A libpq connection string with every server, which finds the one that is `wanted`, whoever is the primary.

    (PostgreSQL documentation, *target_session_attrs*.) A machine that is dead costs each new connection five seconds.
    """
    places = [member.placement.seen_at for member in sorted(plan.members, key=attrgetter("name"))]
    return make_conninfo(
        host=",".join(host for host, _ in places),
        port=",".join(str(port) for _, port in places),
        dbname=plan.cluster.database,
        target_session_attrs=wanted,
        connect_timeout=5,
    )


def results(plan: ClusterPlan, last: Sequence[Resource], expires: Output[str | None]) -> Results:
    done = Output.all(*(resource.urn for resource in last))

    def after(value: Any) -> Output[Any]:
        return done.apply(lambda _: Output.from_input(as_input(value)))

    primary, *standbys = [
        summary.Line(
            member.name,
            member.declared.machine,
            *member.placement.seen_at,
            str(member.placement.data),
            None if member is plan.primary else member.slot,
            member.declared.upstream or "",
        )
        for member in plan.members
    ]
    state = {"provider": plan.cluster.vault.provider, "key": plan.key} if plan.in_force else {"reason": plan.reason}
    cap = plan.cluster.replication.max_slot_wal_keep_size
    return Results(
        primary=after(primary.output),
        standbys=after([line.output for line in standbys]),
        primary_dsn=Output.secret(after(plan.primary.placement.dsn)),
        standby_dsns=Output.secret(after([member.placement.dsn for member in plan.standbys])),
        read_write_dsn=after(_for_clients(plan, "read-write")),
        read_only_dsn=after(_for_clients(plan, "prefer-standby")),
        vault=after({"address": plan.vault_address.address, "mount": plan.mount}),
        encryption=after({"mode": plan.cluster.encryption, "inForce": plan.in_force} | state),
        expires=after(expires),
        summary=expires.apply(lambda at: after(summary.summary(plan.name, [primary, *standbys], cap, plan.reason, at))),
        servers=after([member.name for member in plan.members]),
    )
