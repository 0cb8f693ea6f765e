"""Asks for backups: pgBackRest on one server, and each server's note of its last restore drill."""

from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import ValidationError

from tde_replication import hosts
from tde_replication.errors import CommandFailed, UserError
from tde_replication.hosts.placement import Placement
from tde_replication.parallel import parallel_map
from tde_replication.postgres import pgbackrest
from tde_replication.postgres.restore import note_beside
from tde_replication.status.backups import Drill, Stanza, StoredBackup
from tde_replication.status.declared import Declared, DeclaredServer
from tde_replication.status.model import Server


def stanza(declared: Declared, servers: Sequence[Server]) -> Stanza | None:
    """As the server sees it that takes writes, else any that answers; None where no archive is declared."""
    if not declared.cluster.archive:
        return None
    name = declared.cluster.archive.pgbackrest.stanza
    answering = sorted((one for one in servers if one.instance), key=lambda one: not one.writes)
    drills = [one for one in parallel_map(lambda server: last_drill(server, declared.stack), declared.servers) if one]
    drill = max(drills, key=lambda one: one.time, default=None)
    if not answering:
        return Stanza(name=name, problem="no server answers", drill=drill)
    [server] = [one for one in declared.servers if one.name == answering[0].name]
    assert server.placement  # noqa: S101 - it answers
    assert answering[0].instance  # noqa: S101 - as is asked above
    found = _asked(name, server.placement, answering[0].instance.system_identifier)
    return found.model_copy(update={"server": server.name, "drill": drill})


def _asked(name: str, placement: Placement, identifier: str) -> Stanza:
    try:
        found = pgbackrest.stanza(hosts.host(placement.address), name)
    except CommandFailed as why:
        return Stanza(name=name, problem=pgbackrest.told(why.output.splitlines()))
    except UserError as why:
        return Stanza(name=name, problem=str(why))
    if found.problem:
        return Stanza(name=name, problem=found.problem)
    if found.missing:
        return Stanza(name=name, state="missing")
    last = max(found.backups, key=lambda one: one.timestamp.stop, default=None)
    return Stanza(
        name=name,
        state="there" if found.system_identifier == identifier else "of another cluster",
        in_clear=tuple(found.in_clear),
        backups=len(found.backups),
        last=last
        and StoredBackup(
            label=last.label,
            type=last.type,
            ended=datetime.fromtimestamp(last.timestamp.stop, UTC),
            bytes=last.info.size,
            damaged=bool(last.error),
        ),
    )


def last_drill(server: DeclaredServer, stack: str) -> Drill | None:
    """As the server's machine has it; None where it has none, or does not answer, which is told elsewhere."""
    if server.placement is None:
        return None
    try:
        content = hosts.host(server.placement.address).read(note_beside(server.placement.data, stack))
        return Drill.model_validate_json(content) if content else None
    except (UserError, ValidationError):
        return None
