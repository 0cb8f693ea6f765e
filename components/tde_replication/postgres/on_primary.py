"""What lies on the primary, whichever server that is now: it is found by asking them, and moves with a switchover."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from threading import Lock
from typing import ClassVar, Self, TypeAlias

from tde_replication import hosts
from tde_replication.errors import AccessDenied, Unavailable
from tde_replication.hosts import facts
from tde_replication.hosts.base import Host
from tde_replication.postgres.resource import OnServer
from tde_replication.postgres.session import server_session

Place: TypeAlias = tuple[str, str]
"""A host and a data directory."""
KNOWN_SECONDS = 1.0
"""For one piece of work, which asks several times."""
_found: dict[tuple[Place, ...], tuple[float, Place]] = {}
_silent: dict[Place, float] = {}
"""When they did not answer."""
SILENT_SECONDS = 60.0
_lock = Lock()


class OnPrimary(OnServer):
    """`host` and `data_directory` are those of the server that was the primary when this was declared."""

    others: list[Place] = []
    """The cluster's other servers: any of them may have become the primary."""

    replaced_by: ClassVar[frozenset[str]] = frozenset({"system_identifier"})
    create_only: ClassVar[frozenset[str]] = frozenset({"host", "data_directory", "others"})

    @property
    def places(self) -> list[Place]:
        return [(self.host, self.data_directory), *self.others]

    def stores(self, old: Self) -> bool:
        """Servers come and go, and are looked for in vain or not at all, as long as the one is known that is to be the primary,
        and the one that is asked first is there."""
        known = (self.host, self.data_directory) in old.places and old.places[0] in self.places
        return not known or super().stores(old)

    @property
    def place(self) -> Place:
        with suppress(Unavailable, AccessDenied):
            return self._primary
        return self.places[0]

    @property
    def machine(self) -> Host:
        return hosts.host(self._primary[0])

    @property
    def data(self) -> PurePosixPath:
        return PurePosixPath(self._primary[1])

    @property
    def _primary(self) -> Place:
        return self.places[0] if not self.others else find_primary(self.places)


def find_primary(places: Sequence[Place]) -> Place:
    """The server that is not in recovery; where that is true of several, the first of them.

    Raises `Unavailable` if no server is the primary, and `AccessDenied` if the only one that may be it refuses us.
    """
    key = tuple(places)
    if known := facts.current():
        found: Place = known.ask(("primary", key), lambda: _find(key))
        return found
    with _lock:
        when, last = _found.get(key, (0.0, places[0]))
    if time.monotonic() - when < KNOWN_SECONDS:
        return last
    found = _find(key)
    with _lock:
        _found[key] = time.monotonic(), found
    return found


def forget_primaries() -> None:
    """Another server is the primary from now on."""
    with _lock:
        _found.clear()


def _find(places: Sequence[Place]) -> Place:
    silent: list[Unavailable | AccessDenied] = []
    now = time.monotonic()
    # One that did not answer a moment ago is asked last: a dead machine takes its time each time.
    for host, directory in sorted(places, key=lambda place: now - _silent.get(place, -SILENT_SECONDS) < SILENT_SECONDS):
        try:
            with server_session(hosts.host(host), PurePosixPath(directory), "the primary") as server:
                [[recovering]] = server.known("SELECT pg_is_in_recovery()")
                if not recovering:
                    return host, directory
        except (Unavailable, AccessDenied) as why:
            _silent[host, directory] = time.monotonic()
            silent.append(why)
    raise silent[0] if silent else Unavailable("no server of the cluster is a primary now: all are in recovery")
