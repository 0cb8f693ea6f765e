"""Servers on machines reached by OpenSSH, run by their systemd.

`machine` runs commands and moves bytes there. `placement` declares what a stack makes there: only a program that declares a
server of this kind loads it, with Pulumi's packages.
"""

from typing import TYPE_CHECKING

from tde_replication.hosts.ssh.machine import SshHost

if TYPE_CHECKING:
    from tde_replication.hosts.base import Host
    from tde_replication.hosts.placement import Placement, PlacementContext
    from tde_replication.settings import Server


def open_host(address: str) -> "Host":
    return SshHost(address)


def declare(server: "Server", port: int, context: "PlacementContext") -> "Placement":
    from tde_replication.hosts.ssh import placement  # noqa: PLC0415 - see above

    return placement.declare(server, port, context)
