"""Kinds of host. A new kind is one new module and two lines here."""

from components import settings
from components.errors import Problem
from components.hosts.base import Host
from components.hosts.local import LocalHost, local_site
from components.hosts.site import Site, Surroundings


def host(address: str) -> Host:
    """The host that a resource's inputs name."""
    if address == "local":
        return LocalHost()
    raise Problem(f"{address!r} is no kind of host that this version knows")


def site(server: settings.Server, port: int, around: Surroundings) -> Site:
    """The place of a declared server. Raises `Problem` where its host cannot be one."""
    return local_site(server, port, around)
