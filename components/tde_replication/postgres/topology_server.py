"""A server of the cluster as the topology knows it: where it is, and what it is now."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from tde_replication import hosts
from tde_replication.errors import AccessDenied, Unavailable
from tde_replication.hosts.base import Host
from tde_replication.postgres.control import ControlData, control_data, look_into
from tde_replication.postgres.session import Session, server_session
from tde_replication.unasked import could_not_ask

SIGNAL = "standby.signal"
NOTE = "pgsql_tmp.tde-replication-switchover"
"""In the data directory of a primary that is stopped for another one; base backups leave such names out."""
DEMOTED = "pgsql_tmp.tde-replication-demoted"
"""In that of one that was the primary, until it has started as a standby: it may have been one, and can follow all the same."""
PROMOTING = "pgsql_tmp.tde-replication-promotion"
"""In that of a standby that is promoted, until it has been."""

Standing = Literal["primary", "standby", "down", "demoted", "absent", "silent"]
"""A server takes writes; is in recovery; does not run; does not run, and would start as a standby; has no data; cannot be
asked."""


class TopologyServer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    name: str
    host: str
    data_directory: str
    binaries: str
    slot: str
    """Its slot on whichever server it streams from."""
    upstream: str = ""
    """The name of the server that it streams from as a standby; empty: the primary."""
    restart: Literal["allowed", "refused"] = "allowed"
    adopted: bool = False
    """Whether it was here before the stack."""

    @property
    def machine(self) -> Host:
        return hosts.host(self.host)

    @property
    def data(self) -> PurePosixPath:
        return PurePosixPath(self.data_directory)

    @property
    def bin(self) -> PurePosixPath:
        return PurePosixPath(self.binaries)

    def session(self, database: str | None = None) -> AbstractContextManager[Session]:
        return server_session(self.machine, self.data, f"server {self.name}", database)

    def control(self) -> ControlData:
        return control_data(self.machine, self.bin, self.data)

    def standing(self) -> Standing:
        try:
            look_into(self.machine, self.bin, self.data)
            names = self.machine.listing(self.data)
            if not names:
                return "absent"
            if not self.machine.serves(self.data):
                return "demoted" if SIGNAL in names else "down"
            with self.session() as server:
                [[recovering]] = server.known("SELECT pg_is_in_recovery()")
                return "standby" if recovering else "primary"
        except (Unavailable, AccessDenied) as why:
            could_not_ask(f"whether {self.name} is the primary", why)
            return "silent"

    def is_standby(self) -> bool:
        """Whether it is in recovery, or would be once it is started. Raises `Unavailable` where that cannot be told."""
        if not self.machine.serves(self.data):
            return SIGNAL in self.machine.listing(self.data)
        with self.session() as server:
            return bool(server.value("SELECT pg_is_in_recovery()"))

    def timeline(self) -> int:
        """Of a server that takes writes."""
        with self.session() as server:
            return int(server.value("SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"), 16)

    def follows(self, primary: str) -> str:
        """The name of the server that it streams from, where it is no primary itself."""
        return self.upstream or primary

    def strays(self, servers: Sequence["TopologyServer"], primary: str) -> set[str]:
        """The slots of `servers` that are not to be on it."""
        return {one.slot for one in servers if one.name == self.name or one.follows(primary) != self.name}

    @property
    def is_promoting(self) -> bool:
        """Whether it was told to become the primary, and nobody has seen that it did."""
        return self.standing() in {"standby", "demoted"} and PROMOTING in self.machine.listing(self.data)

    @property
    def is_noted(self) -> bool:
        """Whether a switchover from it was begun."""
        return NOTE in self.machine.listing(self.data)


class Rule(BaseModel):
    """A line of pg_hba.conf that the next primary needs before it is one: see `HbaRule`."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    connection_type: str
    databases: list[str]
    address: str
