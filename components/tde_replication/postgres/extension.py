"""The extension pg_tde, in each database that holds encrypted tables; standbys get it by replication."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import ClassVar, Self

import psycopg
from psycopg import sql

from tde_replication import hosts
from tde_replication.errors import NoDatabase, NoExtension, Unavailable, UserError
from tde_replication.pg_tde_version import version
from tde_replication.postgres.on_primary import OnPrimary
from tde_replication.postgres.pg_tde import PgTde, is_loaded
from tde_replication.postgres.session import Session, server_session, session
from tde_replication.progress import note

CURRENT = "that of the server's library"
VERSIONS = (
    "SELECT extversion, default_version, EXISTS (SELECT FROM pg_extension_update_paths('pg_tde') "
    "WHERE source = extversion AND target = default_version AND path IS NOT NULL) "
    "FROM pg_extension LEFT JOIN pg_available_extensions ON name = extname WHERE extname = 'pg_tde'"
)
NO_UPDATE = "and no update leads there"


class Extension(OnPrimary):
    """``CREATE EXTENSION pg_tde`` in one database, which is made where it is missing and never dropped."""

    database: str
    version: str = CURRENT
    """Of what is installed in the database, against the server's library ("2.1, and the server's library is of 2.2")."""
    ours: bool = True

    replaced_by: ClassVar[frozenset[str]] = OnPrimary.replaced_by | {"database"}
    computed: ClassVar[frozenset[str]] = frozenset({"ours"})

    @property
    def identity(self) -> str:
        return f"pg_tde in {self.database}"

    def read(self) -> Self | None:
        try:
            with session(self, self.identity, self.database) as server:
                return self._live(server)
        except NoDatabase:
            return None

    def _live(self, server: Session) -> Self | None:
        found = server.row(VERSIONS)
        if not found:
            return None
        installed, available, leads_there = found
        if available in {None, installed} or not _has_loaded(server, available):
            return self.replace(version=CURRENT)
        told = f"{installed}, and the server's library is of {available}"
        return self.replace(version=told if leads_there else f"{told}, {NO_UPDATE}")

    def refusal(self, live: Self) -> str | None:
        if not live.version.endswith(NO_UPDATE):
            return None
        return (
            f"{self.identity}: its version is {live.version}: nothing was changed. Install a pg_tde that has one on every server "
            "(never an older one than before), and restart them"
        )

    def create(self) -> Self:
        with session(self, self.identity) as server:
            missing = not server.row("SELECT 1 FROM pg_database WHERE datname = %s", [self.database])
            if missing:
                with server.within():
                    server.rows(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.database)))
                note(f"database {self.database} is made")
        with session(self, self.identity, self.database) as server:
            there = self._live(server)
            if not there:
                if not server.row("SELECT 1 FROM pg_namespace WHERE nspname = 'public'"):
                    raise UserError(
                        f"{self.identity}: the database has no schema public. Create it, or create the extension in another "
                        f"schema yourself (CREATE EXTENSION pg_tde SCHEMA …), and run `up` again"
                    )
                with server.within():
                    server.rows("CREATE EXTENSION IF NOT EXISTS pg_tde SCHEMA public")
            elif self.changed(there):
                self._update(server, there)
            # A database that is made has what template1 has.
            return self.replace(ours=missing or not there)

    def update(self, live: Self) -> Self:
        """The functions of another version; tables and keys stay as they are."""
        with session(self, self.identity, self.database) as server:
            if (found := self._live(server)) and self.changed(found):
                self._update(server, found)
        return self.replace(ours=live.ours)

    def _update(self, server: Session, found: Self) -> None:
        if refusal := self.refusal(found):
            raise UserError(refusal)
        [[available]] = server.rows("SELECT default_version FROM pg_available_extensions WHERE name = 'pg_tde'")
        if behind := list(self._behind(available)):
            raise UserError(
                f"{self.identity}: {', '.join(behind)} would get functions of {available} by replication, which its library may "
                f"not have: nothing was changed. Install pg_tde {available} there, restart it, and run `up` again"
            )
        with server.within():
            server.rows("ALTER EXTENSION pg_tde UPDATE")

    def _behind(self, available: str) -> Iterator[str]:
        """Other servers whose library is older. One that is down cannot be asked: it replays this whatever its library is."""
        for host, data in self.others:
            purpose = f"{self.identity}: the server on {data}"
            with (
                suppress(Unavailable, NoDatabase, NoExtension),
                server_session(hosts.host(host), PurePosixPath(data), purpose, self.database) as other,
            ):
                if not _has_loaded(other, available):
                    yield f"the server on {data}"

    def delete(self) -> None:
        """Drop it where this stack made it and nothing uses it: encrypted tables keep it."""
        if self.ours:
            with suppress(NoDatabase), session(self, self.identity, self.database) as server, server.within():
                server.unless(psycopg.errors.DependentObjectsStillExist, "DROP EXTENSION IF EXISTS pg_tde")


def _has_loaded(server: Session, available: str) -> bool:
    """Whether the library that the server runs with is of that version, and not one that was replaced on disk meanwhile."""
    if not is_loaded(server):
        return False
    loaded, wanted = version(PgTde(server).version()), version(available)
    return bool(loaded and wanted and loaded[:2] >= wanted[:2])
