"""Proof that tables are encrypted on a standby: one made with tde_heap on the primary, that arrives there as an encrypted one.

It lies in a schema of its own, which nobody else may use: in one that somebody else owns, it could be swapped for a view, whose
functions the superuser would then run.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tde_replication.errors import Conflict, UserError
from tde_replication.postgres.event_triggers import event_triggers
from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.session import Session
from tde_replication.values import NAME_BYTES

SCHEMA_PREFIX = "tde_replication_check_"
TABLE = "proof"
CONTENT = 42
SCHEMA = (
    "SELECT pg_get_userbyid(nspowner)::text, nspowner = (SELECT oid FROM pg_roles WHERE rolname = current_user) "
    "AND NOT EXISTS (SELECT FROM aclexplode(nspacl) WHERE grantee <> nspowner) FROM pg_namespace WHERE nspname = %s"
)
RELATION = (
    "SELECT c.oid::bigint, relkind::text, relowner::bigint FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace "
    "WHERE nspname = %s AND relname = %s"
)


@dataclass(frozen=True)
class EncryptionProof:
    slot: str
    """Of the standby: checks of several standbys run at the same time."""

    @property
    def schema(self) -> str:
        """Different for every slot: PostgreSQL would cut a long name, and two standbys might share one."""
        name = f"{SCHEMA_PREFIX}{self.slot}"
        if len(name) <= NAME_BYTES:
            return name
        digest = hashlib.sha256(self.slot.encode()).hexdigest()[:16]
        return f"{name[: NAME_BYTES - len(digest) - 1]}_{digest}"

    @property
    def _table(self) -> sql.Identifier:
        return sql.Identifier(self.schema, TABLE)

    @contextmanager
    def made(self, primary: Session) -> Iterator[None]:
        """Make the table, and take all of it away afterwards."""
        if found := self._found(primary):
            self._refuse(primary, *found)
            self.remove(primary)  # a killed run left it
        primary.rows(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        try:
            self._refuse(primary, *(self._found(primary) or ("nobody", False)))
            with event_triggers(primary):
                primary.rows(
                    sql.SQL("CREATE TABLE {} USING tde_heap AS SELECT {} AS content").format(
                        self._table, sql.Literal(CONTENT)
                    )
                )
            yield
        finally:
            self.remove(primary)

    def check(self, primary: Session, standby: Session) -> None:
        """On the standby, once it has replayed that."""
        expected, found = (self._relation(server) for server in (primary, standby))
        if expected is None or found != expected or found[1] != "r":
            raise UserError(
                f"{standby.purpose}: {self.schema}.{TABLE} differs from the one made on the primary ({found}; on the "
                f"primary: {expected}): somebody else has changed it. It was not read"
            )
        encrypted = PgTde(standby).is_encrypted(found[0])
        content = standby.value(sql.SQL("SELECT content FROM {}").format(self._table))
        if not encrypted or content != CONTENT:
            raise UserError(f"{standby.purpose}: a table made with tde_heap on the primary is not encrypted there")

    def remove(self, primary: Session) -> None:
        """It may be gone already; what somebody else has put into the schema keeps that."""
        if (found := self._found(primary)) and found[1]:
            primary.rows(sql.SQL("DROP TABLE IF EXISTS {}").format(self._table))
            drop = sql.SQL("DROP SCHEMA {}").format(sql.Identifier(self.schema))
            primary.unless(psycopg.errors.DependentObjectsStillExist, drop)

    def _found(self, primary: Session) -> tuple[Any, ...] | None:
        """The owner of the schema, and whether we own it and nobody else may use it; None: there is no such schema."""
        return primary.row(SCHEMA, [self.schema])

    def _refuse(self, primary: Session, owner: str, managed: bool) -> None:  # noqa: FBT001 - a row's columns
        if not managed:
            raise Conflict(
                f"{primary.purpose}: schema {self.schema} in database {primary.connection.info.dbname} is owned by {owner}, or "
                "others may use it: whether tables arrive encrypted is tried in a schema of that name. Rename or drop it, and "
                "run `up` again"
            )

    def _relation(self, server: Session) -> tuple[Any, ...] | None:
        return server.row(RELATION, [self.schema, TABLE])
