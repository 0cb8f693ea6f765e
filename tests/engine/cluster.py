"""A running cluster under test, and what can be done to it behind Pulumi's back."""

import os
import shutil
import signal
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

import psycopg

from bootstrap.ports import free_ports
from tde_replication.errors import Unavailable
from tde_replication.hosts.account import service_account
from tde_replication.hosts.base import Host
from tde_replication.hosts.local.machine import LocalHost, socket_directory
from tests.engine.workspace import Workspace, eventually, sql
from tests.openbao import OpenBao

PATIENCE = 2
"""Seconds that a client waits."""


class Cluster:
    """Servers db1 (the primary), db2 … in a directory of their own, as a stack file declares them.

    What the table of drift does goes through `host` and `place`, so that it can be done to servers of any kind.
    """

    clients = "127.0.0.1/32"
    """Where the standbys' connections come from."""
    pause = 0.02
    """Seconds between two tries of a client that finds no server."""

    def __init__(self, workspace: Workspace, base: Path, standbys: int, bao: OpenBao, **cluster: Any) -> None:
        self.workspace = workspace
        self.bao = bao
        self.base = base
        self.names = [f"db{n + 1}" for n in range(standbys + 1)]
        self.ports = dict(zip(self.names, free_ports(len(self.names)), strict=True))
        declared = {name: {"port": port, "dataDirectory": str(self.data(name))} for name, port in self.ports.items()}
        for server in declared.values():
            if binaries := cluster.get("binaries"):
                server["binaries"] = str(binaries)
        more = {key: value for key, value in cluster.items() if key != "binaries"}
        workspace.write({"primary": "db1", "servers": declared, "disposable": True, **more})

    @property
    def binaries(self) -> PurePosixPath:
        return PurePosixPath(self.workspace.cluster["servers"]["db1"]["binaries"])

    def start(self, name: str) -> None:
        """Start a server as a DBA would, and wait until it answers."""
        self.host(name).start(self.binaries, self.place(name))
        eventually(lambda: self.answers(name))

    def host(self, name: str) -> Host:
        """Where that server lives."""
        del name
        return LocalHost()

    def place(self, name: str) -> PurePosixPath:
        """Its data directory there."""
        return PurePosixPath(self.data(name))

    def beside(self, name: str, suffix: str) -> PurePosixPath:
        """A file of the stack's beside its data directory."""
        return self.place(name).with_name(f"{self.workspace.stack}.{suffix}")

    def answers(self, name: str) -> bool:
        try:
            return self.sql(name, "SELECT 1") == [(1,)]
        except (psycopg.OperationalError, Unavailable):
            return False

    def data(self, name: str) -> Path:
        return self.base / name / "data"

    def sockets(self, name: str) -> Path:
        """The directory of its socket, which goes with its data where that is declared elsewhere by now."""
        declared = self.workspace.cluster["servers"].get(name, {})
        return Path(socket_directory(PurePosixPath(declared.get("dataDirectory") or self.place(name))))

    def file(self, name: str, suffix: str) -> Path:
        return self.base / name / f"{self.workspace.stack}.{suffix}"

    def sql(self, name: str, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        return sql(self.sockets(name), self.ports[name], query, database)

    def client(self, name: str) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection as an application has one, which waits for no answer for ever."""
        return psycopg.connect(
            host=str(self.sockets(name)),
            port=self.ports[name],
            user="postgres",
            dbname="postgres",
            autocommit=True,
            connect_timeout=PATIENCE,
            options=f"-c statement_timeout={PATIENCE}s",
        )

    @property
    def marks(self) -> tuple[str, ...]:
        """What is in the command or the environment of every process that works for this stack."""
        return str(self.workspace.directory), str(self.base)

    def pid(self, name: str) -> int:
        found = self.host(name).postmaster(self.place(name))
        assert found
        return found.pid

    def running(self, name: str) -> bool:
        return self.host(name).postmaster(self.place(name)) is not None

    def signal(self, name: str, number: int) -> None:
        """End a server, and wait until it is gone."""
        os.kill(self.pid(name), number)
        eventually(lambda: not self.running(name))

    def stop(self, name: str) -> None:
        self.signal(name, signal.SIGINT)

    def kill(self, name: str) -> None:
        self.signal(name, signal.SIGKILL)

    def edit(self, name: str, file: str, change: Any) -> None:
        """Change a text file in a data directory."""
        path, host = self.place(name) / file, self.host(name)
        text = (host.read(path) or b"").decode()
        new = change(text)
        assert new != text
        host.write(path, new.encode(), mode=0o600)

    def streaming(self) -> list[str]:
        rows = self.sql("db1", "SELECT slot_name FROM pg_replication_slots WHERE active ORDER BY 1")
        return [row[0] for row in rows]


def discard(cluster: Cluster, *others: str) -> None:
    """Take away what is left of a cluster, whatever a test left of it: servers, files, and mounts, `others` of the test's too."""
    for place in cluster.base.glob("*/*"):
        if running := LocalHost().postmaster(PurePosixPath(place)):
            os.kill(running.pid, signal.SIGKILL)
    mount, system = f"tde-{cluster.workspace.stack}", cluster.bao.client().sys
    for one in (mount, *others):
        system.disable_secrets_engine(one)
    for kind in ("primary", "standby"):
        system.delete_policy(f"{mount}-{kind}")
    shutil.rmtree(cluster.base)
    cluster.workspace.close()


def base_directory() -> Path:
    """A short directory that the service account can reach (pytest's own may not be entered by others)."""
    base = Path(tempfile.mkdtemp(prefix="tde-", dir="/tmp"))
    base.chmod(0o755)
    account = service_account()
    os.chown(base, account.uid, account.gid)
    return base
