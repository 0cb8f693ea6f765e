"""Clusters on every kind of host, and a mixed one: where each server lives, and what is seen of it past the stack."""

import os
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import docker
import psycopg
import pytest

from bootstrap.ports import free_ports
from tde_replication import hosts
from tde_replication.hosts.base import Host
from tde_replication.hosts.docker.placement import DATA
from tests.docker.lab import BINARIES, Contained, OwnVault, things
from tests.engine.cluster import PATIENCE, Cluster, base_directory
from tests.engine.workspace import Workspace, eventually
from tests.openbao import OpenBao
from tests.providers.traps import OPTIONS, Attacker
from tests.ssh.booted import DOUBLE, USER, Booted, Lab

NAMES = ("db1", "db2", "db3")


@dataclass(frozen=True)
class Place:
    """Where one server lives."""

    declared: dict[str, Any]
    """What its entry in the stack file says besides its name."""
    address: str
    """Of its host."""
    data: PurePosixPath
    client: str
    """Where a standby's connections come from."""
    found: Callable[[], set[str]]
    """What a stack could leave there."""
    log: Callable[[], str]
    """All that the server, and what starts it, have written and show of themselves."""
    kill: Callable[[], object]
    """Ends its server as a crash would."""
    makes: tuple[str, ...] = ()
    """Resources of its kind of host, beside those that all servers have."""


@dataclass(frozen=True)
class Kind:
    places: dict[str, Place]
    bao: OpenBao
    vault: dict[str, str]
    """The stack file's section."""


def _pid(address: str, data: str | Path) -> int:
    found = hosts.host(address).postmaster(PurePosixPath(data))
    assert found
    return found.pid


def _processes_of_this_machine(base: Path, name: str, binaries: Path, port: int) -> Place:
    data = base / name / "data"
    return Place(
        {"port": port, "dataDirectory": str(data), "binaries": str(binaries)},
        "local",
        PurePosixPath(data),
        "127.0.0.1/32",
        lambda: {str(path) for path in base.glob("*/*")},
        (base / name / "postgresql.log").read_text,
        lambda: os.kill(_pid("local", data), signal.SIGKILL),
    )


def _container(client: docker.DockerClient, image: str, stack: str, name: str, address: str = "") -> Place:
    def log() -> str:
        found = client.containers.get(f"tde-{stack}-{name}")
        return f"{found.logs().decode()}{found.attrs}{found.top()}"

    declared = {"host": {"docker": image}, "binaries": str(BINARIES)} | ({"address": address} if address else {})
    return Place(
        declared,
        f"docker://tde-{stack}-{name}",
        PurePosixPath(DATA),
        address or "samenet",
        lambda: {one for one in things(client) if stack in one},
        log,
        lambda: client.containers.get(f"tde-{stack}-{name}").kill("SIGKILL"),
        (f"Container {name}", f"Volume {name}"),
    )


def machine(booted: Booted, network: str, stack: str, name: str, *makes: str, version: int = 18) -> Place:
    """`makes`: what is made there besides. The embedded server, or Debian's of another `version`."""
    known = {"key": str(booted.home / "id"), "knownHosts": str(booted.home / "known_hosts")}
    host = {"ssh": booted.address, "user": USER, "packages": "none", "version": version, **known}
    binaries = DOUBLE if version == 18 else f"/usr/lib/postgresql/{version}/bin"
    unit = f"tde-{stack}-{name}"
    address, data = booted.login().address(unit=unit), f"/var/lib/postgresql/{version}/{unit}/data"
    return Place(
        {"host": host, "address": network, "binaries": binaries},
        address,
        PurePosixPath(data),
        network,
        lambda: {f"{booted.address} {line}" for line in booted.found().splitlines()},
        lambda: booted.root("journalctl --no-pager -o cat"),
        lambda: booted.root('kill -9 "$1"', str(_pid(address, data))),
        (f"Command {name}-directory", f"Command {name}-unit", *(f"Command {name}-{one}" for one in makes)),
    )


@contextmanager
def local(request: pytest.FixtureRequest, stack: str) -> Iterator[Kind]:
    del stack
    binaries, bao = request.getfixturevalue("encrypted_binaries"), request.getfixturevalue("openbao")
    base = base_directory()
    ports = zip(NAMES, free_ports(len(NAMES)), strict=True)
    yield Kind({name: _processes_of_this_machine(base, name, binaries, port) for name, port in ports}, bao, {})
    shutil.rmtree(base)


@contextmanager
def containers(request: pytest.FixtureRequest, stack: str) -> Iterator[Kind]:
    client, image = request.getfixturevalue("daemon"), request.getfixturevalue("image")
    bao: Contained = request.getfixturevalue("contained_bao")
    vault = {"network": OwnVault.name, "addressFromServers": bao.seen_from_servers}
    yield Kind({name: _container(client, image, stack, name) for name in NAMES}, bao, vault)


