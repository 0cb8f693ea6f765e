"""A connection to one database that the reads of a refresh use one after the other (see `facts`)."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeAlias

from tde_replication.hosts.facts import AGE, Lasting
from tde_replication.hosts.superuser import Connection

Rows: TypeAlias = list[tuple[Any, ...]]
PATIENCE = 5.0
"""Seconds to wait for a read that has it, before one of one's own is opened."""


class SharedConnection(Lasting):
    def __init__(self, connection: Connection) -> None:
        self._answers: dict[str, tuple[float, Rows]] = {}
        """By query, and when they came."""
        self.connection = connection
        self._in_use = Lock()
        self._closed = False

    @property
    def is_good(self) -> bool:
        if self._in_use.acquire(blocking=False):
            try:
                return self._is_alive()
            finally:
                self._in_use.release()
        return not self._closed

    def _is_alive(self) -> bool:
        return not self._closed and self.connection.is_alive

    @contextmanager
    def lent(self, otherwise: Callable[[], Connection]) -> Iterator[Connection]:
        """It, for the caller alone; where it has ended or is in use for long, one that is opened for the caller."""
        if not self._in_use.acquire(timeout=PATIENCE):
            with otherwise() as own:
                yield own
            return
        try:
            if self._is_alive():
                yield self.connection
                return
        finally:
            self.connection.on_wait = None
            self._in_use.release()
            if self._closed:
                self.close()
        with otherwise() as own:
            yield own

    def answer(self, query: str, ask: Callable[[], Rows]) -> Rows:
        """What the server says to a query. An error is told by each read in its own words."""
        came, rows = self._answers.get(query, (-AGE, []))
        if time.monotonic() - came > AGE:
            rows = ask()
            self._answers[query] = time.monotonic(), rows
        return rows

    def close(self) -> None:
        self._closed = True
        if self._in_use.acquire(blocking=False):
            self.connection.close()
            self._in_use.release()
