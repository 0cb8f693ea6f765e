"""`rejoin: rewind` where the program runs in a container or by ssh, and over TLS: a former primary that has WAL of its own."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.certificates import Authority
from tests.engine.switchover import declare
from tests.engine.workspace import Workspace, eventually
from tests.kinds.places import Everywhere, Kind, declared, machine
from tests.openbao import OpenBao
from tests.ssh.booted import Booted, Lab

# Docker's SDK leaves a socket open that could not be connected.
pytestmark = [
    pytest.mark.soak,
    pytest.mark.filterwarnings("ignore:unclosed <socket.socket.*family=1:ResourceWarning"),
]
ACCEPT = "TDE_REPLICATION_ACCEPT_LOSS"
FOLLOWING = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
VERSION, HOME = 17, "/var/lib/postgresql"


@pytest.fixture(scope="session")
def three_machines(laboratory: Lab) -> list[Booted]:
    return laboratory.boot("rewound1", "rewound2", "rewound3")


@pytest.fixture(params=["docker", "ssh", "mixed"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Everywhere]:
    with declared(request.param, request, tmp_path) as made:
        made.workspace.up_well()
        made.sql("db1", "CREATE TABLE public.written (a int) USING tde_heap; INSERT INTO public.written VALUES (1)")
        for name in ("db2", "db3"):
            eventually(lambda name=name: has(made, name) == [(1,)])  # type: ignore[misc]
        yield made


def has(cluster: Everywhere, name: str) -> list[tuple[Any, ...]] | None:
    if cluster.sql(name, "SELECT to_regclass('public.written') IS NULL") == [(True,)]:
        return None
    return cluster.sql(name, "SELECT a FROM public.written ORDER BY a")


def given_up(cluster: Everywhere) -> None:
    """db1 writes what nobody receives, and dies; db2 is the primary, and writes."""
    workspace, others = cluster.workspace, cluster.names[1:]
    for name in others:
        cluster.stop(name)
    cluster.sql("db1", "INSERT INTO public.written SELECT 2 FROM generate_series(1, 1000)")
    cluster.kill("db1")
    for name in others:
        cluster.start(name)
    declare(cluster, "db2")
    workspace.environment[ACCEPT] = "db2"
    first = workspace.up()
    del workspace.environment[ACCEPT]
    assert cluster.sql("db2", "SELECT pg_is_in_recovery()") == [(False,)], first.text
    cluster.sql("db2", "INSERT INTO public.written VALUES (3)")


def test_a_former_primary_with_wal_of_its_own_is_rewound(cluster: Everywhere) -> None:
    workspace = cluster.workspace
    given_up(cluster)
    workspace.write({**workspace.cluster, "rejoin": "rewind", "disposable": False})
    preview = workspace.preview()
    assert preview.code == 0, preview.errors
    assert preview.plan["DataDirectory db1"] == "update"
    assert "replace" not in preview.plan.values()
    assert re.search(r"db1: is rewound to db2 by pg_tde_rewind, because it has [\d.]+ [KM]iB of WAL", preview.words)
    workspace.up_well()
    for name in cluster.names:
        eventually(lambda name=name: has(cluster, name) == [(1,), (3,)])  # type: ignore[misc]
        assert cluster.sql(name, "SELECT pg_is_in_recovery()") == [(name != "db2",)]
        assert cluster.sql(name, "SELECT public.pg_tde_is_encrypted('public.written')") == [(True,)]
    eventually(lambda: cluster.sql("db2", FOLLOWING) == [(2,)])
    assert [one for one in cluster.host("db1").listing(cluster.place("db1").parent) if "data.set-aside-" in one]
    workspace.write({**workspace.cluster, "disposable": True})
    workspace.up_well()
    workspace.unchanged()


@pytest.fixture
def over_tls(laboratory: Lab, three_machines: list[Booted], openbao: OpenBao, tmp_path: Path) -> Iterator[Everywhere]:
    """db1 and db2 of Debian's own PostgreSQL, for the embedded one has no TLS."""
    stack, names, machines = "rewoundtls", ("db1", "db2"), three_machines[:2]
    workspace = Workspace(tmp_path, stack, openbao.environment)
    workspace.init()
    places = {
        name: machine(one, laboratory.subnet, stack, name, version=VERSION)
        for name, one in zip(names, machines, strict=True)
    }
    made = Everywhere(workspace, Kind(places, openbao, {}))
    authorities = tmp_path / "authorities"
    for name, one in zip(names, machines, strict=True):
        authority = Authority(tmp_path, f"{name}-ca")
        certificate, key = authority.certificate(one.address)
        install(one, "server.pem", certificate, mode="644")
        install(one, "server.key", key, mode="600")
        with authorities.open("a") as file:
            file.write(authority.file.read_text())
    for one in machines:
        install(one, "ca.pem", authorities, mode="644")
    speaks = {"ssl": "on", "ssl_cert_file": f"{HOME}/server.pem", "ssl_key_file": f"{HOME}/server.key"}
    servers = {name: {**place.declared, "settings": speaks} for name, place in places.items()}
    replication = {"tls": "verify-full", "rootCertificate": f"{HOME}/ca.pem"}
    known = {"encryption": "off", "disposable": True, "primary": "db1", "rejoin": "rewind"}
    workspace.write({**known, "servers": servers, "replication": replication})
    try:
        workspace.up_well()
        yield made
    finally:
        workspace.unlock()
        done = workspace.destroy()
    assert done.code == 0, done.errors or done.text


def install(machine: Booted, name: str, file: Path, *, mode: str) -> None:
    """A file of the account postgres."""
    script = 'printf %s "$2" >"$1"; chown postgres: "$1"; chmod "$3" "$1"'
    machine.root(script, f"{HOME}/{name}", file.read_text(), mode)


def test_it_is_rewound_over_tls(over_tls: Everywhere) -> None:
    cluster, workspace = over_tls, over_tls.workspace
    cluster.sql("db1", "CREATE TABLE public.written (a int); INSERT INTO public.written VALUES (1)")
    eventually(lambda: has(cluster, "db2") == [(1,)])
    given_up(cluster)
    preview = workspace.preview()
    assert re.search(r"db1: is rewound to db2 by pg_rewind, because it has [\d.]+ [KM]iB of WAL", preview.words)
    workspace.up_well()
    for name in cluster.names:
        eventually(lambda name=name: has(cluster, name) == [(1,), (3,)])  # type: ignore[misc]
    encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE ssl"
    eventually(lambda: cluster.sql("db2", encrypted) == [(1,)])
    workspace.unchanged()
