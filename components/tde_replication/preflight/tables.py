"""What keeps tables from being rewritten: looked up on the running primary before anything is changed."""

from collections.abc import Sequence
from pathlib import PurePosixPath

from tde_replication import hosts, settings
from tde_replication.errors import NoDatabase, UserError
from tde_replication.hosts.placement import Placement
from tde_replication.postgres.copying import amount
from tde_replication.postgres.disk import free_bytes
from tde_replication.postgres.session import Session, server_session
from tde_replication.postgres.table_encryption import in_words
from tde_replication.postgres.tables import Pattern, Survey, Table, survey
from tde_replication.unasked import unless_new

CAP = "SELECT setting::bigint << 20 FROM pg_settings WHERE name = 'max_slot_wal_keep_size' AND setting::bigint >= 0"
ASKED = "cluster.tables"


def check_tables(
    primary: Placement, server: settings.Server, token: str, database: str, patterns: Sequence[Pattern]
) -> tuple[list[str], list[str]]:
    """Mistakes, and notices, of what `patterns` declare of a database. `token` is the path of the primary's Vault token."""
    host = hosts.host(primary.address)
    try:
        with server_session(host, primary.data, ASKED, database) as session:
            found = survey(session, patterns)
            cap: int | None = session.value(CAP) if found.tables else None
            mistakes = [*_too_large(session, primary, server.name, found)]
            is_new = server.adopt and not host.status(PurePosixPath(token))
    except NoDatabase:
        return [], []
    except UserError as why:
        unless_new(host, primary.data, f"which tables of database {database} are to be rewritten", why)
        return [], []
    notices = [
        f"{table.name} of database {database} writes about {amount(table.size)} of WAL while it is rewritten, and slots may hold "
        f"{amount(cap)} (replication.maxSlotWalKeepSize): a standby that does not keep up loses its slot, and is cloned again"
        for table in found.tables
        if cap is not None and table.logged and table.size > cap
    ]
    notices += [f"{name} of database {database} stays as it is: {why}" for name, why in found.left.items()]
    # Of a primary that is just being adopted, no resource can tell it yet.
    return mistakes, [in_words(found, database), *notices] if is_new and found.tables else notices


def _too_large(session: Session, primary: Placement, server: str, found: Survey) -> list[str]:
    """A rewrite makes a whole copy, beside the WAL of it."""
    largest = dict[str, Table]()
    for table in found.tables:
        if table.size > largest.setdefault(table.tablespace, table).size:
            largest[table.tablespace] = table
    mistakes = []
    for tablespace, table in largest.items():
        place = PurePosixPath(tablespace or primary.data)
        free = free_bytes(hosts.host(primary.address), place) if table.size else None
        if free is not None and free < table.size:
            mistakes.append(
                f"{ASKED}: {table.name} of database {session.connection.info.dbname} takes another {amount(table.size)} while it "
                f"is rewritten, and only {amount(free)} are free in {place} on {server}. Nothing is changed. Make room, or leave "
                "it out by a pattern"
            )
    return mistakes
