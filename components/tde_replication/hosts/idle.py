"""Sessions that the steps of one piece of work use one after the other: to open one takes a tenth of a second by ssh or in a
container, and a switchover needs fifty.

Only what changes something uses them (reads share their own, see `hosts.facts`), and only within the work: the adapter says when.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import psycopg
from psycopg.pq import TransactionStatus

from tde_replication.hosts.superuser import STATEMENT_SECONDS, Connection
from tde_replication.values import TEMPLATE

IDLE = 2.0
"""Seconds without a piece of work after which they are closed."""

_current: ContextVar["IdleSessions | None"] = ContextVar("idle_sessions", default=None)


def current() -> "IdleSessions | None":
    """Those to use; None where each session is opened and closed for itself."""
    return _current.get()


class IdleSessions:
    """Of one process."""

    def __init__(self) -> None:
        self._idle: defaultdict[Hashable, list[Connection]] = defaultdict(list)
        self._lock = threading.Lock()
        self._users = 0
        self._end: threading.Timer | None = None

    @contextmanager
    def used(self) -> Iterator[None]:
        """Use them inside."""
        with self._lock:
            self._users += 1
            if self._end:
                self._end.cancel()
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._end = threading.Timer(IDLE, self.close)
                    self._end.daemon = True
                    self._end.start()

    @contextmanager
    def lent(self, key: Hashable, connect: Callable[[], Connection]) -> Iterator[Connection]:
        """One of `key` for the caller alone, as new; another one from `connect` where none is idle."""
        connection = self._take(key) or connect()
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._give_back(key, connection)

    def _take(self, key: Hashable) -> Connection | None:
        while True:
            with self._lock:
                idle = self._idle[key]
                connection = idle.pop() if idle else None
            if connection is None or (connection.is_alive and _answers(connection)):
                return connection
            connection.close()

    def _give_back(self, key: Hashable, connection: Connection) -> None:
        connection.on_wait, connection.limit = None, STATEMENT_SECONDS
        if _is_as_new(connection):
            with self._lock:
                self._idle[key].append(connection)
        else:
            connection.close()

    def close(self) -> None:
        with self._lock:
            if self._users:
                return
            former, self._idle = self._idle, defaultdict(list)
        for connections in former.values():
            for connection in connections:
                connection.close()


def _answers(connection: Connection) -> bool:
    with suppress(psycopg.Error):
        return connection.rows("SELECT true") == [(True,)]
    return False


def _is_as_new(connection: Connection) -> bool:
    """Settings, locks, temporary tables and prepared statements of whoever had it are gone. Not in `TEMPLATE`: nobody can make a
    database as long as somebody is there."""
    if connection.closed or connection.info.transaction_status != TransactionStatus.IDLE:
        return False
    if connection.info.dbname == TEMPLATE:
        return False
    with suppress(psycopg.Error):
        connection.execute("DISCARD ALL")
        return True
    return False
