"""Figures of a whole cluster that more than one form of the status shows."""

from dataclasses import dataclass

from tde_replication.pg_tde_version import dotted, version
from tde_replication.status.faults import known_faults
from tde_replication.status.model import Encryption, OnDisk, Server, Snapshot


@dataclass(frozen=True)
class Amounts:
    """Bytes of all databases that could be asked, without system catalogs."""

    encrypted: int
    whole: int


def amounts(snapshot: Snapshot) -> Amounts | None:
    """None where no database could be asked."""
    asked = [database for database in snapshot.databases if not database.problem]
    if not asked:
        return None
    encrypted = sum(database.encrypted_bytes for database in asked)
    return Amounts(encrypted, encrypted + sum(database.clear_bytes + database.unknown_bytes for database in asked))


def wal(snapshot: Snapshot) -> str:
    """Which running servers encrypt the WAL that they write."""
    encrypt = [server.name for server in _running(snapshot) if server.instance and server.instance.wal_encrypted]
    clear = wal_in_clear(snapshot)
    if not clear:
        return "WAL too"
    return f"WAL on {', '.join(encrypt)} and not on {', '.join(clear)}" if encrypt else "WAL in clear"


def wal_in_clear(snapshot: Snapshot) -> list[str]:
    """The running servers that write their WAL in clear."""
    return [server.name for server in _running(snapshot) if server.instance and not server.instance.wal_encrypted]


def bytes_on_disk(found: OnDisk) -> str:
    """What the files of one server show."""
    if found.problem:
        return f"its files could not be read: {found.problem}"
    counted = (found.pages, "page"), (found.tables, "encrypted table")
    pages, tables = (f"{count} {word}{'s' if count != 1 else ''}" for count, word in counted)
    clear = f"IN CLEAR: {', '.join(found.in_clear)}" if found.in_clear else "none in clear"
    wal_page = {
        "encrypted": "newest page of WAL encrypted",
        "in clear": "newest page of WAL IN CLEAR",
        "not known": "",
    }[found.wal]
    parts = [f"{pages} of {tables}, {clear}" if found.pages else "no page of an encrypted table", wal_page]
    return f"read on its disk: {'; '.join(filter(None, parts))}"


def faults_of(server: Server) -> list[str]:
    """Known faults of its pg_tde, as sentences."""
    if not server.encryption or not server.instance or server.encryption.stand_in:
        return []
    return known_faults(server.encryption.version, server.instance.version_number)


def faults(snapshot: Snapshot) -> dict[str, list[str]]:
    """The servers that have each fault."""
    found: dict[str, list[str]] = {}
    for server in snapshot.servers:
        for fault in faults_of(server):
            found.setdefault(fault, []).append(server.name)
    return found


def versions(snapshot: Snapshot) -> list[str]:
    """Of PostgreSQL and pg_tde, each once; with the names of the servers that have it, where not all have."""
    running = _running(snapshot)
    found: dict[str, list[str]] = {}
    for server in running:
        found.setdefault(f"PostgreSQL {server.instance.version if server.instance else ''}", []).append(server.name)
    for server in running:
        if server.encryption:
            found.setdefault(pg_tde(server.encryption), []).append(server.name)
    return [
        found_version if len(names) == len(running) else f"{found_version} on {', '.join(names)}"
        for found_version, names in found.items()
    ]


def pg_tde(found: Encryption) -> str:
    """Its version, as a person may read it."""
    if not found.stand_in:
        return found.version
    number = version(found.version)
    return f"a stand-in for pg_tde{f' {dotted(number)}' if number else ''}"


def _running(snapshot: Snapshot) -> list[Server]:
    return [server for server in snapshot.servers if server.instance]
