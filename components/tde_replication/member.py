"""One server of a cluster, as a plan has it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tde_replication import settings
from tde_replication.hosts.placement import Placement
from tde_replication.placeholders import is_placeholder
from tde_replication.postgres.upstream import Upstream
from tde_replication.values import slot_name


class Occupied(NamedTuple):
    """What no two servers may have."""

    machine: str
    setting: str
    value: object


@dataclass(frozen=True)
class Files:
    """Names of the files beside each data directory. They are the same on all servers: pg_tde knows one path of each."""

    token: str
    ca: str | None
    passfile: str
    drill: str
    """Where the last restore drill is noted."""

    @property
    def of_vault(self) -> tuple[str, ...]:
        """What pg_tde opens before it can talk to Vault."""
        return (self.token, self.ca) if self.ca else (self.token,)


@dataclass(frozen=True)
class Member:
    declared: settings.Server
    placement: Placement
    parameters: Mapping[str, str]
    """All of its own."""
    given_back: Mapping[str, str]
    """Of an adopted server: all that the stack sets there, which `destroy` gives back."""
    removed_files: tuple[str, ...]
    """Of what is made beside its data directory, the names of what does not outlive the stack."""

    @property
    def name(self) -> str:
        return self.declared.name

    @property
    def adopted(self) -> bool:
        return self.declared.adopt

    @property
    def slot(self) -> str:
        """Its slot on the server that it streams from."""
        return slot_name(self.name)

    @property
    def occupies(self) -> list[Occupied]:
        if self.placement.in_container:
            return [Occupied("dockerd", "port", self.placement.published)]
        machine = self.declared.machine
        if is_placeholder(machine):
            return []
        return [
            Occupied(machine, "port", self.placement.port),
            Occupied(machine, "dataDirectory", str(self.placement.data)),
        ]


@dataclass(frozen=True)
class Standby(Member):
    source: Upstream
    """The primary, as this one is cloned from it."""
