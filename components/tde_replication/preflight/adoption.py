"""What a server that is to be adopted has against it, and what that costs it."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from psycopg import sql

from tde_replication import hosts, settings
from tde_replication.errors import LoginFailed, UserError
from tde_replication.hosts import facts
from tde_replication.hosts.placement import Placement
from tde_replication.postgres.pg_tde import DEFAULT_KEY, PROVIDERS, SERVER_KEY, PgTde
from tde_replication.postgres.replication_slot import others_streaming
from tde_replication.postgres.server import Server
from tde_replication.postgres.session import server_session
from tde_replication.records import Cost
from tde_replication.unasked import could_not_ask
from tde_replication.values import SLOT_PREFIX

OWN_SLOTS = SLOT_PREFIX.replace("_", r"\_") + "%"


def adoption(
    primary: settings.Server, placement: Placement, parameters: Mapping[str, str]
) -> tuple[str | None, Cost | None]:
    """What the primary that is to be adopted has against these parameters, and what they cost it: so told before it is in any
    state. Nothing where it does not answer now."""
    try:
        with server_session(hosts.host(placement.address), placement.data, primary.name) as session:
            identifier = str(session.value("SELECT system_identifier FROM pg_control_system()"))
        declared = Server(
            **placement.location,
            system_identifier=identifier,
            made_at="adopted",
            name=primary.name,
            binaries=str(placement.binaries),
            settings=dict(parameters),
            restart=primary.restart,
            ours=False,
        )
        with facts.unshared():
            live = declared.read()
        if live is None:
            return None, None
        cost = next((declared.placed(cost) for cost in declared.costs(live)), None)
        return declared.refusal_of_adoption(live), cost
    except LoginFailed as refused:
        if _takes_connections(placement):
            refusal = (
                f"{refused}. The stack works as the superuser postgres, which the server's account is by peer authentication: "
                "create that role, or allow it in pg_hba.conf and pg_ident.conf"
            )
            return refusal, None
        could_not_ask(f"whether {primary.name} can be adopted, and what that costs", refused)
        return None, None
    except UserError as why:
        could_not_ask(f"whether {primary.name} can be adopted, and what that costs", why)
        return None, None


def _takes_connections(placement: Placement) -> bool:
    """Whether the server says that it does: so one that is only starting is told apart from one that refuses us."""
    try:
        found = hosts.host(placement.address).postmaster(placement.data)
    except UserError:
        return False
    return found is not None and found.ready


def check_adoption(cluster: settings.Cluster, primary: Placement, token: str, *, in_force: bool) -> list[str]:
    """What an encrypted server that is to be adopted has against it. Its provider, keys and WAL are what others depend on; where
    they are as declared, the stack's `token` file was put there for them, or by an earlier `up`: its resources then compare."""
    host = hosts.host(primary.address)
    if not (cluster.primary_server.adopt and in_force):
        return []
    try:
        if host.status(PurePosixPath(token)):
            return []
        with server_session(host, primary.data, f"{cluster.primary_server.place}.adopt", cluster.database) as server:
            tde = PgTde(server)
            query = sql.SQL(
                "SELECT current_setting('pg_tde.wal_encrypt', true), (SELECT key_name FROM {}), (SELECT key_name FROM {}), "
                "(SELECT name FROM {} WHERE lower(name) = lower(%s))"
            ).format(tde.table(SERVER_KEY), tde.table(DEFAULT_KEY), tde.table(PROVIDERS))
            row = server.row(query, [cluster.vault.provider])
    except UserError as unknown:  # no pg_tde is an answer, and told as one
        could_not_ask("the keys and WAL of the server that is to be adopted", unknown)
        return []
    wal, server_key, default_key, provider = row or (None,) * 4
    keys = {"server": server_key, "default": default_key}
    found = [f'key provider "{provider}"'] if provider else []
    found += [f'{scope} key "{key}"' for scope, key in keys.items() if key and scope in cluster.key.scope]
    found += (
        ["encrypted WAL (walEncryption: true is not declared)"] if wal == "on" and not cluster.wal_encryption else []
    )
    if not found:
        return []
    why = "they are not taken over, because others depend on them"
    return [
        f"{cluster.primary_server.place}.adopt: the server has {', '.join(found)} of its own: {why} (see docs/encryption.md)"
    ]


def check_adopted_standby(
    primary: tuple[settings.Server, Placement], standby: settings.Server, placement: Placement
) -> list[str]:
    """Where the data of a server that was here before the stack, and is a standby by now, would not be looked after."""
    server, there = primary
    try:
        if not hosts.host(placement.address).listing(placement.data):
            return [
                f"{standby.place}.adopt: {placement.data} is empty: leave adopt out, and `up` clones it as a server of the stack"
            ]
        if not hosts.host(there.address).listing(there.data):
            why = f"{server.name} has no data, and {standby.name} was here before the stack"
            todo = f"write primary: {standby.name}. Once {server.name} is cloned from it, it can be the primary"
            return [f"cluster.primary: {why}: {todo}"]
    except UserError as unknown:
        could_not_ask(f"whether {standby.name} can follow {server.name}", unknown)
    return []


def check_dependents(cluster: settings.Cluster, primary: Placement, token: str, *, in_force: bool) -> list[str]:
    """Who else depends on a server that is to be adopted, and would not outlive what the stack does to it."""
    host = hosts.host(primary.address)
    if not cluster.primary_server.adopt:
        return []
    try:
        if host.status(PurePosixPath(token)):
            return []  # it was adopted by an earlier `up`
        with server_session(host, primary.data, f"{cluster.primary_server.place}.adopt") as server:
            kept = cluster.replication.max_slot_wal_keep_size
            slots = server.rows(
                "SELECT slot_name, current_setting('max_slot_wal_keep_size') FROM pg_replication_slots "
                "WHERE slot_name NOT LIKE %s AND %s <> '-1' AND (current_setting('max_slot_wal_keep_size') = '-1' "
                "OR pg_size_bytes(current_setting('max_slot_wal_keep_size')) > pg_size_bytes(%s)) ORDER BY 1",
                [OWN_SLOTS, kept, kept if kept != "-1" else "0"],
            )
            standbys = others_streaming(server, ())
    except UserError as why:
        could_not_ask("who else depends on the server that is to be adopted", why)
        return []
    found = []
    if slots and "max_slot_wal_keep_size" not in cluster.replication.model_fields_set:
        names = ", ".join(name for name, _ in slots)
        found.append(
            f"cluster.replication.maxSlotWalKeepSize: missing; it is {slots[0][1]} on the server that is to be adopted, and its "
            f"replication slots {names} would be given up beyond the default of {kept}: set how much they may hold back"
        )
    if standbys and in_force:
        found.append(
            f"{cluster.primary_server.place}.adopt: standbys that this stack did not make stream from the server ({standbys}): "
            "they would stop at the first WAL of pg_tde, or at a key that they cannot open. Set encryption: off; or remove "
            "them, and declare them here"
        )
    return found


def check_databases(cluster: settings.Cluster, primary: Placement, *, in_force: bool) -> list[str]:
    """Databases that a server which is adopted does not have: they are its owner's to make."""
    if not (cluster.primary_server.adopt and in_force and cluster.databases):
        return []
    try:
        with server_session(hosts.host(primary.address), primary.data, "cluster.databases") as server:
            there = {name for (name,) in server.rows("SELECT datname FROM pg_database")}
    except UserError as why:
        could_not_ask("whether the server that is adopted has all databases", why)
        return []
    return [
        f'cluster.databases: the server that is adopted has no database "{name}": create it there, or leave it out'
        for name in cluster.databases
        if name not in there
    ]
