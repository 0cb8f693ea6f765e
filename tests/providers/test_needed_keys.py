"""Which keys open a server's data, and what was set aside beside it: read on its machine, where no server runs."""

from pathlib import PurePosixPath

from tde_replication.hosts.local.machine import LocalHost
from tde_replication.needed_keys.reading import of_server
from tde_replication.status.declared import DeclaredServer
from tests.providers.servers import Servers
from tests.providers.test_hostile_database import place
from tests.unit.test_needed_keys import head, scopes, wal_head


def test_of_a_server_its_directory_and_what_was_set_aside(servers: Servers) -> None:
    host, data = LocalHost(), PurePosixPath(servers.place("keys")) / "data"
    server = DeclaredServer("db1", is_primary=True, placement=place(data, "/usr/bin", 5432))
    [absent] = of_server(server)
    assert absent.problem == "there is no data directory"
    for path, content in {
        "data/pg_tde/16402_keys": head("app"),
        "data/pg_tde/wal_keys": wal_head("new"),
        "data/pg_tde/1663_keys": head("new"),
        "data/pg_tde/1664_providers": b"no key file",
        "data.set-aside-20261120T091200/pg_tde/wal_keys": wal_head("old"),
        "data.set-aside-20261121T091200/PG_VERSION": b"18",
        "database/pg_tde/wal_keys": wal_head("of another"),
    }.items():
        host.write(data.parent / path, content, mode=0o600)
    now, aside, clear = of_server(server)
    assert (now.use, scopes(now)) == ("in use", [("server", "new"), ("default", "new"), ("database", "app")])
    assert (aside.path, scopes(aside)) == (f"{data}.set-aside-20261120T091200", [("server", "old")])
    assert (clear.use, clear.keys, clear.problem) == ("set aside", (), "")
    host.remove(data / "pg_tde" / "16402_keys")
    host.make_directory(data / "pg_tde" / "16402_keys")
    assert "pg_tde/16402_keys: not a key file" in of_server(server)[0].problem
