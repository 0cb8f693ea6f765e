"""The one way to a superuser's session, on every kind of host.

Whoever owns a database, or may create in one of its schemas, decides what a careless session runs there, as the superuser. So
nothing that the server's files, a database, a role or the caller's environment sets bends this session: its settings are in the
startup options, which outrank all of these. With them, a name without a schema means PostgreSQL's own.
"""

import os
import select
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg import sql
from psycopg.pq import Conninfo
from psycopg.rows import TupleRow

R = TypeVar("R")
Query = LiteralString | sql.Composed | sql.SQL

STATEMENT_SECONDS = 60.0
LOCK_SECONDS = 30.0
IDLE_SECONDS = 60
GRACE_SECONDS = 30.0
"""More than its limit, after which a statement is given up here: the server cannot end it itself (stopped, or cut off)."""
ANSWER_BYTES = 16 * 2**20
"""More than anything takes that is asked here. What a machine sends that was taken over, or a catalog that somebody has filled,
is held without limit otherwise."""
TOO_LONG = (
    f"the server answered one statement with more than {ANSWER_BYTES >> 20} MiB, and the rest was not read: find out what "
    "makes the answer so large"
)
CHUNK = 100
"""Rows that are read at once."""
SETTINGS = {
    "search_path": "pg_catalog,pg_temp",
    "role": "none",
    "session_replication_role": "origin",
    # Code that is not PostgreSQL's: libraries, and triggers at login and on DDL.
    "local_preload_libraries": "",
    "session_preload_libraries": "",
    "event_triggers": "off",
    "jit": "off",
    # A parallel worker starts with the settings of its database, whose limits may end it before it has ours.
    "max_parallel_workers_per_gather": "0",
    # Statements that hold a password's verifier would be in the log, whatever its level.
    "debug_print_parse": "off",
    "debug_print_rewritten": "off",
    "debug_print_plan": "off",
    # Transactions.
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    # Where synchronous_standby_names names a standby that is down or not made yet, a commit would wait for ever.
    "synchronous_commit": "local",
    "exit_on_error": "off",
    # Limits.
    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
    "lock_timeout": f"{LOCK_SECONDS:.0f}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # How values are written and read.
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "xmloption": "content",
    "lc_messages": "C",
    "client_min_messages": "notice",
    # Where a table is made.
    "default_tablespace": "",
    "temp_tablespaces": "",
}
ENVIRONMENT = {
    *(option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar),
    *("PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR", "PGREQUIRESSL", "PGDATESTYLE", "PGTZ", "PGGEQO"),
}
"""What libpq reads. Not all of it can be outranked by a parameter: with PGSERVICE, an empty `service` is an error."""


class Intake:
    """Counts what a bridge to a server brings for one statement: also what is no row, and a row before all of it is there."""

    def __init__(self) -> None:
        self.too_long = False
        self._bytes = 0

    def begin(self) -> None:
        self._bytes = 0

    def take(self, data: bytes) -> None:
        """Raises `OSError`, as a socket does that is closed."""
        self._bytes += len(data)
        if self._bytes > ANSWER_BYTES:
            self.too_long = True
            raise OSError(TOO_LONG)


class Connection(psycopg.Connection[TupleRow]):
    """A connection that says while it waits, and that waits neither for ever nor for an answer without end."""

    limit = STATEMENT_SECONDS
    """Seconds that the server gives a statement."""
    on_wait: Callable[[float], None] | None = None
    """Called ten times a second while a statement runs, with the seconds since it began."""
    intake: Intake | None = None
    """Of the bridge that it goes over."""
    _began: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether its server has not ended it: what comes over it while nothing is asked is the word of its end."""
        if self.closed:
            return False
        ready = select.poll()
        ready.register(self.fileno(), select.POLLIN)
        return not ready.poll(0)

    def rows(self, query: Query, parameters: Sequence[Any] = ()) -> list[TupleRow]:
        """The rows of one statement; none where it returns none."""
        rows: list[TupleRow] = []
        size = 0
        self._began = time.monotonic()
        try:
            for row in self.cursor().stream(query, parameters or None, size=CHUNK):
                rows.append(row)
                size += len(str(row))
                if size > ANSWER_BYTES:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(TOO_LONG)
        except psycopg.ProgrammingError as error:
            if error.sqlstate or "didn't produce a result" not in str(error):  # psycopg tells it in no other way
                raise
        finally:
            self._began = None
        return rows

    def wait(self, gen: Generator[Any, Any, R], interval: float = 0.1, timeout: float | None = None) -> R:
        try:
            return super().wait(self._watched(gen), interval, timeout)
        except psycopg.OperationalError:
            if self.intake and self.intake.too_long:
                raise psycopg.OperationalError(TOO_LONG) from None
            raise

    def _watched(self, gen: Generator[Any, Any, R]) -> Generator[Any, Any, R]:
        began = self._began or time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                self._tick(time.monotonic() - began)
                wanted = gen.send(ready)
        except StopIteration as end:
            result: R = end.value
            return result

    def _tick(self, seconds: float) -> None:
        if seconds > self.limit + GRACE_SECONDS:
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the server has not answered for {seconds:.0f} s")
        if self.on_wait:
            self.on_wait(seconds)


def superuser(
    directory: str, port: int, database: str, *, intake: Intake | None = None, **parameters: Any
) -> Connection:
    """A connection as ``postgres`` through a socket in `directory`, by peer authentication. Raises `psycopg.OperationalError`.

    No password is ever sent: whoever has taken the server's socket could ask for one.
    """
    for name in ENVIRONMENT:
        os.environ.pop(name, None)
    known: dict[str, Any] = {"connect_timeout": 10, "application_name": "tde-replication"}
    options = " ".join([startup_options(), parameters.pop("options", "")])
    # The encoding is asked for: of a database in SQL_ASCII, psycopg would give bytes for texts.
    connection = Connection.connect(
        autocommit=True,
        host=directory,
        port=port,
        user="postgres",
        dbname=database,
        client_encoding="UTF8",
        require_auth="none",
        options=options,
        **(known | parameters),
    )
    connection.intake = intake
    return connection


def startup_options() -> str:
    """`SETTINGS` as PostgreSQL reads them at the start of a session: a blank in a value takes a backslash."""
    blank = "\\ "
    return " ".join(f"-c {name}={value.replace(' ', blank)}" for name, value in SETTINGS.items())
