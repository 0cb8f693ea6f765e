"""Where a reconciler's thing lies: on a host, or inside a running server."""

from pathlib import PurePosixPath
from typing import ClassVar, Self

from tde_replication import hosts
from tde_replication.hosts.base import Host
from tde_replication.reconciler import Resource


class OnHost(Resource):
    """A resource that lies on a host: every one does."""

    host: str

    @property
    def machine(self) -> Host:
        return hosts.host(self.host)

    def _differs(self, name: str, old: Self) -> bool:
        if name == "host":  # another way to the same machine moves nothing that lies there
            return not hosts.host(self.host).is_same_place(hosts.host(old.host))
        return super()._differs(name, old)


class OnServer(OnHost):
    """A resource inside a running server, found by its data directory (its port is in postmaster.pid)."""

    data_directory: str
    system_identifier: str
    """The cluster that all this was declared for: another one on the same directory or port is refused."""

    replaced_by: ClassVar[frozenset[str]] = frozenset({"host", "data_directory", "system_identifier"})

    @property
    def place(self) -> tuple[str, str]:
        return self.host, self.data_directory

    @property
    def data(self) -> PurePosixPath:
        return PurePosixPath(self.data_directory)
