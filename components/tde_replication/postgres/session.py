"""SQL against one server: a guarded connection, and errors as sentences."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql

from tde_replication.errors import AnotherCluster, LoginFailed, NoDatabase, SqlError, Unavailable, UserError
from tde_replication.hosts import facts, idle
from tde_replication.hosts.base import Host
from tde_replication.hosts.superuser import LOCK_SECONDS, STATEMENT_SECONDS, Connection, Query
from tde_replication.postgres.resource import OnServer
from tde_replication.postgres.shared import Rows, SharedConnection
from tde_replication.progress import progress
from tde_replication.values import TEMPLATE

C = TypeVar("C")
MAINTENANCE = ("postgres", TEMPLATE)
"""For what is in no particular database: a server may lack the first."""
LONG_SECONDS = 600.0
"""For a statement that copies files, or that waits for a Vault: pg_tde gives each of its requests ten seconds."""
WAIT_SECONDS = 2.0
"""A statement that runs for longer may wait for a lock: then it is looked up who holds it."""
LONGEST_PART = 4000
"""Characters of a server's message, detail or hint that are told."""
ANSWERED_FOR_ELSEWHERE = (
    psycopg.errors.UndefinedFile,
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedFunction,
)
BLOCKED_BY = (
    "SELECT pid, coalesce(nullif(application_name, ''), backend_type), coalesce(usename::text, 'none'), "
    "to_char(coalesce(xact_start, backend_start), 'YYYY-MM-DD HH24:MI:SS TZ') FROM pg_stat_activity "
    "WHERE pid = ANY(pg_blocking_pids(%s)) ORDER BY xact_start LIMIT 1"
)


