"""Kinds of host. A new kind is one new folder here, with what `Kind` lists, and its model in `host_settings`.

A kind's libraries are loaded where a stack uses it, and not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from tde_replication.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pulumi import ResourceOptions

    from tde_replication import settings
    from tde_replication.hosts.base import Host
    from tde_replication.hosts.placement import Placement, PlacementContext
    from tde_replication.hosts.registration import Place


class Kind(Protocol):
    """What the package of a kind offers."""

    def open_host(self, address: str) -> "Host":
        """The host of an address that one of its placements has: ``kind`` or ``kind://…``."""

    def declare(self, server: "settings.Server", port: int, context: "PlacementContext") -> "Placement":
        """Where a declared server lives. Raises `UserError` where its host cannot be one."""

    def register(
        self, placements: "Mapping[str, Placement]", context: "PlacementContext", opts: "ResourceOptions"
    ) -> "dict[str, Place]":
        """Register what makes these places of a cluster, by their servers' names."""


def host(address: str) -> "Host":
    """The host that a resource's inputs name."""
    try:
        return _kind(address.partition(":")[0]).open_host(address)
    except ValueError:
        raise UserError(f"{address[:80]!r} is not the address of a host") from None


def resolve_placement(server: "settings.Server", port: int, context: "PlacementContext") -> "Placement":
    return _kind(server.kind).declare(server, port, context)


def register_places(
    kind: str, placements: "Mapping[str, Placement]", context: "PlacementContext", opts: "ResourceOptions"
) -> "dict[str, Place]":
    """Register what makes the places of all servers of one kind, by the servers' names; the only function here that loads
    Pulumi."""
    return _kind(kind).register(placements, context, opts)


def _kind(name: str) -> Kind:
    from tde_replication.host_settings import KINDS  # noqa: PLC0415 - bootstrap loads this package before there is pydantic

    if name not in KINDS:
        raise UserError(f"{name[:80]!r} is not a kind of host that this version knows")
    return cast("Kind", import_module(f"tde_replication.hosts.{name}"))
