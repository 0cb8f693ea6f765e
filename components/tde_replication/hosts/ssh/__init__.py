"""Servers on machines reached by OpenSSH, run by their systemd.

`machine` runs commands and moves bytes there. `placement` decides where a declared server lives, and `registration` makes what
a stack has there: only a program that declares a server of this kind loads it, with Pulumi's packages.
"""

from typing import TYPE_CHECKING

from tde_replication.hosts.ssh.machine import SshHost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi import ResourceOptions

    from tde_replication.hosts.base import Host
    from tde_replication.hosts.placement import Placement, PlacementContext
    from tde_replication.hosts.registration import Place
    from tde_replication.settings import Server


def open_host(address: str) -> "Host":
    return SshHost(address)


def declare(server: "Server", port: int, context: "PlacementContext") -> "Placement":
    from tde_replication.hosts.ssh import placement  # noqa: PLC0415 - see above

    return placement.declare(server, port, context)


def register(
    placements: "Mapping[str, Placement]", context: "PlacementContext", opts: "ResourceOptions"
) -> "dict[str, Place]":
    from tde_replication.hosts.ssh import registration  # noqa: PLC0415 - see above

    return registration.register(placements, context, opts)
