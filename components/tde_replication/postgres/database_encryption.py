"""What tables of one database are made with, and which of them are in clear all the same.

`ALTER DATABASE … SET`, and not the servers' configuration: in a database without the extension, a default of tde_heap is an
error of every CREATE TABLE. It is in a catalog, so that standbys have it by replication. (Percona pg_tde documentation,
*Encryption enforcement*; PostgreSQL documentation, *Parameter Interaction via the Shell* and *ALTER DATABASE*.)
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import ClassVar, Self

from psycopg import sql

from tde_replication.errors import NoDatabase, UserError
from tde_replication.postgres.guc import same_value
from tde_replication.postgres.on_primary import OnPrimary
from tde_replication.postgres.relations import tables_in_clear
from tde_replication.postgres.session import Session, session
from tde_replication.postgres.tables import Pattern
from tde_replication.progress import note
from tde_replication.records import Cost
from tde_replication.unasked import could_not_ask
from tde_replication.values import DATABASE_SETTINGS, ENFORCE

FOUND = "tde_replication.found"
"""A parameter of the database's own, beside those: what they were before the stack, as JSON (null: not set). Written in one
transaction with them, so that whoever takes them back knows it, also after an `up` that was killed."""
TABLES_SHOWN = 50
SETTINGS_OF = (
    "SELECT coalesce(rolname::text, ''), setconfig FROM pg_db_role_setting LEFT JOIN pg_roles ON pg_roles.oid = setrole "
    "WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()) OR (setdatabase = 0 AND setrole <> 0) "
    "ORDER BY setdatabase = 0, rolname"
)
"""Of the database (with an empty name), of roles in it, and of roles everywhere."""


class DatabaseEncryption(OnPrimary):
    """Parameters of one database. What is in clear, and what outranks them for a role, is shown and left."""

    database: str
    settings: dict[str, str]
    """Of `DATABASE_SETTINGS`."""
    patterns: list[Pattern] = []
    """What else is declared of its tables: those that are to be in clear are not shown."""
    tables_in_clear: list[str] = []
    """Other tables and materialized views, where `pg_tde.enforce_encryption` is declared; declared as none."""
    outranked: list[str] = []
    """Other values of these parameters that roles have (ALTER ROLE … SET); declared as none."""

    replaced_by: ClassVar[frozenset[str]] = OnPrimary.replaced_by | {"database"}
    not_compared: ClassVar[frozenset[str]] = frozenset({"patterns"})

    @property
    def identity(self) -> str:
        return f"encryption in {self.database}"

    @property
    def _purpose(self) -> str:
        return f"database {self.database}"

    def read(self) -> Self | None:
        try:
            with session(self, self._purpose, self.database) as server:
                own, roles = _settings(server)
                return self.replace(
                    settings={
                        name: value if same_value(name, value, own[name]) else own[name]
                        for name, value in self.settings.items()
                        if name in own
                    },
                    outranked=list(self._outranking(roles)),
                    tables_in_clear=self._in_clear(server),
                )
        except NoDatabase:
            return None

    def _outranking(self, roles: Sequence[tuple[str, Mapping[str, str]]]) -> Iterator[str]:
        for role, found in roles:
            for name, value in self.settings.items():
                if name in found and not same_value(name, value, found[name]):
                    yield f"{name} is {found[name]} for role {role}"

    def _in_clear(self, server: Session) -> list[str]:
        if ENFORCE not in self.settings:
            return []
        try:
            return tables_in_clear(server, TABLES_SHOWN, self.patterns)
        except UserError as why:  # of an extension that is not there, another resource tells
            could_not_ask(f"which tables of database {self.database} are in clear", why)
            return self.tables_in_clear

    def costs(self, live: Self | None) -> Iterator[Cost]:
        """What a person has to do: no `up` does it."""
        found = live or self.read()
        told = found._left() if found else ""  # noqa: SLF001 - of this class
        if told:
            yield Cost(kind="by hand", text=f"{self._purpose}: {told}")

    def _left(self) -> str:
        """What is not as declared, and stays."""
        found = []
        if tables := self.tables_in_clear:
            found.append(
                f"in clear: {', '.join(tables)}. `up` encrypts only what `tables` declares: add a pattern there (under a "
                "lock that lets nobody read it meanwhile)"
            )
        if self.outranked:
            found.append(f"{', '.join(self.outranked)}, which overrides the database's value: `up` does not change it")
        return "; ".join(found)

    def create(self) -> Self:
        return self._bring()

    def update(self, live: Self) -> Self:
        del live
        return self._bring()

    def _bring(self) -> Self:
        with session(self, self._purpose, self.database) as server:
            self._set(server, self.settings)
        if (found := self.read()) and (left := found._left()):  # noqa: SLF001 - of this class
            note(f"{self._purpose}: {left}")
        return self

    def delete(self) -> None:
        """Give back what was there before the stack."""
        with suppress(NoDatabase), session(self, self._purpose, self.database) as server:
            self._set(server, {})

    def _set(self, server: Session, wanted: Mapping[str, str]) -> None:
        """Set what is wanted; what is not, and was set by the stack, is as it was before, but for what somebody else has set
        since."""
        with server.connection.transaction():
            own, _ = _settings(server)
            found = _found(own)
            for name, value in wanted.items():
                found.setdefault(name, own.get(name))
                self._alter(server, name, value)
            for name in [name for name in found if name not in wanted]:
                before = found.pop(name)
                if same_value(name, DATABASE_SETTINGS[name], own.get(name, "")):
                    self._alter(server, name, before)
            self._alter(server, FOUND, json.dumps(found) if found else None)

    def _alter(self, server: Session, name: str, value: str | None) -> None:
        parameter = sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
        what = sql.SQL("RESET {}").format(parameter)
        if value is not None:
            what = sql.SQL("SET {} = {}").format(parameter, sql.Literal(value))
        server.rows(sql.SQL("ALTER DATABASE {} {}").format(sql.Identifier(self.database), what))


def _settings(server: Session) -> tuple[dict[str, str], list[tuple[str, dict[str, str]]]]:
    """The database's own, and those of roles."""
    own: dict[str, str] = {}
    roles = []
    for role, config in server.rows(SETTINGS_OF):
        found = {name: value for name, _, value in (one.partition("=") for one in config)}
        if role:
            roles.append((role, found))
        else:
            own = found
    return own, roles


def _found(own: Mapping[str, str]) -> dict[str, str | None]:
    """What `FOUND` says; nothing where somebody has put something else there."""
    try:
        known = json.loads(own.get(FOUND, "{}"))
        return {
            name: before
            for name, before in known.items()
            if name in DATABASE_SETTINGS and isinstance(before, str | None)
        }
    except (ValueError, AttributeError):
        return {}
