"""What running servers have against a cipher."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any
from unittest.mock import Mock

import pytest

from tde_replication import settings, stack_file
from tde_replication.errors import Unavailable
from tde_replication.hosts.placement import Placement
from tde_replication.preflight import keys as preflight_keys
from tde_replication.preflight.keys import check_cipher, check_weaker_cipher

PG_TDE = "wal_encrypt"


class Answers:
    """A server whose pg_settings holds these of pg_tde's parameters."""

    def __init__(self, **parameters: str) -> None:
        self.parameters = parameters

    def row(self, _: str) -> tuple[int] | None:
        return (1,) if PG_TDE in self.parameters else None

    def value(self, _: str, names: list[str]) -> str | None:
        return self.parameters.get(names[0].removeprefix("pg_tde."))


def cluster(**declared: Any) -> settings.Cluster:
    return stack_file.parse("test", declared)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Any:
    def serve(**servers: Answers) -> list[Placement]:
        @contextmanager
        def session(_: object, data: PurePosixPath, *__: object) -> Iterator[Answers]:
            if data.name not in servers:
                raise Unavailable("down")
            yield servers[data.name]

        monkeypatch.setattr(preflight_keys, "server_session", session)
        monkeypatch.setattr("tde_replication.hosts.host", lambda _: Mock(status=lambda _: None))
        return [Mock(data=PurePosixPath(f"/srv/{name}")) for name in ("db1", "db2")]

    return serve


OLD, NEW = Answers(wal_encrypt="off"), Answers(wal_encrypt="off", cipher="aes_128")


@pytest.mark.parametrize(
    ("servers", "told"),
    [
        ({"db1": OLD, "db2": NEW}, ["cluster.servers.db1"]),
        ({"db1": NEW, "db2": OLD}, ["cluster.servers.db2"]),
        ({"db1": NEW}, []),
        ({"db1": Answers()}, []),
    ],
    ids=["the primary", "a standby", "none, and one is down", "pg_tde is not loaded yet"],
)
def test_a_pg_tde_before_2_2_has_no_choice(serve: Any, servers: dict[str, Answers], told: list[str]) -> None:
    sites = serve(**servers)
    wanted = cluster(cipher="aes_256")
    assert check_cipher(wanted, wanted.places, sites) == [
        f"cluster.cipher: aes_256 needs pg_tde 2.2 or newer, and the server of {place} has an older one: install a newer one, or "
        "write cipher: aes_128"
        for place in told
    ]
    assert check_cipher(cluster(), wanted.places, sites) == []


def test_the_default_weakens_no_server_that_is_adopted(serve: Any) -> None:
    there = {"adopt": True, "dataDirectory": "/srv/db1", "port": 5432}
    adopted = {"primary": "db1", "servers": {"db1": there, "db2": {}}}
    site, _ = serve(db1=Answers(wal_encrypt="off", cipher="aes_256"))
    [told] = check_weaker_cipher(cluster(**adopted), site, "/srv/token")
    assert told == (
        "cluster.cipher: missing; pg_tde.cipher is aes_256 on the server that is to be adopted, and the default is aes_128: "
        "set the one to use"
    )
    assert check_weaker_cipher(cluster(cipher="aes_128", **adopted), site, "/srv/token") == []
    assert check_weaker_cipher(cluster(), site, "/srv/token") == []
