"""Kinds of host. A new kind is one new folder here, with `open_host` and `declare`, and its model in `host_settings`.

A kind's libraries are loaded where a stack uses it, and not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from tde_replication.errors import UserError

if TYPE_CHECKING:
    from tde_replication import settings
    from tde_replication.hosts.base import Host
    from tde_replication.hosts.placement import Placement, PlacementContext


class Kind(Protocol):
    """What the package of a kind offers."""

    def open_host(self, address: str) -> "Host":
        """The host of an address that one of its placements has: ``kind`` or ``kind://…``."""

    def declare(self, server: "settings.Server", port: int, context: "PlacementContext") -> "Placement":
        """Where a declared server lives. Raises `UserError` where its host cannot be one."""


def host(address: str) -> "Host":
    """The host that a resource's inputs name."""
    try:
        return _kind(address.partition(":")[0]).open_host(address)
    except ValueError:
        raise UserError(f"{address[:80]!r} is not the address of a host") from None


def resolve_placement(server: "settings.Server", port: int, context: "PlacementContext") -> "Placement":
    return _kind(server.kind).declare(server, port, context)


def _kind(name: str) -> Kind:
    from tde_replication.host_settings import KINDS  # noqa: PLC0415 - bootstrap loads this package before there is pydantic

    if name not in KINDS:
        raise UserError(f"{name[:80]!r} is not a kind of host that this version knows")
    return cast("Kind", import_module(f"tde_replication.hosts.{name}"))
