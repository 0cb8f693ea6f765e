"""What is looked up on the machines before anything is declared: each mistake in a sentence that names its cause."""

from dataclasses import replace
from pathlib import PurePosixPath
from unittest.mock import Mock

import pytest

from tde_replication import hosts
from tde_replication.errors import CommandFailed
from tde_replication.host_settings import Docker, Ssh
from tde_replication.hosts.local.machine import LocalHost
from tde_replication.hosts.placement import Placement
from tde_replication.preflight.adoption import check_adopted_standby
from tde_replication.preflight.server import _is_mount_point, check_server, check_versions
from tde_replication.settings import Server


def test_a_container_is_not_asked_who_has_a_port_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look into a container that is down starts a helper."""
    host = Mock(listing=Mock(return_value=[]), read=Mock(return_value=None))
    monkeypatch.setattr(hosts, "host", lambda _: host)
    server = Server(host=Docker(docker="postgres")).named("db2")
    assert check_server(server, container(18), "stack", is_primary=False) == []
    assert {call.args[0].parent for call in host.read.call_args_list} == {DATA}


def test_values_that_no_parameter_takes_are_told_before_the_server_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own program, which is asked until nothing is left that it refuses."""

    def run(command: list[str], **_: object) -> str:
        given = [part.partition("=")[::2] for part in command if "=" in part]
        for name, value in given:
            if value == "lots":
                raise CommandFailed(
                    "postgres", 1, f'FATAL:  invalid value for parameter "{name}": "lots"\nHINT:  None.'
                )
            if name == "no_such_thing":
                raise CommandFailed("postgres", 1, f'FATAL:  unrecognized configuration parameter "{name}"')
        return "5432"

    host = Mock(listing=Mock(return_value=[]), read=Mock(return_value=None), run=run, status=Mock(return_value=None))
    monkeypatch.setattr(hosts, "host", lambda _: host)
    settings = {"no_such_thing": "1", "work_mem": "lots", "jit": "off", "temp_buffers": "lots"}
    site = replace(container(18), in_container=False)
    server = Server(host=Ssh(ssh="db2"), settings=settings).named("db2")
    assert sorted(check_server(server, site, "stack", is_primary=False)) == [
        'cluster.servers.db2.settings: invalid value for parameter "temp_buffers": "lots" (None)',
        'cluster.servers.db2.settings: invalid value for parameter "work_mem": "lots" (None)',
        'cluster.servers.db2.settings: unrecognized configuration parameter "no_such_thing"',
    ]

    def missing(command: list[str], **_: object) -> str:
        if command[0].endswith("postgres"):
            raise CommandFailed("postgres", 127, "postgres: not found")
        return ""

    host.run = missing
    assert check_server(server, site, "stack", is_primary=False) == []


@pytest.mark.parametrize(
    ("there", "sentence"),
    [
        (
            ["db2"],
            "cluster.servers.db1.adopt: /srv/db1 is empty: leave adopt out, and `up` clones it as a server of the stack",
        ),
        (
            ["db1"],
            (
                "cluster.primary: db2 has no data, and db1 was here before the stack: write primary: db1. Once db2 is cloned "
                "from it, it can be the primary"
            ),
        ),
        (["db1", "db2"], None),
    ],
)
def test_the_data_of_an_adopted_server_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch, there: list[str], sentence: str | None
) -> None:
    host = Mock(listing=lambda path: ["base"] if path.name in there else [])
    monkeypatch.setattr(hosts, "host", lambda _: host)
    db1, db2 = (
        (Server().named(name), replace(container(18), data=PurePosixPath("/srv", name))) for name in ("db1", "db2")
    )
    assert check_adopted_standby(db2, *db1) == ([sentence] if sentence else [])


def test_where_a_file_system_is_mounted() -> None:
    """It would be cloned beside it, onto another disk, and could not be moved into its place."""
    assert _is_mount_point(LocalHost(), PurePosixPath("/dev/shm"))
    assert not _is_mount_point(LocalHost(), PurePosixPath("/usr/bin"))
    assert not _is_mount_point(LocalHost(), PurePosixPath("/usr/nothing"))


DATA = PurePosixPath("/data")


def container(version: int | None) -> Placement:
    return Placement(
        address="docker://db2",
        data=DATA,
        binaries=DATA,
        port=5432,
        replication_host="db2",
        replication_sources=("samenet",),
        dsn="",
        server="",
        has_pg_tde=True,
        version=version,
        version_setting="host.docker",
        parameters={"unix_socket_directories": "/tmp"},
        in_container=True,
    )


@pytest.mark.parametrize(
    ("version", "holds", "refused"),
    [(18, b"18\n", False), (18, b"17\n", True), (None, b"17\n", False), (18, None, False), (18, b"soon", False)],
)
def test_programs_that_cannot_read_the_data_are_refused(
    monkeypatch: pytest.MonkeyPatch, version: int | None, holds: bytes | None, *, refused: bool
) -> None:
    files = {"tde-replication.json": b'{"stack": "stack", "name": "db2"}', "PG_VERSION": holds}
    monkeypatch.setattr(hosts, "host", lambda _: Mock(read=lambda path: files[path.name]))
    server = Server(host=Docker(docker="postgres")).named("db2")
    told = (
        "cluster.servers.db2.host.docker: this is PostgreSQL 18, and the data in /data is of 17, which it cannot read: set it "
        "back. A stack upgrades no server to another major version"
    )
    assert check_server(server, container(version), "stack", is_primary=False) == [told] * refused


def test_a_standby_is_of_its_primarys_version() -> None:
    sites = [container(version) for version in (17, 18, None, 17)]
    [told] = check_versions(["cluster.servers.db1", "cluster.servers.db2", "a", "b"], sites)
    assert told == (
        "cluster.servers.db2.host.docker: this is PostgreSQL 18, and the primary's is 17: a standby needs its primary's major "
        "version"
    )
    assert check_versions(["cluster.servers.db1", "a"], [container(None), container(18)]) == []
