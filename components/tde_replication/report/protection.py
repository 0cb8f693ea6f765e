"""What is encrypted on the disks of a cluster and what is not, and why that matters: the facts of docs/encryption.md."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from tde_replication.status.encryption_checks import is_encrypted, not_encrypted
from tde_replication.status.figures import amounts, bytes_on_disk, wal
from tde_replication.status.model import Snapshot
from tde_replication.status.words import size

TABLES_NAMED = 10


class Protection(Enum):
    ENCRYPTED = "encrypted"
    PARTLY = "in part"
    CLEAR = "in clear"
    UNKNOWN = "not known"


@dataclass(frozen=True)
class Row:
    what: str
    protection: Protection
    text: str


NEVER = (
    Row(
        "System catalogs",
        Protection.CLEAR,
        "pg_tde never encrypts them. They hold the names of tables and columns, and, as statistics for the planner, samples of "
        "values: the most common values of a column can be read there.",
    ),
    Row(
        "Temporary files",
        Protection.CLEAR,
        "pg_tde never encrypts them. Large sorts and joins write rows of tables there while they run; a crash may leave them.",
    ),
    Row(
        "Server logs",
        Protection.CLEAR,
        "pg_tde never encrypts them. Error messages and logged statements may quote values.",
    ),
    Row(
        "Archived WAL and backups",
        Protection.UNKNOWN,
        "They lie outside the servers, and this page does not look at them. Older ones stay as they were written.",
    ),
)
"""What holds for every cluster, whatever it declares."""


def rows(snapshot: Snapshot) -> list[Row]:
    return [*_tables(snapshot), _wal(snapshot), _on_disk(snapshot), *NEVER]


def _tables(snapshot: Snapshot) -> Iterator[Row]:
    if is_encrypted(snapshot) is None:
        yield Row("Tables", Protection.UNKNOWN, "No server could be asked what is encrypted.")
        return
    if why := not_encrypted(snapshot):
        yield Row("Tables", Protection.CLEAR, f"Nothing is encrypted: {why}.")
        return
    found = amounts(snapshot)
    if found is None:
        yield Row("Tables", Protection.UNKNOWN, "No database could be asked.")
        return
    kind = Protection.PARTLY if found.encrypted else Protection.CLEAR
    text = f"{size(found.encrypted)} of {size(found.whole)}, with their indexes. The databases are listed below."
    yield Row("Tables", Protection.ENCRYPTED if found.encrypted == found.whole else kind, text)
    for database in snapshot.databases:
        if database.clear_tables:
            named = ", ".join(f"{table.name} ({size(table.bytes)})" for table in database.clear_tables[:TABLES_NAMED])
            more = database.clear_table_count - min(len(database.clear_tables), TABLES_NAMED)
            yield Row(
                f"Tables in clear of database {database.name}",
                Protection.CLEAR,
                f"{named}{f' and {more} more' if more > 0 else ''}.",
            )
        if count := database.declared_clear_count:
            yield Row(
                f"Tables in clear of database {database.name}, as declared",
                Protection.CLEAR,
                f"{count} table{'s' if count > 1 else ''}.",
            )


def _on_disk(snapshot: Snapshot) -> Row:
    """What was read, beside what pg_tde says."""
    what = "Files, as they were read"
    if why := not_encrypted(snapshot):
        return Row(what, Protection.CLEAR, f"Not looked at: {why}.")
    told = [f"{one.name}: {bytes_on_disk(one.on_disk)}" for one in snapshot.servers if one.on_disk]
    read = [one.on_disk for one in snapshot.servers if one.on_disk and not one.on_disk.problem]
    kind = Protection.UNKNOWN
    if any(one.in_clear or one.wal == "in clear" for one in read):
        kind = Protection.CLEAR
    elif len(read) == len(snapshot.servers) and all(one.pages for one in read):
        kind = Protection.ENCRYPTED
    missing = ", ".join(one.name for one in snapshot.servers if not one.on_disk)
    text = "Bytes of the largest encrypted tables on each server's disk, read when this page was made, and not by the database"
    return Row(what, kind, f"{'. '.join([text, *told])}.{f' Nothing was read on {missing}.' if missing else ''}")


def _wal(snapshot: Snapshot) -> Row:
    what = "Write-ahead log (WAL)"
    text = "The log of all changes, from which standbys and recovery read. Without encryption it holds every row that is written"
    if not any(server.instance for server in snapshot.servers) or is_encrypted(snapshot) is None:
        return Row(what, Protection.UNKNOWN, f"{text}.")
    if not_encrypted(snapshot):
        return Row(what, Protection.CLEAR, f"{text}.")
    found = wal(snapshot)
    kinds = {"WAL too": Protection.ENCRYPTED, "WAL in clear": Protection.CLEAR}
    kind = kinds.get(found, Protection.PARTLY)
    return Row(what, kind, f"{text}{f': {found}' if kind is Protection.PARTLY else ''}.")
