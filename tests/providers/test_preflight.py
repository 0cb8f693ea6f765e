"""What a running primary tells before anything is made of it, all at once."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from psycopg import sql

from bootstrap.ports import free_ports
from tde_replication.hosts.local.machine import LocalHost
from tde_replication.hosts.placement import Placement
from tde_replication.preflight.adoption import check_databases
from tde_replication.preflight.clone import check_clones
from tde_replication.preflight.ports import of_adopted, taken
from tde_replication.settings import Cluster, Server
from tests.providers.servers import STACK, Node, Servers


def site(data: PurePath, port: int) -> Placement:
    return Placement(
        address="local",
        data=PurePosixPath(data),
        binaries=PurePosixPath("/usr/bin"),
        port=port,
        replication_host="127.0.0.1",
        replication_sources=(),
        dsn="",
        server="",
        has_pg_tde=False,
        version=18,
        version_setting="binaries",
    )


def declared(primary: Node, standby: Path, **settings: dict[str, str]) -> tuple[Any, Any]:
    """The primary, and a standby that is not there yet, as a stack file declares them."""
    db1, db2 = (Server(settings=settings.get(name, {})).named(name) for name in ("db1", "db2"))
    return (db1.place, db1, site(primary.data, primary.port)), (db2.place, db2, site(standby, 1))


@pytest.fixture
def fast(primary: Node) -> Iterator[str]:
    """The directory of a tablespace."""
    with TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o777)
        path = f"{place}/fast"
        LocalHost().run(["mkdir", path], deadline=10)
        primary.rows(sql.SQL("CREATE TABLESPACE fast LOCATION {}").format(sql.Literal(path)))
        yield path
        primary.rows("DROP TABLESPACE fast")


def test_databases_that_an_adopted_primary_does_not_have_are_its_owners_to_make(primary: Node) -> None:
    place = site(primary.data, primary.port)

    def told(**db1: Any) -> list[str]:
        cluster = Cluster(databases=["template1", "nowhere"], servers={"db1": Server(**db1)})
        return check_databases(cluster, place, in_force=True)

    assert told() == []
    assert told(adopt=True) == [
        'cluster.databases: the server that is adopted has no database "nowhere": create it there, or leave it out'
    ]


def test_the_port_of_another_cluster_is_told_with_its_directory(primary: Node, servers: Servers) -> None:
    server = Server(port=primary.port).named("db9")
    [told] = taken(server, site(servers.place("nowhere"), primary.port), STACK, is_primary=True)
    found = primary.host.postmaster(primary.data)
    assert found
    by = f"postgres (process {found.pid} of {primary.host.account}, data directory {primary.data})"
    assert (
        told
        == f"cluster.servers.db9.port: {primary.port} is in use on 127.0.0.1, by {by}: stop that, or name another port"
    )
    [told] = taken(server, site(servers.place("nowhere"), primary.port), "tde-replication/new/new", is_primary=True)
    assert f'by {by}, which is of stack "test" ({STACK}), and this one is tde-replication/new/new: ' in told
    assert told.endswith("give it its name back: `pulumi stack rename test`")
    assert taken(server, site(primary.data, primary.port), STACK, is_primary=True) == []
    assert taken(server, site(servers.place("nowhere"), free_ports(1)[0]), STACK, is_primary=True) == []


def test_where_an_adopted_server_listens(primary: Node) -> None:
    def told(port: int, replication_host: str) -> list[str]:
        there = Server(adopt=True, port=port)
        cluster = Cluster(primary="db1", servers={"db1": there, "db2": Server()})
        return of_adopted(
            cluster, cluster.primary_server, replace(site(primary.data, port), replication_host=replication_host)
        )

    assert told(primary.port, "127.0.0.1") == []
    port, listen = told(5433, "::1")
    assert port == (
        f"cluster.servers.db1.port: the server on {primary.data} listens on {primary.port}, and the stack file says 5433"
    )
    assert listen == (
        f"cluster.servers.db1.listen: the server on {primary.data} listens on 127.0.0.1, and standbys would look for it on "
        "::1: name here where it listens"
    )


def test_tablespaces_are_refused_for_a_standby_on_the_same_machine(primary: Node, servers: Servers, fast: str) -> None:
    """Also for one that streams already: it replays CREATE TABLESPACE into the primary's directory."""
    for place in (servers.place("new"), Path(primary.data)):
        one, other = declared(primary, place)
        [told], _ = check_clones(one, [other])
        assert told == (
            f"cluster.servers.db2.host: db1 has tablespaces outside of its data directory (fast in {fast}), and a standby on the "
            "same machine would write into the same directories. Put db2 on another machine, or move what is in the tablespaces "
            "to pg_default and drop them"
        )


def test_what_a_new_clone_is_not_given_is_told(primary: Node, servers: Servers) -> None:
    place = servers.place("new")
    one, other = declared(primary, place, db1={"archive_mode": "on", "hot_standby": "off"}, db2={"hot_standby": "on"})
    assert check_clones(one, [other]) == (
        [],
        ["db2 will not take over from db1: archive_mode (two servers would write into one archive)"],
    )
    tls = {"ssl": "yes", "ssl_cert_file": "/etc/no such.pem", "ssl_key_file": "server.key"}
    one, other = declared(primary, place, db1=tls)
    assert check_clones(one, [other]) == (
        [],
        ["db2 will not take over from db1: ssl, ssl_cert_file, ssl_key_file (its machine has not all of these files)"],
    )
    own = {"ssl": "on", "ssl_cert_file": "own.pem", "ssl_key_file": "own.key"}
    for has in (tls | {"ssl": "off"}, tls | {"ssl_cert_file": "/etc/passwd"}):
        one, other = declared(primary, place, db1=has)
        assert check_clones(one, [other]) == ([], [])
    one, other = declared(primary, place, db1=tls, db2=own)
    assert check_clones(one, [other]) == ([], [])
