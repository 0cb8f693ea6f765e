"""The extension pg_tde, in each database that holds encrypted tables; standbys get it by replication."""

from contextlib import suppress
from typing import ClassVar, Self

import psycopg
from psycopg import sql

from tde_replication.errors import NoDatabase, UserError
from tde_replication.postgres.on_primary import OnPrimary
from tde_replication.postgres.session import session
from tde_replication.progress import note


class Extension(OnPrimary):
    """``CREATE EXTENSION pg_tde`` in one database, which is made where it is missing and never dropped."""

    database: str
    ours: bool = True

    replaced_by: ClassVar[frozenset[str]] = OnPrimary.replaced_by | {"database"}
    computed: ClassVar[frozenset[str]] = frozenset({"ours"})

    @property
    def identity(self) -> str:
        return f"pg_tde in {self.database}"

    def read(self) -> Self | None:
        try:
            with session(self, self.identity, self.database) as server:
                return self if server.row("SELECT 1 FROM pg_extension WHERE extname = 'pg_tde'") else None
        except NoDatabase:
            return None

    def create(self) -> Self:
        with session(self, self.identity) as server:
            missing = not server.row("SELECT 1 FROM pg_database WHERE datname = %s", [self.database])
            if missing:
                with server.within():
                    server.rows(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.database)))
                note(f"database {self.database} is made")
        with session(self, self.identity, self.database) as server:
            there = server.row("SELECT 1 FROM pg_extension WHERE extname = 'pg_tde'")
            if not there:
                if not server.row("SELECT 1 FROM pg_namespace WHERE nspname = 'public'"):
                    raise UserError(
                        f"{self.identity}: the database has no schema public. Create it, or create the extension in another "
                        f"schema yourself (CREATE EXTENSION pg_tde SCHEMA …), and run `up` again"
                    )
                with server.within():
                    server.rows("CREATE EXTENSION IF NOT EXISTS pg_tde SCHEMA public")
            # A database that is made has what template1 has.
            return self.replace(ours=missing or not there)

    def update(self, live: Self) -> Self:
        del live
        return self

    def delete(self) -> None:
        """Drop it where this stack made it and nothing uses it: encrypted tables keep it."""
        if self.ours:
            with suppress(NoDatabase), session(self, self.identity, self.database) as server, server.within():
                server.unless(psycopg.errors.DependentObjectsStillExist, "DROP EXTENSION IF EXISTS pg_tde")
