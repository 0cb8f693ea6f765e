"""Judges backups: whether there are any, and whether the last restore drill succeeded."""

from collections.abc import Iterator

from tde_replication.status.backups import Stanza
from tde_replication.status.finding import Finding, Level
from tde_replication.status.model import Snapshot

PAGE = "docs/backup.md"


def archive_findings(snapshot: Snapshot) -> Iterator[Finding]:
    if (stanza := snapshot.stanza) is None:
        return
    for server in snapshot.writers:
        if server.instance and server.instance.archiver.mode == "off":
            yield Finding(
                Level.DEGRADED, "archive", server.name, "it archives no WAL (archive_mode is off): `make up`", PAGE
            )
    yield from _repository(stanza)
    if stanza.drill and stanza.drill.problem:
        yield Finding(
            Level.DEGRADED, "restore drill", stanza.drill.server, f"the last one failed: {stanza.drill.problem}", PAGE
        )


def _repository(stanza: Stanza) -> Iterator[Finding]:
    if stanza.state == "not known":
        told = f"whether stanza {stanza.name} has backups cannot be told: {stanza.problem}"
        yield Finding(Level.UNKNOWN, "backup", stanza.server, told)
    elif stanza.state == "missing":
        told = (
            f"stanza {stanza.name} is not in the repository: no WAL can be archived, and there is no backup: `make up`"
        )
        yield Finding(Level.DEGRADED, "archive", stanza.server, told, PAGE)
    elif stanza.state == "of another cluster":
        told = f"stanza {stanza.name} is of another cluster: there is no backup of this one: name another stanza"
        yield Finding(Level.DEGRADED, "archive", stanza.server, told, PAGE)
    elif stanza.last is None:
        told = f"there is no backup in stanza {stanza.name}: run `pgbackrest --stanza={stanza.name} backup`"
        yield Finding(Level.DEGRADED, "backup", stanza.server, told, PAGE)
    elif stanza.last.damaged:
        told = f"backup {stanza.last.label} has pages with wrong checksums: see pgBackRest's log; of encrypted tables, "
        yield Finding(
            Level.DEGRADED, "backup", stanza.server, f"{told}checksum-page=n is missing in its configuration", PAGE
        )
