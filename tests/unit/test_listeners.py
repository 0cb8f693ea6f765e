"""Who listens on a port, as a machine's kernel says it."""

from pathlib import PurePosixPath
from unittest.mock import Mock

import pytest

from tde_replication import hosts
from tde_replication.host_settings import Ssh
from tde_replication.hosts.listeners import HOLDER, Holder, Listener, holder, listener, same_directory
from tde_replication.hosts.placement import Placement
from tde_replication.preflight.ports import taken
from tde_replication.settings import Server

TABLES = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:D431 00000000:0000 0A 00000000:00000000 00:00000000 00000000   108        0 4711 1 0000 100 0 0 10 0
   1: 070200C0:D432 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000 100 0 0 10 0
   2: 0100007F:D433 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000 100 0 0 10 0
  sl  local_address                         remote_address                        st
   0: 00000000000000000000000001000000:D434 00000000000000000000000000000000:0000 0A 0:0 00:0 0 33 0 4714 1
   1: 00000000000000000000000000000000:D435 00000000000000000000000000000000:0000 0A 0:0 00:0 0 33 0 4715 1
   2: junk
   3: x:y z 0A 0:0 00:0 0 33 0 4715 1
"""
DATA = PurePosixPath("/srv/pg/data")


def machine(told: str = "", made: bytes | None = None) -> Mock:
    def run(command: list[str], **_: object) -> str:
        return told if HOLDER in command else TABLES

    return Mock(run=run, postmaster=Mock(return_value=None), read=Mock(return_value=made))


@pytest.mark.parametrize(
    ("listen", "port", "inode"),
    [
        (["127.0.0.1"], 0xD431, "4711"),
        (["localhost"], 0xD431, "4711"),
        (["*"], 0xD431, "4711"),
        (["192.0.2.8", "192.0.2.7"], 0xD432, "4712"),
        (["127.0.0.1"], 0xD432, ""),
        (["127.0.0.1"], 0xD433, ""),  # a connection
        (["::1"], 0xD434, "4714"),
        (["127.0.0.1"], 0xD435, "4715"),  # of all addresses
        (["no-such.invalid"], 0xD431, ""),
        (["*"], 5432, ""),
    ],
)
def test_what_is_in_the_way(listen: list[str], port: int, inode: str) -> None:
    found = listener(machine(), listen, port)
    assert (found.inode if found else "") == inode


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("www-data\n", "a process of the account www-data"),
        ("postgres\n71\nredis-server\n/\n", "redis-server (process 71 of postgres)"),
        ("postgres\n71\npostgres\n/srv/a\n", "postgres (process 71 of postgres, data directory /srv/a)"),
        ("postgres\n71\n", "a process of the account postgres"),  # it ended meanwhile
        ("", "a process of the account 33"),
    ],
)
def test_who_it_is(told: str, shown: str) -> None:
    assert str(holder(machine(told), Listener("::", 1, "33", "4715"))) == shown


def test_a_server_whose_directory_was_removed_under_it_is_known() -> None:
    for directory, same in ((f"{DATA} (deleted)", True), (str(DATA), True), ("/srv/pg", False), ("", False)):
        assert same_directory(Holder("postgres", "1", "postgres", directory), DATA) is same


def site() -> Placement:
    return Placement(
        address="ssh://db2",
        data=DATA,
        binaries=DATA,
        port=0xD431,
        replication_host="db2",
        replication_sources=(),
        dsn="",
        server="",
        has_pg_tde=True,
        version=18,
        version_setting="host.version",
    )


@pytest.mark.parametrize(
    ("directory", "marker", "refused"),
    [
        ("/srv/theirs", None, True),
        ("/srv/theirs", b'{"stack": "s", "name": "db3"}', True),
        ("/srv/former", b'{"stack": "s", "name": "db2"}', False),  # it moves from there
        (f"{DATA} (deleted)", None, False),
    ],
)
def test_the_holder_of_a_port_is_told_by_ssh_too(
    monkeypatch: pytest.MonkeyPatch, directory: str, marker: bytes | None, *, refused: bool
) -> None:
    host = machine(f"postgres\n71\npostgres\n{directory}\n", marker)
    monkeypatch.setattr(hosts, "host", lambda _: host)
    server = Server(host=Ssh(ssh="db2"), listen=["*"]).named("db2")
    by = f"postgres (process 71 of postgres, data directory {directory})"
    told = f"cluster.servers.db2.port: {0xD431} is in use on 127.0.0.1, by {by}: stop that, or name another port"
    assert taken(server, site(), "s", is_primary=False) == [told] * refused


def test_the_same_stack_of_another_checkout_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its markers say the same as ours would."""
    host = machine("postgres\n71\npostgres\n/srv/theirs\n", b'{"stack": "s", "name": "db1"}')
    monkeypatch.setattr(hosts, "host", lambda _: host)
    [told] = taken(Server(host=Ssh(ssh="db2"), listen=["*"]).named("db1"), site(), "s", is_primary=True)
    assert told.startswith(
        f"cluster.servers.db1.port: {0xD431} is in use on 127.0.0.1, by postgres (process 71 of postgres, data "
    )
    assert "which is db1 of a stack with the same name: another checkout's (destroy that, or name another port)" in told