class Session:
    """A connection whose mistakes are told to a person; `purpose` opens each sentence ("role replicator")."""

    def __init__(
        self,
        connection: Connection,
        purpose: str,
        again: Callable[[], Connection] | None = None,
        shared: SharedConnection | None = None,
    ) -> None:
        """`again` opens another connection to the same server, to look up what this one waits for; `shared` has answers that
        are good for all reads of a refresh."""
        self.connection = connection
        self.purpose = purpose
        self._again = again
        self._shared = shared
        self._holder = ""
        self._look_at = 0.0
        self._lock_seconds = LOCK_SECONDS
        connection.on_wait = self._look

    def rows(self, query: Query, parameters: Sequence[Any] = ()) -> Rows:
        """Run one statement and return its rows (none where it returns none)."""
        with self._told():
            return self._run(query, parameters)

    def row(self, query: Query, parameters: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        found = self.rows(query, parameters)
        return found[0] if found else None

    def value(self, query: Query, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first row. None: there is no row."""
        found = self.row(query, parameters)
        return found[0] if found else None

    def known(self, query: LiteralString) -> Rows:
        """The rows of a query that is the same for all: reads ask it once."""
        return self._shared.answer(query, lambda: self.rows(query)) if self._shared else self.rows(query)

    def shown(self, query: Query, parameters: Sequence[Any] = ()) -> Rows:
        """The rows of what pg_tde shows of its providers and keys.

        Raises `Unavailable` for what another resource answers for: it opens the Vault token files even to list them; the
        extension may have been dropped; and a server that has not loaded its library ends the session.
        """
        with self._told():
            try:
                return self._run(query, parameters)
            except psycopg.Error as error:
                if isinstance(error, ANSWERED_FOR_ELSEWHERE) or error.diag.severity_nonlocalized == "FATAL":
                    raise Unavailable(str(sentence(self.purpose, error))) from None
                raise

    def unless(self, expected: type[psycopg.Error], query: Query, parameters: Sequence[Any] = ()) -> None:
        """Run one statement, and leave things as they are where the server answers with the `expected` error."""
        try:
            self.rows(query, parameters)
        except SqlError as error:
            if error.sqlstate != expected.sqlstate:
                raise

    @contextmanager
    def within(self, seconds: float = LONG_SECONDS, *, locks: float | None = None) -> Iterator[None]:
        """Another limit than `STATEMENT_SECONDS` for the statements in it; with `locks`, also for the locks that they need."""
        limits = {"statement_timeout": seconds} | ({"lock_timeout": locks} if locks else {})
        for limit, value in limits.items():
            self.rows("SELECT set_config(%s, %s, false)", [limit, f"{value:.0f}s"])
        self.connection.limit = seconds
        self._lock_seconds = locks or LOCK_SECONDS
        try:
            yield
        finally:
            self.connection.limit, self._lock_seconds = STATEMENT_SECONDS, LOCK_SECONDS
            with suppress(psycopg.Error):  # in a session that has ended, or a transaction that failed, as is told
                for limit in limits:
                    self._run(sql.SQL("RESET {}").format(sql.Identifier(limit)))

    def _run(self, query: Query, parameters: Sequence[Any] = ()) -> Rows:
        self._holder, self._look_at = "", WAIT_SECONDS
        return self.connection.rows(query, parameters)

    def _look(self, seconds: float) -> None:
        """Look up who holds the lock that the running statement waits for, if it does; more and more seldom."""
        if seconds < self._look_at or self._again is None:
            return
        self._look_at = 2 * seconds
        with suppress(UserError, psycopg.Error), self._again() as other:
            for pid, application, user, since in other.rows(BLOCKED_BY, [self.connection.info.backend_pid]):
                self._holder = f"process {pid} ({application}, user {user}) holds it since {since}"
                progress(f"{self.purpose}: waits for a lock: {self._holder}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn psycopg's errors into sentences with their SQLSTATE, detail and hint."""
        try:
            yield
        except psycopg.errors.LockNotAvailable as error:
            raise SqlError(
                f"{self.purpose}: did not get a lock within {self._lock_seconds:.0f} s: "
                f"{self._holder or 'its holder is unknown'}. End that transaction, and run this again",
                str(error.sqlstate),
            ) from None
        except psycopg.errors.QueryCanceled as error:
            if "statement timeout" not in str(error):
                raise sentence(self.purpose, error) from None
            raise SqlError(
                f"{self.purpose}: the server did not finish this within {self.connection.limit:.0f} s"
                f"{f' ({self._holder})' if self._holder else ''}: look at its load and its log, and run this again",
                str(error.sqlstate),
            ) from None
        except psycopg.Error as error:
            raise sentence(self.purpose, error) from None


def sentence(purpose: str, error: psycopg.Error) -> UserError:
    told_by_server = error.diag
    text = (told_by_server.message_primary or str(error).strip() or type(error).__name__)[:LONGEST_PART]
    parts = [part[:LONGEST_PART] for part in (told_by_server.message_detail, told_by_server.message_hint) if part]
    extra = "".join(f" {'; '.join(part.splitlines()).rstrip('.')}." for part in parts)
    state = error.sqlstate
    if state is None or state.startswith(("08", "57P")):
        return Unavailable(f"{purpose}: {text}{f' (SQLSTATE {state})' if state else ''}.{extra}")
    return SqlError(f"{purpose}: {text} (SQLSTATE {state}).{extra}", state)


@contextmanager
def server_session(host: Host, data: PurePosixPath, purpose: str, database: str | None = None) -> Iterator[Session]:
    """A superuser's session on whatever server runs on `data`; without a `database`, in any. Reads share it, and what
    changes something uses it again, but for one in `TEMPLATE`: nobody can make a database as long as somebody is there.

    Raises `NoDatabase` where the server has none of this name.
    """

    def open_by(connect: Callable[[str], C]) -> C:
        return (
            _in_database(host, data, purpose, database, connect) if database else _in_any_database(host, data, connect)
        )

    def open_own() -> Connection:
        return open_by(lambda name: host.connect(data, name))

    known, kept = facts.current(), idle.current()
    if database != TEMPLATE and known is None and kept:
        with kept.lent((host.address, data, database or MAINTENANCE[0]), open_own) as connection:
            yield Session(connection, purpose, open_own)
        return
    if known is None or database == TEMPLATE:
        with open_own() as connection:
            yield Session(connection, purpose, open_own)
        return
    shared = open_by(
        lambda name: known.ask(
            ("session", host.address, data, name), lambda: SharedConnection(host.connect(data, name))
        )
    )
    with shared.lent(open_own) as connection:
        yield Session(connection, purpose, open_own, shared if connection is shared.connection else None)


def _in_any_database(host: Host, data: PurePosixPath, connect: Callable[[str], C]) -> C:
    """`connect` to a database that most servers have, or that all have."""
    first, second = MAINTENANCE
    try:
        return connect(first)
    except LoginFailed:
        found = host.postmaster(data)
        if not (found and found.ready):
            raise
        try:
            return connect(second)
        except LoginFailed:
            pass
        raise


def _in_database(host: Host, data: PurePosixPath, purpose: str, name: str, connect: Callable[[str], C]) -> C:
    """Where it is refused, the reason is asked: libpq gives no SQLSTATE, and the server says why in its own language."""
    try:
        return connect(name)
    except LoginFailed:
        with server_session(host, data, purpose) as server:
            allowed = server.row("SELECT datallowconn FROM pg_database WHERE datname = %s", [name])
        if allowed is None:
            raise NoDatabase(f"{purpose}: the server on {data} has no database {name}") from None
        if not allowed[0]:
            raise Unavailable(
                f"{purpose}: database {name} takes no connections: run ALTER DATABASE {name} ALLOW_CONNECTIONS true"
            ) from None
        raise


@contextmanager
def session(resource: OnServer, purpose: str, database: str | None = None) -> Iterator[Session]:
    """A superuser's session on the server that `resource` was declared for.

    Raises `AnotherCluster` where that is what runs there.
    """
    with server_session(resource.machine, resource.data, purpose, database) as opened:
        [[identifier]] = opened.known("SELECT system_identifier FROM pg_control_system()")
        found = str(identifier)
        if found != resource.system_identifier:
            raise AnotherCluster(
                f"{purpose}: the server on {resource.data_directory} is another cluster (system identifier {found}, "
                f"declared {resource.system_identifier}); nothing was changed. Bring the right one back, or remove this "
                "stack's state of it"
            )
        yield opened
