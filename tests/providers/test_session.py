"""A superuser's session: bent by nothing that a server, a database, a role or the caller's environment sets."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.pq import Conninfo

from tde_replication.errors import NoDatabase, SqlError, Unavailable, UserError
from tde_replication.hosts import superuser
from tde_replication.postgres import session as sessions
from tde_replication.postgres.parameters import reload_configuration
from tde_replication.postgres.replication_role import ReplicationRole
from tde_replication.postgres.session import server_session
from tde_replication.progress import reported_to
from tests.providers.servers import PASSWORD, Node, Servers


@pytest.fixture(scope="module")
def node(servers: Servers) -> Iterator[Node]:
    """A server of this module's own, for settings that hold for all of it."""
    made = servers.primary("bent")
    yield made
    made.stop()


@contextmanager
def by_hand(node: Node, database: str = "postgres") -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(host="/tmp", port=node.port, user="postgres", dbname=database, autocommit=True) as connection:
        yield connection


def role(node: Node, **fields: str) -> ReplicationRole:
    return ReplicationRole.model_validate({**node.inside, "role": "bending", "password": PASSWORD} | fields)


HOSTILE = {
    "PGHOSTADDR": "192.0.2.1",
    "PGSERVICE": "nosuch",
    "PGSERVICEFILE": "/nosuch",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGREQUIREPEER": "nobody-at-all",
    "PGTARGETSESSIONATTRS": "standby",
    "PGOPTIONS": "-c search_path=evil",
    "PGTZ": "no/such",
    "PGDATESTYLE": "nosuch",
    "PGGEQO": "perhaps",
    "PGCHANNELBINDING": "require",
    "PGCLIENTENCODING": "nosuch",
    "PGREQUIRESSL": "1",
    "PGUSER": "nobody",
    "PGCONNECT_TIMEOUT": "-1",
    "PGMINPROTOCOLVERSION": "9.9",
    "PGLOADBALANCEHOSTS": "perhaps",
}


@pytest.mark.parametrize("name", sorted({*HOSTILE, *superuser.ENVIRONMENT}))
def test_the_callers_environment_leads_nowhere_else(node: Node, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, HOSTILE.get(name, "nonsense"))
    assert node.value("SELECT current_user") == "postgres"
    assert name not in os.environ


def test_all_that_libpq_reads_is_known() -> None:
    assert {option.envvar.decode() for option in Conninfo.get_defaults() if option.envvar} <= superuser.ENVIRONMENT


def test_settings_of_server_role_and_database_do_not_reach_it(node: Node) -> None:
    with by_hand(node) as connection:
        for statement in (
            "ALTER SYSTEM SET default_transaction_read_only = on",
            "ALTER SYSTEM SET statement_timeout = '1ms'",
            "ALTER SYSTEM SET session_preload_libraries = 'nosuch'",
            "ALTER ROLE postgres SET datestyle = 'SQL, DMY'",
            "ALTER ROLE postgres SET role = pg_monitor",
            "ALTER ROLE postgres SET timezone = 'Asia/Kathmandu'",
            "ALTER ROLE postgres SET client_min_messages = error",
            "ALTER ROLE postgres SET exit_on_error = on",
            "ALTER ROLE postgres SET standard_conforming_strings = off",
            "ALTER DATABASE postgres SET local_preload_libraries = 'nosuch'",
            "ALTER DATABASE postgres SET default_transaction_isolation = serializable",
            "ALTER DATABASE postgres SET search_path = nowhere",
            "ALTER DATABASE postgres SET lock_timeout = '1ms'",
        ):
            connection.execute("SET default_transaction_read_only = off; SET statement_timeout = 0")
            connection.execute(statement.encode())
    with node.host.connect(node.data, "postgres") as connection:
        try:
            reload_configuration(sessions.Session(connection, "test"))
            with node.host.connect(node.data, "postgres") as clean:
                for name, value in superuser.SETTINGS.items():
                    found = clean.execute("SELECT current_setting(%s)", [name]).fetchone()
                    assert found is not None
                    assert found[0].partition(", MDY")[0].replace("60s", "1min") == value.replace("60s", "1min"), name
                with pytest.raises(psycopg.errors.UndefinedTable):
                    clean.execute("SELECT 1 FROM nosuch")
                assert clean.execute(
                    "SELECT now()"
                ).fetchone()  # a time in a style that psycopg cannot read would not be
            made = role(node, valid_until="2099-01-02 00:00:00+00").create()
            live = made.read()
            assert live is not None
            assert {name: getattr(live, name) for name in made.changed(live)} == {}
            made.delete()
        finally:
            for statement in (
                "ALTER SYSTEM RESET ALL",
                "ALTER ROLE postgres RESET ALL",
                "ALTER DATABASE postgres RESET ALL",
            ):
                connection.execute(statement.encode())
            node.server.update(node.server.replace(settings={}))


def test_a_trigger_at_login_does_not_reach_it(node: Node) -> None:
    node.rows("CREATE TABLE logins (n int)")
    node.rows(
        "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.logins VALUES (1); END'"
    )
    node.rows("CREATE EVENT TRIGGER at_login ON login EXECUTE FUNCTION note()")
    node.rows("ALTER EVENT TRIGGER at_login ENABLE ALWAYS")
    try:
        with by_hand(node) as connection:
            assert connection.execute("SELECT count(*) FROM logins").fetchone() == (1,)
            assert role(node).read() is None
            assert connection.execute("SELECT count(*) FROM logins").fetchone() == (1,)
    finally:
        node.rows("DROP EVENT TRIGGER at_login; DROP FUNCTION note; DROP TABLE logins")


