"""Servers in containers, one for each.

`machine` runs commands and moves bytes there. `placement` declares what a stack makes there: only a program that declares a
server of this kind loads it, with Pulumi's packages.
"""

from typing import TYPE_CHECKING

from tde_replication.hosts.docker.machine import DockerHost

if TYPE_CHECKING:
    from tde_replication.hosts.base import Host
    from tde_replication.hosts.placement import Placement, PlacementContext
    from tde_replication.settings import Server


def open_host(address: str) -> "Host":
    return DockerHost(address)


def declare(server: "Server", port: int, context: "PlacementContext") -> "Placement":
    from tde_replication.hosts.docker import placement  # noqa: PLC0415 - see above

    return placement.declare(server, port, context)
