"""IP addresses: what a name resolves to, which are a loopback's, and how pg_hba.conf names one machine."""

import socket
from collections.abc import Iterable
from ipaddress import ip_address, ip_network

from tde_replication.placeholders import is_placeholder

ANY = {"*", "0.0.0.0", "::"}  # noqa: S104 - compared, not opened
LOOPBACK = "127.0.0.1"


def addresses(name: str) -> list[str]:
    """All addresses of a host name or an address, in one order: a resolver answers in another each time. Raises `OSError`."""
    try:
        return [str(ip_address(name))]
    except ValueError:
        found = {
            str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        }
        return sorted(found, key=lambda address: (":" in address, address))


def networks(name: str) -> tuple[str, ...]:
    """The same as pg_hba.conf names them: "192.0.2.7/32". Raises `OSError`."""
    if is_placeholder(name):
        return (name,)
    return tuple(str(ip_network(address)) for address in addresses(name))


def is_loopback(name: str) -> bool:
    """Whether a listener there hears this machine alone."""
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def reached_locally(listen: Iterable[str]) -> str:
    """Where a server that has these listen_addresses is found on its own machine."""
    names = list(listen)
    if not names or {LOOPBACK, "localhost", "*", "0.0.0.0"}.intersection(names):  # noqa: S104 - compared, not opened
        return LOOPBACK
    return "::1" if names[0] == "::" else names[0]
