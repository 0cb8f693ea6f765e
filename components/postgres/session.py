"""SQL against one server: a guarded connection, and errors as sentences."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from components.errors import AnotherCluster, NoDatabase, Problem, Unavailable
from components.hosts.base import Connection, Host
from components.postgres.resource import OnServer

Query = LiteralString | sql.Composed | sql.SQL
ANSWERED_FOR_ELSEWHERE = (
    psycopg.errors.UndefinedFile,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedFunction,
)


class Session:
    """A connection whose mistakes are told to a person; `purpose` opens each sentence ("role replicator")."""

    def __init__(self, connection: Connection, purpose: str) -> None:
        self.connection = connection
        self._purpose = purpose

    def rows(self, query: Query, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows (none where it returns none)."""
        with told(self._purpose):
            cursor = self.connection.execute(query, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def row(self, query: Query, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        found = self.rows(query, parameters)
        return found[0] if found else None

    def value(self, query: Query, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first row; None where there is none."""
        found = self.row(query, parameters)
        return found[0] if found else None

    def shown(self, query: LiteralString, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row of what pg_tde shows of its providers and keys.

        Raises `Unavailable` for what another resource answers for: it opens the Vault token files even to list them; the
        extension may have been dropped; and a server that has not loaded its library ends the session.
        """
        with told(self._purpose):
            try:
                return self.connection.execute(query, parameters or None).fetchone()
            except psycopg.Error as error:
                if isinstance(error, ANSWERED_FOR_ELSEWHERE) or error.diag.severity_nonlocalized == "FATAL":
                    raise Unavailable(str(sentence(self._purpose, error))) from None
                raise

    def unless(self, expected: type[psycopg.Error], query: LiteralString, parameters: Sequence[Any] = ()) -> None:
        """Run one statement, and leave things as they are where the server answers with the `expected` error."""
        with told(self._purpose), suppress(expected):
            self.connection.execute(query, parameters or None)


@contextmanager
def told(purpose: str) -> Iterator[None]:
    """Turn psycopg's errors into sentences with their SQLSTATE, detail and hint."""
    try:
        yield
    except psycopg.Error as error:
        raise sentence(purpose, error) from None


def sentence(purpose: str, error: psycopg.Error) -> Problem:
    told_by_server = error.diag
    text = told_by_server.message_primary or str(error).strip() or type(error).__name__
    parts = [part for part in (told_by_server.message_detail, told_by_server.message_hint) if part]
    extra = "".join(f" {'; '.join(part.splitlines()).rstrip('.')}." for part in parts)
    lost = error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))
    state = f" (SQLSTATE {error.sqlstate})" if error.sqlstate else ""
    return (Unavailable if lost else Problem)(f"{purpose}: {text}{state}.{extra}")


@contextmanager
def server_session(host: Host, data: PurePosixPath, purpose: str, database: str = "postgres") -> Iterator[Session]:
    """A superuser's session on whatever server runs on `data`. Raises `NoDatabase` where that has none of this name."""
    try:
        connection = host.connect(data, database)
    except Unavailable:
        if _has_database(host, data, database):
            raise
        raise NoDatabase(f"{purpose}: the server on {data} has no database {database}") from None
    with connection:
        yield Session(connection, purpose)


def _has_database(host: Host, data: PurePosixPath, name: str) -> bool:
    """Asked, for a refused connection has no SQLSTATE, and says why in the server's language."""
    if name == "postgres":
        return True
    with host.connect(data, "postgres") as connection:
        return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone() is not None


@contextmanager
def session(resource: OnServer, purpose: str, database: str = "postgres") -> Iterator[Session]:
    """A superuser's session on the server that `resource` was declared for.

    Raises `AnotherCluster` where that is what runs there.
    """
    with server_session(resource.machine, resource.data, purpose, database) as opened:
        found = str(opened.value("SELECT system_identifier FROM pg_control_system()"))
        if found != resource.system_identifier:
            raise AnotherCluster(
                f"{purpose}: the server on {resource.data_directory} is another cluster (system identifier {found}, "
                f"declared {resource.system_identifier}); nothing was changed. Bring the right one back, or remove this "
                "stack's state of it"
            )
        yield opened
