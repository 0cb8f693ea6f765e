"""A restore drill: the newest backup and all archived WAL, restored on one of the servers, read, and removed."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tde_replication import hosts
from tde_replication.errors import CommandFailed, UserError
from tde_replication.hosts.base import Host
from tde_replication.hosts.placement import Placement
from tde_replication.postgres import pgbackrest
from tde_replication.postgres.copying import amount
from tde_replication.postgres.disk import free_bytes
from tde_replication.postgres.restore import Restore, note_beside, place, take_away
from tde_replication.postgres.session import server_session
from tde_replication.progress import progress
from tde_replication.restore_drill.reading import read
from tde_replication.status.backups import Drill
from tde_replication.status.declared import Declared

COPIED = ("max_prepared_transactions", "max_locks_per_transaction")
"""Parameters that recovery, and a session which reads many tables, need as the server has them."""
ROOM = 2**30
"""Bytes beside the backup itself, for WAL that is fetched and written."""


@dataclass(frozen=True)
class Server:
    """One that answers."""

    name: str
    placement: Placement
    writes: bool
    identifier: str
    settings: dict[str, str]
    """Its own values of `COPIED`."""

    @property
    def machine(self) -> Host:
        return hosts.host(self.placement.address)


def drill(declared: Declared) -> Drill:
    """Raises `UserError` where it cannot begin; what goes wrong later is in its result, which is noted on the server."""
    if not declared.cluster.archive:
        raise UserError("the stack file declares no archive: there is nothing to restore (docs/backup.md)")
    stanza = declared.cluster.archive.pgbackrest.stanza
    servers = sorted(_answering(declared), key=lambda one: one.writes)
    if not servers:
        raise UserError("no server answers, and a backup is restored on one of them: start one first (`make status`)")
    backup = _newest(servers, stanza)
    server = _with_room(servers, backup)
    began, when = time.monotonic(), datetime.now(UTC)
    result = Drill(time=when, server=server.name, stanza=stanza, backup=backup.label)
    try:
        result = _restored(declared, server, result)
    except UserError as why:
        result = result.model_copy(update={"problem": str(why)})
    finally:
        progress("removes what was restored")
        take_away(server.machine, server.placement.binaries, server.placement.data)
    result = result.model_copy(update={"seconds": round(time.monotonic() - began, 1)})
    note = note_beside(server.placement.data, declared.stack)
    server.machine.write(note, result.model_dump_json(by_alias=True).encode(), mode=0o600)
    return result


def _answering(declared: Declared) -> Iterator[Server]:
    for one in declared.servers:
        if (placement := one.placement) is None:
            continue
        try:
            with server_session(hosts.host(placement.address), placement.data, f"server {one.name}") as session:
                [(identifier, recovering)] = session.rows(
                    "SELECT system_identifier::text, pg_is_in_recovery() FROM pg_control_system()"
                )
                copied = {name: str(session.value("SELECT current_setting(%s)", [name])) for name in COPIED}
        except UserError as why:
            progress(f"{one.name} cannot be asked: {why}")
            continue
        yield Server(one.name, placement, not recovering, identifier, copied)


def _newest(servers: Sequence[Server], stanza: str) -> pgbackrest.Backup:
    first = servers[0]
    try:
        found = pgbackrest.stanza(first.machine, stanza)
    except CommandFailed as why:
        told = pgbackrest.told(why.output.splitlines())
        raise UserError(f"pgBackRest on {first.name} does not tell of stanza {stanza}: {told}") from None
    if found.problem or found.missing:
        raise UserError(f"stanza {stanza} has nothing to restore: {found.problem or 'it is not in the repository'}")
    if found.system_identifier != first.identifier:
        raise UserError(f"stanza {stanza} is of another cluster (system identifier {found.system_identifier})")
    if not found.backups:
        raise UserError(
            f"there is no backup in stanza {stanza}: run `pgbackrest --stanza={stanza} backup`, then this again"
        )
    return max(found.backups, key=lambda one: one.timestamp.stop)


def _with_room(servers: Sequence[Server], backup: pgbackrest.Backup) -> Server:
    """A standby, where one has room. What a killed drill has left counts as room: it is removed first."""
    needed, told = backup.info.size + ROOM, []
    for server in servers:
        take_away(server.machine, server.placement.binaries, server.placement.data)
        free = free_bytes(server.machine, server.placement.data.parent)
        if free is None or free >= needed:
            return server
        told.append(f"{server.name} has {amount(free)}")
    raise UserError(
        f"no server has room for the backup ({amount(needed)} with WAL) beside its data: {', '.join(told)}. Nothing was restored"
    )


def _restored(declared: Declared, server: Server, result: Drill) -> Drill:
    cluster, placement = declared.cluster, server.placement
    encrypted = cluster.encryption != "off" and placement.has_pg_tde is not False
    wal = encrypted and cluster.wal_encryption
    tde = {"shared_preload_libraries": "pg_tde", "pg_tde.cipher": cluster.cipher} if encrypted else {}
    restore = Restore(
        server.machine,
        placement.data,
        placement.binaries,
        result.stanza,
        {**server.settings, **tde, **({"pg_tde.wal_encrypt": "on"} if wal else {}), "port": str(placement.port)},
        wal,
        placement.parameters.get("unix_socket_directories", str(placement.data.parent)),
    )
    progress(f"restores backup {result.backup} to {place(placement.data)} on {server.name}")
    restore.restore(result.backup)
    progress("starts what was restored, and recovers the archived WAL")
    with restore.started():
        with restore.session() as session:
            [(identifier, to)] = session.rows(
                "SELECT system_identifier::text, pg_last_xact_replay_timestamp() FROM pg_control_system()"
            )
        if identifier != server.identifier:
            raise UserError(f"what was restored is another cluster (system identifier {identifier})")
        figures, problem = read(restore)
    return result.model_copy(
        update={
            "recovered_to": to,
            "databases": figures.databases,
            "tables": figures.tables,
            "encrypted": figures.encrypted,
            "rows": figures.rows,
            "bytes": figures.bytes,
            "problem": problem,
        }
    )
