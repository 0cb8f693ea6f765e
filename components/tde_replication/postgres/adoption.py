"""A server that was here before the stack, and goes on after it."""

from typing import ClassVar

from tde_replication.errors import Conflict
from tde_replication.postgres.marker import marker
from tde_replication.postgres.resource import OnHost
from tde_replication.postgres.topology_server import TopologyServer
from tde_replication.reconciler import Unchanging


class Adoption(Unchanging, OnHost):
    """Comes after everything else of the cluster, so that `destroy` begins with it: nothing is taken away while the server
    follows a primary of the stack's, without which it would be left as a standby of nobody."""

    name: str
    data_directory: str
    binaries: str

    not_compared: ClassVar[frozenset[str]] = frozenset({"host", "name", "data_directory", "binaries"})

    @property
    def identity(self) -> str:
        return self.name

    def delete(self) -> None:
        server = TopologyServer(
            name=self.name, host=self.host, data_directory=self.data_directory, binaries=self.binaries, slot=""
        )
        if server.is_standby() and not marker(server.machine, server.data):
            raise Conflict(f"{left_alone(server)}, and run this again")


def left_alone(server: TopologyServer) -> str:
    """What is said of one that cannot be left as the standby that it is, or would be."""
    return (
        f"{server.name} was here before the stack, and would be left as a standby without a primary: nothing is changed. Write "
        f"primary: {server.name} and run `up`; or, where its data is needed no more, stop it and move {server.data_directory} "
        "away"
    )
