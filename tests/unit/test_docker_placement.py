"""Ports of dockerd's machine for servers in containers, without a dockerd."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from docker.errors import NotFound

from tde_replication.errors import UserError
from tde_replication.host_settings import Docker
from tde_replication.hosts.docker import placement
from tde_replication.hosts.docker.placement import declare
from tde_replication.hosts.placement import PlacementContext
from tde_replication.settings import Server, default_port

IMAGE = Docker(docker="percona/percona-distribution-postgresql:18.6")


class Daemon:
    """Has nothing, or containers of somebody else's, which are down and publish a port each."""

    base_url = "http+docker://localhost"
    machine = socket.gethostname()
    published: dict[str, tuple[str, int]]

    def __init__(self, **published: tuple[str, int]) -> None:
        self.published = published

    def containers(self, **_: object) -> list[dict[str, Any]]:
        return [{"Id": f"id of {name}", "Names": [f"/{name}"]} for name in self.published]

    def inspect_container(self, name: str) -> dict[str, Any]:
        name = name.removeprefix("id of ")
        if name not in self.published:
            raise NotFound("there is none")
        inside, port = self.published[name]
        return {"HostConfig": {"PortBindings": {inside: [{"HostPort": str(port)}]}}}

    def info(self) -> dict[str, str]:
        return {"Name": self.machine}

    def __getattr__(self, _: str) -> Any:
        def inspect(_: str) -> None:
            raise NotFound("there is none")

        return inspect


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    """The dockerd that is asked."""
    made = Daemon()

    @contextmanager
    def connected() -> Iterator[Daemon]:
        yield made

    monkeypatch.setattr(placement, "daemon", connected)
    return made


def ports(*names: str, port: int | None = None) -> list[int | None]:
    context = PlacementContext("tde-replication", "test", "test")
    servers = [Server(host=IMAGE, port=port).named(name) for name in names]
    return [declare(server, port or default_port(server.name), context).published for server in servers]


def test_no_two_servers_get_one_port(daemon: Daemon) -> None:
    names = ("db0", "db1", "db2")
    first = ports(*names)[0]
    assert first
    with socket.socket() as busy, suppress(OSError):  # else somebody has it already
        busy.bind(("127.0.0.1", first))
        assert len(set(ports(*names))) == 3
        assert first not in ports(*names)
    for inside in ("5432/tcp", "80/tcp"):
        daemon.published = {"web": (inside, first)}
        assert first not in ports(*names), "it would be taken when that is started"


def test_a_port_that_is_taken_is_told_with_its_holder(daemon: Daemon) -> None:
    daemon.published = {"web": ("80/tcp", 20443)}
    with pytest.raises(UserError, match=r"port 20443 of 127\.0\.0\.1 is in use by container web: name another port"):
        ports("db1", port=20443)
    with pytest.raises(UserError, match="is in use by another server of this stack"):
        ports("db1", "db2", port=20444)
    daemon.published = {"tde-test-db1": ("5432/tcp", 20443)}
    assert ports("db1", port=20443) == [20443]  # its own


@pytest.mark.parametrize(
    ("url", "machine", "here"),
    [
        ("http+docker://localhost", "elsewhere", True),
        ("https://192.0.2.7:2376", "elsewhere", False),
        ("http://127.0.0.1:2375", "elsewhere", False),  # a tunnel
        ("http://127.0.0.1:2375", socket.gethostname(), True),
    ],
)
def test_the_ports_of_this_machine_matter_where_dockerd_is_on_it(
    daemon: Daemon, url: str, machine: str, *, here: bool
) -> None:
    daemon.base_url, daemon.machine = url, machine
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        port = busy.getsockname()[1]
        if not here:
            assert ports("db1", port=port) == [port]
            return
        with pytest.raises(UserError, match="is in use by another program"):
            ports("db1", port=port)
