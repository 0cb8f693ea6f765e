"""Servers as processes on this machine: the embedded default.

`machine` runs commands and moves bytes there. `placement` decides where a declared server lives: only a program that declares a
server of this kind loads it.
"""

from typing import TYPE_CHECKING

from tde_replication.hosts.local.machine import LocalHost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi import ResourceOptions

    from tde_replication.hosts.base import Host
    from tde_replication.hosts.placement import Placement, PlacementContext
    from tde_replication.hosts.registration import Place
    from tde_replication.settings import Server


def open_host(address: str) -> "Host":
    del address  # there is one
    return LocalHost()


def declare(server: "Server", port: int, context: "PlacementContext") -> "Placement":
    from tde_replication.hosts.local import placement  # noqa: PLC0415 - see above

    return placement.declare(server, port, context)


def register(
    placements: "Mapping[str, Placement]", context: "PlacementContext", opts: "ResourceOptions"
) -> "dict[str, Place]":
    from tde_replication.hosts.registration import Place  # noqa: PLC0415 - it loads Pulumi

    del context, opts  # the servers themselves are all that is made here
    return {name: Place() for name in placements}
