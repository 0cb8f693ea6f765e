"""(m) in containers and on booted machines, against the same steps typed by docker or ssh."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.by_steps import Steps, by_docker, by_ssh, emptied, removed, typed
from benchmarks.machines import Machines, on_machine
from benchmarks.stack import Stack
from benchmarks.switchover import Side, Took, against_script, superuser, turns
from benchmarks.table import Table
from bootstrap.ports import free_ports
from bootstrap.project import HERE
from tde_replication.host_settings import SUPPORTED
from tde_replication.hosts.installation import find_installation
from tests.docker.lab import BINARIES as IN_CONTAINER

SERVERS = ("db1", "db2")
PORT = 5432
LET_IN = """
for socket in /tmp/.s.PGSQL.* /run/*/.s.PGSQL.*; do [ ! -S "$socket" ] || break; done
exec "$1/psql" --no-psqlrc -XqAt --host "${socket%/*}" --port "${socket##*.}" -U postgres -d postgres \
    -c "COPY (VALUES ('host all all all trust')) TO PROGRAM 'cat >>pg_hba.conf'" -c "SELECT pg_reload_conf()"
"""
"""Whoever writes comes in by TCP, on both sides."""


class Elsewhere:
    def __init__(self, root: Path, table: Table) -> None:
        self._root = root
        self._table = table
        self._binaries = find_installation(HERE.root, None, SUPPORTED).binaries

    def of(self, name: str, steps: Steps, dsns: Sequence[str], switch: Any) -> Mapping[str, Took]:
        """Of this cluster; `steps` has the way into each server."""
        for way in steps.ways:
            typed(way, LET_IN, steps.programs)
        return turns(self._table, name, Side(dict(zip(SERVERS, dsns, strict=True)), switch), self._binaries, self._root)

    def by_steps(self, name: str, steps: Steps, dsns: Sequence[str]) -> Mapping[str, Took]:
        steps.make()
        return self.of(name, steps, dsns, lambda *pair: steps.switch(*map(SERVERS.index, pair)))


class _Declared(Stack):
    def __init__(self, root: Path, servers: Mapping[str, Any]) -> None:
        root.mkdir(mode=0o755)
        super().__init__(root)
        self._servers = servers
        self.vault()
        self.init()
        self.switch("", SERVERS[0])

    def switch(self, _: str, primary: str) -> None:
        self.write({"primary": primary, "servers": self._servers})
        self.up()


def measure(root: Path, machines: Machines, table: Table) -> None:
    side = Elsewhere(root, table)
    _in_containers(root, machines, table, side)
    _by_ssh(root, machines, table, side)


def _in_containers(root: Path, machines: Machines, table: Table, side: Elsewhere) -> None:
    ports = free_ports(len(SERVERS))
    dsns = [superuser("127.0.0.1", port) for port in ports]
    server = {"host": {"docker": machines.image}, "binaries": str(IN_CONTAINER)}
    stack = _Declared(
        root / "docker", {name: {**server, "port": port} for name, port in zip(SERVERS, ports, strict=True)}
    )
    found = {str(one.name) for one in machines.daemon.containers.list()}
    names = [next(one for one in found if one.endswith(f"-{name}")) for name in SERVERS]
    ways = [["docker", "exec", "-i", "-u", "postgres", name] for name in names]
    ours = side.of("docker, ours", Steps(ways, names, str(IN_CONTAINER)), dsns, stack.switch)
    stack.destroy()
    with removed():
        against_script(
            table, "docker, ", ours, side.by_steps("docker, script", by_docker(machines.image, *ports), dsns)
        )


def _by_ssh(root: Path, machines: Machines, table: Table, side: Elsewhere) -> None:
    booted = machines.laboratory.boot("switch1", "switch2")
    dsns = [superuser(one.address, PORT) for one in booted]
    shared = ("-oControlMaster=auto", f"-oControlPath={root}/%C", "-oControlPersist=60")
    with ExitStack() as afterwards:
        stack = _Declared(root / "ssh", dict(zip(SERVERS, map(on_machine, booted), strict=True)))
        steps = by_ssh(booted, *shared)
        ours = side.of("ssh, ours", steps, dsns, stack.switch)
        stack.destroy()
        afterwards.callback(emptied, steps)
        against_script(table, "ssh, ", ours, side.by_steps("ssh, script", steps, dsns))
