"""What the status asks a server: as a role that monitors, wherever that is enough."""

import psycopg
import pytest

from tde_replication.postgres.session import server_session
from tde_replication.status.model import Instance
from tde_replication.status.observation import _instance
from tde_replication.status.queries import INSTANCE, LABEL
from tests.providers.servers import Node, Servers


@pytest.fixture(scope="module")
def archiving(servers: Servers) -> Node:
    return servers.primary(archive_mode="on", archive_command="/bin/true")


def instance(node: Node) -> Instance:
    with server_session(node.host, node.data, "server db1") as session:
        return _instance(session)


def test_a_server_is_asked_as_a_role_that_monitors_and_no_more(archiving: Node) -> None:
    """A login role that has nothing but pg_monitor gets the same answer. Only a backup's label takes a superuser."""
    archiving.rows("CREATE ROLE watcher; GRANT pg_monitor TO watcher")
    with archiving.host.connect(archiving.data, "postgres") as session:
        session.execute(b"SET SESSION AUTHORIZATION watcher")
        [answer] = session.execute(INSTANCE.encode()).fetchone() or [""]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(LABEL.encode(), ["x"])
    by_watcher, ours = Instance.model_validate_json(answer), instance(archiving)
    changing = {"uptime", "lsn_bytes", "archiver"}
    assert by_watcher.model_dump(exclude=changing) == ours.model_dump(exclude=changing)
    assert ours.system_identifier == archiving.directory.system_identifier
    archiving.rows("DROP ROLE watcher")


def test_our_own_session_is_that_role_while_it_asks(archiving: Node) -> None:
    class Stop(Exception):
        pass

    with server_session(archiving.host, archiving.data, "server db1") as session:
        real = session.value

        def value(query: object, parameters: object = ()) -> object:
            del query, parameters
            raise Stop(real("SELECT current_user::text"))

        session.value = value  # type: ignore[method-assign]
        with pytest.raises(Stop, match="pg_monitor"):
            _instance(session)
        assert real("SELECT current_user::text") == "postgres"


def test_the_newest_base_backup_is_seen_where_wal_is_archived(archiving: Node) -> None:
    assert instance(archiving).last_backup is None
    for label in ("weekly", "nightly: it's here"):
        with archiving.host.connect(archiving.data, "postgres") as session:
            session.execute(b"SELECT pg_backup_start(%s, true)", [label])
            session.execute(b"SELECT pg_backup_stop()")
    found = instance(archiving).last_backup
    assert found
    assert found.label == "nightly: it's here"
    assert 0 <= found.age < 60


def test_a_clone_says_in_the_record_of_backups_what_it_was(archiving: Node, servers: Servers) -> None:
    """So that nobody takes it for a backup that can be restored."""
    servers.clone(archiving).create()
    found = instance(archiving).last_backup
    assert found
    assert (found.label or "").endswith(", a base backup of db1")
    assert (found.label or "").startswith("tde-replication: ")
