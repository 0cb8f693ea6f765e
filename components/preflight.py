"""What the machines themselves have against a stack file, looked up without touching anything."""

import errno
import socket
from pathlib import PurePosixPath

from components import hosts, settings
from components.errors import Unavailable
from components.hosts.base import Host
from components.hosts.site import Site
from components.postgres.data_directory import marker


def objections(place: str, server: settings.Server, site: Site, stack: str) -> list[str]:
    """Mistakes in `place` ("cluster.primary") that only its host can tell; none where it cannot be asked now."""
    host, data, port = hosts.host(site.address), site.data, site.port
    try:
        found = []
        if not server.adopt and host.listing(data) and marker(host, data).get("stack") != stack:
            found.append(
                f"{place}.dataDirectory: {data} is not empty and was not made by this stack: it is never written to. Move it "
                "away, or name another"
            )
        if server.host == "local" and (taken := _taken(host, data, server.listen, port)):
            found.append(f"{place}.port: {port} is in use on {taken} (by something that is not this server)")
    except Unavailable:
        return []
    return found


def _taken(host: Host, data: PurePosixPath, listen: list[str], port: int) -> str | None:
    """The address on which something else listens on `port`."""
    running = host.postmaster(data)
    if running and running.port == port:
        return None
    for address in listen:
        name = {"*": "0.0.0.0", "localhost": "127.0.0.1"}.get(address, address)  # noqa: S104 - asked, not opened
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((name, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return name
    return None
