"""Reads all of a restored server: every table from its first row to its last."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import sql

from tde_replication.errors import NoExtension, UserError
from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.restore import Restore
from tde_replication.postgres.session import Session
from tde_replication.progress import progress

DATABASES = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1"
# Not what recovery empties (unlogged), nor what a statement has to fill first.
TABLES = (
    "SELECT c.oid, nspname, relname, pg_table_size(c.oid), coalesce(amname = 'tde_heap', false) FROM pg_class AS c "
    "JOIN pg_namespace AS n ON n.oid = relnamespace LEFT JOIN pg_am AS a ON a.oid = relam "
    "WHERE relkind IN ('r', 'm') AND relpersistence = 'p' AND relispopulated AND nspname NOT IN ('pg_catalog', "
    "'information_schema') ORDER BY 2, 3"
)
READ_DEADLINE = 24 * 3600.0
PROBLEMS = 5
"""So many are named."""


@dataclass
class Figures:
    databases: int = 0
    tables: int = 0
    encrypted: int = 0
    rows: int = 0
    bytes: int = 0
    unread: int = 0
    """Tables that could not be read."""


class Table(NamedTuple):
    oid: int
    schema: str
    name: str
    bytes: int
    made_encrypted: bool
    """Whether it is of tde_heap."""


def read(restored: Restore) -> tuple[Figures, str]:
    """What was read, and what could not be; empty: all could."""
    figures, problems = Figures(), []
    with restored.session() as session:
        databases = [name for (name,) in session.rows(DATABASES)]
    for database in databases:
        with restored.session(database) as session:
            problems += list(_database(session, database, figures))
        figures.databases += 1
    more = f"; and {len(problems) - PROBLEMS} more" if len(problems) > PROBLEMS else ""
    return figures, f"{'; '.join(problems[:PROBLEMS])}{more}"


def _database(session: Session, name: str, figures: Figures) -> Iterator[str]:
    try:
        tde = PgTde(session)
    except NoExtension:
        tde = None
    for table in map(Table._make, session.rows(TABLES)):
        called = f"{name}.{table.schema}.{table.name}"
        progress(f"reads {called}: {figures.tables} tables and {figures.rows} rows by now")
        try:
            with session.within(READ_DEADLINE):
                query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(table.schema, table.name))
                figures.rows += int(session.value(query))
            if table.made_encrypted and not (tde and tde.is_encrypted(table.oid)):
                yield f"{called} is not encrypted, and was made so"
        except UserError as why:
            figures.unread += 1
            yield f"{called} cannot be read: {why}"
            continue
        figures.tables += 1
        figures.encrypted += table.made_encrypted
        figures.bytes += table.bytes