@contextmanager
def machines(request: pytest.FixtureRequest, stack: str) -> Iterator[Kind]:
    """Three by ssh, which renew their tokens; the Vault is on their network."""
    with _network(request) as (lab, bao, booted):
        places = {
            name: machine(one, lab.subnet, stack, name, "token-renewal")
            for name, one in zip(NAMES, booted, strict=True)
        }
        yield Kind(places, bao, {"addressFromServers": bao.seen_from_servers, "renewal": "timer"})


@contextmanager
def mixed(request: pytest.FixtureRequest, stack: str) -> Iterator[Kind]:
    """The primary by ssh, db2 in a container on this machine, db3 by ssh again."""
    client, image = request.getfixturevalue("daemon"), request.getfixturevalue("image")
    with _network(request) as (lab, bao, booted):
        by_ssh = partial(machine, network=lab.subnet, stack=stack)
        places = {
            "db1": by_ssh(booted[0], name="db1"),
            "db2": _container(client, image, stack, "db2", lab.subnet),
            "db3": by_ssh(booted[2], name="db3"),
        }
        yield Kind(places, bao, {"network": lab.name, "addressFromServers": bao.seen_from_servers})


@contextmanager
def _network(request: pytest.FixtureRequest) -> Iterator[tuple[Lab, Contained, list[Booted]]]:
    lab: Lab = request.getfixturevalue("laboratory")
    bao: Contained = request.getfixturevalue("contained_bao")
    with lab.joined(OwnVault.name):
        yield lab, bao, request.getfixturevalue("three_machines")


KINDS: dict[str, Callable[[pytest.FixtureRequest, str], AbstractContextManager[Kind]]] = {
    "local": local,
    "docker": containers,
    "ssh": machines,
    "mixed": mixed,
}


class Everywhere(Cluster):
    """Servers db1 (the primary), db2 and db3, each in its place."""

    pause = 0.2

    def __init__(self, workspace: Workspace, kind: Kind) -> None:
        self.workspace = workspace
        self.bao = kind.bao
        self.places = kind.places
        self.names = list(kind.places)
        self.clients = kind.places["db2"].client
        servers = {name: dict(place.declared) for name, place in kind.places.items()}
        servers["db1"]["settings"] = {"log_statement": "all"}
        workspace.write({"disposable": True, "vault": kind.vault, "primary": "db1", "servers": servers})

    def host(self, name: str) -> Host:
        return hosts.host(self.places[name].address)

    def place(self, name: str) -> PurePosixPath:
        return self.places[name].data

    def stop(self, name: str) -> None:
        self.host(name).stop(PurePosixPath(self.places[name].declared["binaries"]), self.place(name), deadline=60)
        eventually(lambda: not self.running(name))

    def sql(self, name: str, query: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        with self.host(name).connect(self.place(name), database) as connection:
            # As a person's own session, who is careful about the search path.
            connection.execute("SET search_path TO pg_catalog; SET event_triggers = on")
            for statement in query.split("; "):
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def kill(self, name: str) -> None:
        self.places[name].kill()
        eventually(lambda: not self.running(name))

    def client(self, name: str) -> psycopg.Connection[tuple[Any, ...]]:
        options = f"-c synchronous_commit=on -c statement_timeout={PATIENCE}s"
        return self.host(name).connect(self.place(name), "postgres", options=options)

    @property
    def marks(self) -> tuple[str, ...]:
        return (str(self.workspace.directory),)

    def attacker(self) -> Attacker:
        return Attacker(self.host("db1").connect(self.place("db1"), "postgres", options=OPTIONS))

    def found(self) -> set[str]:
        """What a stack could leave, on all hosts."""
        return set().union(*(place.found() for place in self.places.values()))

    def cloning(self) -> bool:
        """Whether a base backup of this stack's runs, wherever it does: all of them are on this machine in the end."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            if b"basebackup" in command.partition(b"\0")[0] and f"{self.workspace.stack}.pgpass".encode() in command:
                return True
        return False


@contextmanager
def declared(kind: str, request: pytest.FixtureRequest, directory: Path) -> Iterator[Everywhere]:
    """A cluster of that kind that is not there yet."""
    stack = f"{kind}{secrets.token_hex(3)}"
    with KINDS[kind](request, stack) as places:
        workspace = Workspace(directory, stack, places.bao.environment)
        workspace.init()
        made = Everywhere(workspace, places)
        try:
            yield made
        finally:
            workspace.unlock()
            done = workspace.destroy()
        assert done.code == 0, done.errors or done.text
