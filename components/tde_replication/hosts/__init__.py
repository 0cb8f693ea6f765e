"""Kinds of host. A new kind is one new module here, with `open_host` and `declare`, and its name in `KINDS`.

A kind's libraries are loaded where a stack uses it, and not before.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from tde_replication.errors import Problem

if TYPE_CHECKING:
    from tde_replication import settings
    from tde_replication.hosts.base import Host
    from tde_replication.hosts.site import Site, Surroundings

KINDS = ("local", "ssh", "docker")


class Kind(Protocol):
    """What the module of a kind offers."""

    def open_host(self, address: str) -> "Host":
        """The host of an address that one of its sites has: ``kind`` or ``kind://…``."""

    def declare(self, server: "settings.Server", port: int, around: "Surroundings") -> "Site":
        """The place of a declared server. Raises `Problem` where its host cannot be one."""


def host(address: str) -> "Host":
    """The host that a resource's inputs name."""
    try:
        return _kind(address.partition(":")[0]).open_host(address)
    except ValueError:
        raise Problem(f"{address[:80]!r} is no address of a host") from None


def place(server: "settings.Server", port: int, around: "Surroundings") -> "Site":
    return _kind(server.kind).declare(server, port, around)


def _kind(name: str) -> Kind:
    if name not in KINDS:
        raise Problem(f"{name[:80]!r} is no kind of host that this version knows")
    return cast("Kind", import_module(f"tde_replication.hosts.{name}"))
