"""Our side on this machine: what `make up` makes."""

from pathlib import Path, PurePosixPath
from typing import Any

from benchmarks.stack import Stack
from bootstrap.ports import free_ports
from tde_replication.hosts.installation import Installation
from tde_replication.hosts.local.machine import socket_directory

SENDERS = 10
"""What PostgreSQL has by default; a standby takes one, and one more while it is cloned."""
ROOM = {"max_wal_senders": "40", "max_replication_slots": "40"}


class Ours(Stack):
    """A primary and its standbys below `root`."""

    def __init__(self, root: Path, installation: Installation) -> None:
        super().__init__(root)
        self._binaries = str(installation.binaries)
        self.port = free_ports(1)[0]
        self._cluster: dict[str, Any] = {}

    def where(self, server: str) -> tuple[str, int]:
        """The directory of its socket, and its port."""
        return str(socket_directory(PurePosixPath(self.directory(server)))), self._cluster["servers"][server]["port"]

    def directory(self, server: str) -> Path:
        return self.root / server / "data"

    def declare(self, *standbys: str) -> None:
        """Write the stack file: the primary and these standbys, at ports that nobody else has now."""

        def server(name: str, port: int) -> dict[str, object]:
            return {"port": port, "dataDirectory": str(self.directory(name)), "binaries": self._binaries}

        ports = free_ports(len(standbys)) if standbys else []
        servers = {name: server(name, port) for name, port in zip(standbys, ports, strict=True)}
        servers["primary"] = server("primary", self.port) | {"settings": ROOM if len(standbys) > SENDERS // 2 else {}}
        self._cluster = {"primary": "primary", "servers": servers}
        self.write(self._cluster)

    def make_primary(self, name: str) -> None:
        """Name another primary, and nothing else."""
        self._cluster = {**self._cluster, "primary": name}
        self.write(self._cluster)

    def from_nothing(self) -> None:
        self.vault()
        self.up()