def test_a_lock_that_does_not_come_is_told_with_who_holds_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = role(node)
    made = declared.create()
    monkeypatch.setitem(superuser.SETTINGS, "lock_timeout", "2s")
    monkeypatch.setattr(sessions, "WAIT_SECONDS", 0.2)
    said: list[str] = []
    try:
        with by_hand(node) as other, other.transaction():
            other.execute("SET application_name = 'somebody''s'")
            other.execute("ALTER ROLE bending CONNECTION LIMIT 5")
            pid = other.info.backend_pid
            with (
                pytest.raises(SqlError) as told,
                reported_to(lambda text, kept: said.append(text) if not kept else None),
            ):
                declared.update(made.replace(connection_limit=7))
        holder = f"process {pid} (somebody's, user postgres) holds it since 20"
        assert f"replication role bending: did not get a lock within 30 s: {holder}" in str(told.value)
        assert str(told.value).endswith("UTC. End that transaction, and run this again")
        assert any(text.startswith(f"replication role bending: waits for a lock: {holder}") for text in said)
    finally:
        made.delete()


def test_a_statement_has_an_end_and_a_long_one_a_later_one(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(superuser.SETTINGS, "statement_timeout", "200ms")
    with server_session(node.host, node.data, "test") as server:
        with pytest.raises(UserError, match="test: the server did not finish this within 60 s: look at its load"):
            server.rows("SELECT pg_sleep(5)")
        with server.within(5, locks=3):
            server.rows("SELECT pg_sleep(0.4)")
            assert server.value("SHOW lock_timeout") == "3s"
        assert server.value("SHOW lock_timeout") == "30s"
        with pytest.raises(UserError, match="did not finish"):
            server.rows("SELECT pg_sleep(5)")


def test_a_server_that_answers_no_more_is_given_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped (SIGSTOP), or cut off without a word: no timeout of its own ends that."""
    monkeypatch.setattr(superuser, "GRACE_SECONDS", 0.1)
    with server_session(node.host, node.data, "test") as server:
        server.connection.limit = 0.2
        with pytest.raises(Unavailable, match="test: the server has not answered for 0 s"):
            server.rows("SELECT pg_sleep(30)")
        assert server.connection.closed


def test_a_server_that_sends_a_little_now_and_then_is_given_up_too(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superuser, "GRACE_SECONDS", 0.1)
    with server_session(node.host, node.data, "test") as server:
        server.connection.limit = 0.4
        with pytest.raises(Unavailable, match=r"test: the server has not answered for \d s"):
            server.rows("SELECT repeat('x', 10000), pg_sleep(0.02) FROM generate_series(1, 1000)")


def test_no_sentence_is_longer_than_a_person_reads(node: Node) -> None:
    with server_session(node.host, node.data, "test") as server, pytest.raises(SqlError) as told:
        server.rows("SELECT repeat('long ', 100000)::int")
    assert 'invalid input syntax for type integer: "long long ' in str(told.value)
    assert len(str(told.value)) < 5000


def test_a_statement_without_rows_has_none_and_one_that_is_wrong_is_no_such_statement(node: Node) -> None:
    with server_session(node.host, node.data, "test") as server:
        assert server.rows("SET work_mem = '5MB'") == []
        assert server.rows("SELECT 1 WHERE false") == []
        assert server.value("SHOW work_mem") == "5MB"
        with pytest.raises(UserError, match="placeholders"):
            server.rows("SELECT %s, %s", [1])
        with pytest.raises(SqlError, match="syntax error"):
            server.rows("SELEKT")
        assert server.value("SELECT 1") == 1


def test_a_server_without_a_database_postgres(node: Node) -> None:
    with by_hand(node, "template1") as connection:
        connection.execute("CREATE DATABASE apart TEMPLATE template0")
        connection.execute("DROP DATABASE postgres WITH (FORCE)")
        try:
            made = role(node).create()
            assert made.read() == made
            made.delete()
            with (
                pytest.raises(NoDatabase, match="has no database postgres"),
                server_session(node.host, node.data, "test", "postgres"),
            ):
                pass
        finally:
            connection.execute("ALTER DATABASE apart RENAME TO postgres")


@pytest.mark.parametrize(
    ("directory", "told"),
    [
        (".", None),
        ("@tde-replication-test", "has no socket in a directory: set unix_socket_directories, and restart it"),
        ("", "has no socket in a directory: set unix_socket_directories, and restart it"),
    ],
    ids=["relative", "abstract", "none"],
)
def test_where_a_server_of_somebody_elses_has_its_socket(servers: Servers, directory: str, told: str | None) -> None:
    """A relative directory counts from the data directory; a session by peer authentication needs a socket that is a file."""
    node = servers.primary("sockets")
    node.stop()
    with node.file("postgresql.auto.conf").open("a") as file:
        file.write(f"unix_socket_directories = '{directory}'\n")
    start = [
        f"{node.server.binaries}/pg_ctl",
        "start",
        "--wait",
        "--pgdata",
        str(node.data),
        "--log",
        f"{node.data}/log",
    ]
    node.host.run(start, deadline=30)
    if told is None:
        assert node.value("SHOW unix_socket_directories") == "."
    else:
        with pytest.raises(Unavailable, match=told):
            node.rows("SELECT 1")
    node.stop()
