"""Everything about a server that depends on its kind of host, resolved once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any


@dataclass(frozen=True)
class Placement:
    address: str
    """What resources call the host (`tde_replication.hosts.host` finds it again)."""
    data: PurePosixPath
    binaries: PurePosixPath
    port: int
    replication_host: str
    """The host name or address by which the other servers reach it."""
    replication_sources: tuple[str, ...]
    """Where its replication connections come from, for pg_hba.conf; none: from where it finds the primary, which is on the same
    machine."""
    dsn: str
    """A libpq connection string for the person who runs the stack."""
    server: str
    """What runs there, for people: "PostgreSQL 18.6, embedded"."""
    has_pg_tde: bool | None
    """None: only the host itself can tell, and it may not be there yet."""
    version: int | None
    """The major version of the PostgreSQL there; None where only the host itself can tell."""
    version_setting: str
    """The setting of a server that decides it."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """Configuration parameters that this kind of host decides."""
    published: int | None = None
    """The port of this machine's loopback that leads to the server, where it listens elsewhere."""
    in_container: bool = False
    """Whether the server is the main process of a container."""
    networks: tuple[str, ...] = ()
    """Those that its container is on."""

    @property
    def seen_at(self) -> tuple[str, int]:
        """Host and port for the person who runs the stack."""
        return ("127.0.0.1", self.published) if self.published else (self.replication_host, self.port)

    @property
    def location(self) -> dict[str, Any]:
        return {"host": self.address, "data_directory": str(self.data)}

    def beside_data(self, name: str) -> str:
        """The path of a file beside the data directory."""
        return str(self.data.with_name(name))


@dataclass(frozen=True)
class PlacementContext:
    """What a kind of host may need to know of the cluster around a server."""

    project: str
    """Pulumi's."""
    stack: str
    cluster: str
    """The component's name."""
    vault_network: str | None = None
    """A docker network that leads to Vault."""
    keep: bool = True
    """Whether what holds data outlives the stack."""
    ports: set[int] = field(default_factory=set)
    """Those of this machine that servers of this cluster have been given."""

    @property
    def whole(self) -> str:
        """The cluster's whole name, which marks what is its own: data directories, volumes, networks."""
        return f"{self.project}/{self.stack}/{self.cluster}"

    @property
    def prefix(self) -> str:
        """What the cluster's own things outside of Pulumi are called, or begin with: the stack's name, and the cluster's where it
        has another."""
        return self.stack if self.cluster == self.stack else f"{self.stack}-{self.cluster}"

    def named(self, name: str) -> str:
        """The name of a resource, of which no other cluster of the stack has one."""
        return name if self.cluster == self.stack else f"{self.cluster}-{name}"


@dataclass(frozen=True)
class TokenRenewal:
    """How a server's machine renews its Vault token by itself."""

    token: str
    """The path of its file."""
    url: str
    """Vault's, as the server sees it."""
    ca: str
    """The path of the CA's file; empty: the system's."""
    namespace: str
    seconds: int
    """From one renewal to the next."""
