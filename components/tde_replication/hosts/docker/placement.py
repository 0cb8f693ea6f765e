"""A server's place in a container. Names hold the stack's, so that clusters of several stacks do not meet."""

import re
import socket
import threading
import zlib
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from docker.errors import ImageNotFound, NotFound
from psycopg.conninfo import make_conninfo

from tde_replication.errors import UserError
from tde_replication.host_settings import Docker
from tde_replication.hosts.docker.daemon import daemon
from tde_replication.hosts.docker.machine import SCHEME
from tde_replication.hosts.placement import Placement, PlacementContext
from tde_replication.settings import LOCAL_PORT, Server

PORT = 5432
"""Inside, where every server has an address of its own."""
SOCKETS = "/tmp"  # noqa: S108 - the container's own
DATA = "/var/lib/tde-replication/data"
STACK = "tde-replication.stack"
"""The label that says whose a volume or network is."""
PERCONA = re.compile(r"(?:.*/)?percona-distribution-postgresql:(\d+)")
PORTS = threading.Lock()
FIRST_PORT, PORTS_OF_A_CLUSTER, CLUSTERS = 20000, 16, 750
"""Default ports: a share for each cluster, by its name, from the first; below those that the kernel hands out to clients."""
SOCKET_URL = "http+docker://localhost"
"""What Docker's SDK calls a dockerd that it reaches by a socket of this machine."""


@dataclass(frozen=True, kw_only=True)
class ContainerPlacement(Placement):
    """`replication_host` is also what the container and its volume are called."""

    image: str
    network: str
    """The one that the cluster has for itself."""
    in_container: bool = True


def declare(server: Server, port: int, context: PlacementContext) -> Placement:
    """The place of a server that is declared as {docker: IMAGE}."""
    assert isinstance(server.host, Docker)  # noqa: S101 - for the type checker: the kind was looked up by it
    image = server.host.docker
    cluster = _cluster(context)
    name = f"{cluster}-{server.name}"
    binaries = _binaries(server, image)
    with PORTS:  # servers are placed side by side
        index = (port - LOCAL_PORT) % PORTS_OF_A_CLUSTER
        published = _examine(name, cluster, context.whole, server, index, context.ports)
        context.ports.add(published)
    return ContainerPlacement(
        address=f"{SCHEME}{name}",
        data=PurePosixPath(server.data_directory or DATA),
        binaries=binaries,
        port=PORT,
        published=published,
        replication_host=name,
        # The networks that the server itself is on: what else is there has no password.
        replication_sources=(server.network or "samenet",),
        dsn=make_conninfo(host="127.0.0.1", port=published, user="postgres", dbname="postgres"),
        server=f"PostgreSQL of {image}",
        has_pg_tde=True if PERCONA.match(image) else None,
        version=_version(image),
        version_setting="host.docker",
        parameters={"unix_socket_directories": SOCKETS},
        networks=tuple(name for name in (cluster, context.vault_network) if name),
        image=image,
        network=cluster,
    )


def _cluster(context: PlacementContext) -> str:
    """What a cluster's network is called, and its servers begin with."""
    return "tde-" + re.sub(r"[^a-zA-Z0-9_.-]", "-", context.prefix)


def _binaries(server: Server, image: str) -> PurePosixPath:
    if server.binaries:
        return PurePosixPath(server.binaries)
    if found := PERCONA.match(image):
        return PurePosixPath(f"/usr/pgsql-{found[1]}/bin")
    raise UserError(f"binaries is missing: name the directory of postgres in the image {image}")


def _version(image: str) -> int | None:
    """As an image of PostgreSQL says it in its environment, where the image is here; Percona's by its tag."""
    if found := PERCONA.match(image):
        return int(found[1])
    with daemon() as client, suppress(ImageNotFound):
        environment: list[str] = client.inspect_image(image)["Config"]["Env"] or []  # type: ignore[no-untyped-call]
        for line in environment:
            if found := re.fullmatch(r"PG_(?:MAJOR|VERSION)=(\d+)\D?.*", line):
                return int(found[1])
    return None


def _examine(name: str, network: str, owner: str, server: Server, index: int, given: Collection[int]) -> int:
    """Refuse what is there and not ours; the port of dockerd's machine that leads to the server, none of those `given` to others.

    pulumi-docker takes over a volume of the same name without a word, and deletes it on destroy.
    """
    with daemon() as client:
        for kind, inspect, called in (
            ("volume", client.inspect_volume, name),
            ("network", client.inspect_network, network),
        ):
            with suppress(NotFound):
                if (inspect(called)["Labels"] or {}).get(STACK) != owner:
                    raise UserError(
                        f"docker has a {kind} {called} that this stack did not make: it is left as it is. Remove it, or "
                        f"rename the server or the stack"
                    )
        own = _published(client, name)
        if own and server.port in {None, *own}:
            return server.port or min(own)
        others = _published_by_others(client, name)
        here = _is_on_this_machine(client)

    def holder(port: int) -> str | None:
        if port in given:
            return "another server of this stack"
        if port in others:
            return f"container {others[port]}"
        # Of another machine, dockerd itself says at the container's start what else listens there.
        return "another program" if here and _taken(port) else None

    if server.port:
        if by := holder(server.port):
            raise UserError(f"port {server.port} of 127.0.0.1 is in use by {by}: name another port, or stop that")
        return server.port
    first = FIRST_PORT + zlib.crc32(network.encode()) % CLUSTERS * PORTS_OF_A_CLUSTER + index
    return next(port for port in range(first, 65536) if not holder(port))


def _published(client: Any, name: str) -> set[int]:
    """The ports of dockerd's machine that lead to a container's server, also while it is down."""
    return {port for inside, port in _bindings(client, name) if inside == f"{PORT}/tcp"}


def _published_by_others(client: Any, name: str) -> dict[int, str]:
    """The ports that lead to any other container, also while it is down, with its name."""
    found = {}
    for one in client.containers(all=True):
        called = next((text.lstrip("/") for text in one.get("Names") or []), one["Id"])
        if called != name:
            found.update(dict.fromkeys((port for _, port in _bindings(client, one["Id"])), called))
    return found


def _bindings(client: Any, name: str) -> Iterator[tuple[str, int]]:
    with suppress(NotFound):
        for inside, outside in (client.inspect_container(name)["HostConfig"]["PortBindings"] or {}).items():
            yield from ((inside, int(one["HostPort"])) for one in outside or [] if one["HostPort"])


def _is_on_this_machine(client: Any) -> bool:
    """Whether dockerd publishes ports here. An address on the loopback does not say so: it may be a tunnel."""
    return bool(client.base_url == SOCKET_URL or client.info()["Name"] == socket.gethostname())


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
