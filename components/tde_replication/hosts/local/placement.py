"""A server's place on this machine: the stack's directory below the project's own root."""

from contextlib import suppress
from pathlib import PurePosixPath

from psycopg.conninfo import make_conninfo

from tde_replication.errors import UserError
from tde_replication.host_settings import SUPPORTED
from tde_replication.hosts.account import PROJECT, local_root, service_account
from tde_replication.hosts.addresses import reached_locally
from tde_replication.hosts.installation import find_installation
from tde_replication.hosts.local.machine import LocalHost, socket_directory
from tde_replication.hosts.placement import Placement, PlacementContext
from tde_replication.settings import Server


def declare(server: Server, port: int, context: PlacementContext) -> Placement:
    """A server on this machine: the stack's directory below the project's own root."""
    installation = find_installation(PROJECT, server.binaries, SUPPORTED)
    data = PurePosixPath(server.data_directory or local_root(PROJECT) / context.prefix / server.name / "data")
    sockets = _sockets_of_adopted(data) if server.adopt else str(socket_directory(data))
    return Placement(
        address="local",
        data=data,
        binaries=PurePosixPath(installation.binaries),
        port=port,
        replication_host=reached_locally(server.listens),
        replication_sources=(server.network,) if server.network else (),
        dsn=make_conninfo(
            host=sockets, port=port, user="postgres", dbname="postgres", requirepeer=service_account().name
        ),
        server=str(installation),
        has_pg_tde=installation.has_pg_tde,
        version=installation.major,
        version_setting="binaries",
        parameters={"unix_socket_directories": sockets},
    )


def _sockets_of_adopted(data: PurePosixPath) -> str:
    """Where somebody else's server has its socket; where that is down, PostgreSQL's default."""
    with suppress(UserError):
        found = LocalHost().postmaster(data)
        if found and found.socket_directory.startswith("/"):
            return found.socket_directory
    return "/tmp"  # noqa: S108 - theirs
