"""Ports of this machine for servers in containers, without a dockerd."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pulumi
import pytest
from docker.errors import NotFound

from components.hosts import docker_site
from components.hosts.docker_site import declare_container
from components.hosts.site import Surroundings
from components.settings import LOCAL_PORT, Docker, Server


class Daemon:
    """Has nothing, or one container of somebody else's, which is down and publishes a port."""

    published: int | None = None

    def containers(self, **_: object) -> list[dict[str, str]]:
        return [{"Id": "other"}] if self.published else []

    def inspect_container(self, name: str) -> dict[str, Any]:
        if name != "other":
            raise NotFound("there is none")
        return {"HostConfig": {"PortBindings": {"5432/tcp": [{"HostPort": str(self.published)}]}}}

    def __getattr__(self, _: str) -> Any:
        def inspect(_: str) -> None:
            raise NotFound("there is none")

        return inspect


@contextmanager
def nothing() -> Iterator[Daemon]:
    yield Daemon()


def test_no_two_servers_get_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_site, "daemon", nothing)
    monkeypatch.setattr(pulumi, "get_project", lambda: "tde-replication")

    def ports() -> list[int | None]:
        around = Surroundings("test", "test")
        image = Docker(docker="percona/percona-distribution-postgresql:18.6")
        servers = [Server(name=f"db{n}", host=image) for n in range(3)]
        return [declare_container(server, LOCAL_PORT + n, around).published for n, server in enumerate(servers)]

    first = ports()[0]
    assert first
    with socket.socket() as busy, suppress(OSError):  # else somebody has it already
        busy.bind(("127.0.0.1", first))
        assert len(set(ports())) == 3
        assert first not in ports()
    monkeypatch.setattr(Daemon, "published", first)
    assert first not in ports(), "it would be taken when that is started"
