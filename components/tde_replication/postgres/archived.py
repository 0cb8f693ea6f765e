"""Which WAL files pgBackRest's repository has: whether a standby that fell behind can be fed from there."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tde_replication.errors import CommandFailed, Unavailable
from tde_replication.hosts.base import Host
from tde_replication.postgres import pgbackrest

MOST_DIRECTORIES = 256
"""That are looked into: of 4 GiB of WAL each. A clone is faster than to replay more."""
DIRECTORY, FILE = re.compile(r"[0-9A-F]{16}"), re.compile(r"([0-9A-F]{24})-[0-9a-f]{40}(\.\w+)?")
BYTES_OF_A_DIRECTORY = 2**32


class Place(NamedTuple):
    """A directory in one of the repositories."""

    repository: int
    path: str


@dataclass(frozen=True)
class Archived:
    """The WAL of a cluster, as a server finds it by its own configuration of pgBackRest."""

    machine: Host
    stanza: str
    segment_size: int

    def has(self, first: int, end: int, last: Mapping[int, int]) -> bool:
        """Whether all WAL files are there from the number `first` to the one before `end`. `last`: the number of the last file of
        each timeline that the primary has come by.

        Raises `Unavailable` where the repository cannot be asked.
        """
        per_directory = BYTES_OF_A_DIRECTORY // self.segment_size
        logs = range(first // per_directory, (end - 1) // per_directory + 1)
        if len(logs) > MOST_DIRECTORIES:
            return False
        wanted = set(range(first, end))
        for place in self._places():
            for directory in self._names(place, DIRECTORY):
                timeline, log = int(directory[:8], 16), int(directory[8:], 16)
                if log in logs and timeline in last:
                    files = self._names(Place(place.repository, f"{place.path}/{directory}"), FILE)
                    numbers = {log * per_directory + int(name[16:24], 16) for name in files}
                    wanted -= {number for number in numbers if number <= last[timeline]}
        return not wanted

    def _places(self) -> Iterator[Place]:
        """Where the repositories have what the stanza's cluster has archived."""
        try:
            found = pgbackrest.stanza(self.machine, self.stanza)
        except CommandFailed as why:
            raise Unavailable(f"stanza {self.stanza}: {why}") from None
        if found.problem:
            raise Unavailable(f"stanza {self.stanza}: {found.problem}")
        current = {
            (one.repository, one.id) for one in found.clusters if str(one.system_identifier) == found.system_identifier
        }
        for archive in found.archives:
            if (archive.database.repository, archive.database.id) in current:
                yield Place(archive.database.repository, f"archive/{self.stanza}/{archive.id}")

    def _names(self, place: Place, kind: re.Pattern[str]) -> list[str]:
        try:
            names = pgbackrest.listing(self.machine, self.stanza, *place)
        except CommandFailed as why:
            raise Unavailable(f"stanza {self.stanza}: {why}") from None
        return [name for name in names if kind.fullmatch(name)]
