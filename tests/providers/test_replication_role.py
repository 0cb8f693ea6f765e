"""The replication role: made, taken over, drifted, repaired, refused, taken away; its password seen by nobody."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tde_replication.errors import Conflict, UserError
from tde_replication.postgres.parameters import reload_configuration
from tde_replication.postgres.replication_role import ReplicationRole
from tde_replication.postgres.session import Session
from tests.providers.servers import PASSWORD, Node

NAMES = [
    "tested",
    "Mixed Case",
    'say "hi"',
    "50%s",
    "back\\slash",
    "it's",
    "$(id)",
    "ünï→",
    "a.b",
    "x" * 63,
    "é" * 31,
]


def role(primary: Node, name: str = "tested", **fields: Any) -> ReplicationRole:
    return ReplicationRole.model_validate({**primary.inside, "role": name, "password": PASSWORD} | fields)


@pytest.fixture
def declared(primary: Node) -> Iterator[ReplicationRole]:
    made = role(primary)
    yield made
    primary.rows("DROP ROLE IF EXISTS tested")


def logs_in(primary: Node, name: str, password: str) -> bool:
    """By password over TCP, to whatever pg_hba lets in."""
    try:
        with psycopg.connect(
            host="127.0.0.1", port=primary.port, user=name, password=password, dbname="postgres", connect_timeout=10
        ):
            return True
    except psycopg.OperationalError:
        return False


def drift(declared: ReplicationRole) -> set[str]:
    live = declared.read()
    assert live is not None
    return declared.changed(live)


@pytest.mark.parametrize("name", NAMES)
def test_from_nothing_to_nothing(primary: Node, name: str) -> None:
    declared = role(primary, name)
    assert declared.read() is None
    made = declared.create()
    assert made.ours
    assert made.read() == made
    assert logs_in(primary, name, PASSWORD)
    assert declared.create() == made  # taken over: an interrupted run's work
    declared.update(declared.replace(password_matches=False))
    assert made.read() == made
    made.delete()
    assert declared.read() is None
    made.delete()


@pytest.mark.parametrize(
    ("behind_our_back", "field", "shown"),
    [
        ("ALTER ROLE tested NOLOGIN", "attributes", ["REPLICATION"]),
        ("ALTER ROLE tested NOREPLICATION", "attributes", ["LOGIN"]),
        ("ALTER ROLE tested SUPERUSER", "attributes", ["LOGIN", "REPLICATION", "SUPERUSER"]),
        ("ALTER ROLE tested CREATEDB CREATEROLE", "attributes", ["CREATEDB", "CREATEROLE", "LOGIN", "REPLICATION"]),
        ("ALTER ROLE tested BYPASSRLS", "attributes", ["BYPASSRLS", "LOGIN", "REPLICATION"]),
        ("ALTER ROLE tested PASSWORD 'by-hand'", "password_matches", False),
        ("ALTER ROLE tested PASSWORD NULL", "password_matches", False),
        ("ALTER ROLE tested CONNECTION LIMIT 0", "connection_limit", 0),
        ("ALTER ROLE tested VALID UNTIL '2001-01-01 UTC'", "valid_until", "2001-01-01 00:00:00+00"),
        ("GRANT pg_read_all_data TO tested", "member_of", ["pg_read_all_data"]),
    ],
)
def test_drift_is_found_and_repaired(
    primary: Node, declared: ReplicationRole, behind_our_back: str, field: str, shown: object
) -> None:
    declared.create()
    primary.rows(behind_our_back)
    live = declared.read()
    assert live is not None
    assert declared.changed(live) == {field}
    assert getattr(live, field) == shown
    declared.update(live)
    assert drift(declared) == set()
    assert logs_in(primary, "tested", PASSWORD)


def test_nothing_waits_for_a_synchronous_standby_that_is_down(primary: Node, declared: ReplicationRole) -> None:
    primary.rows("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    try:
        with primary.host.connect(primary.data, "postgres") as connection:
            assert connection.execute("SHOW synchronous_commit").fetchone() == ("local",)
            reload_configuration(Session(connection, "test"))
        made = declared.create()
        assert made.read() == made
    finally:
        primary.rows("ALTER SYSTEM RESET synchronous_standby_names")
        with primary.host.connect(primary.data, "postgres") as connection:
            reload_configuration(Session(connection, "test"))


def test_membership_in_a_role_whose_name_needs_quotes(primary: Node, declared: ReplicationRole) -> None:
    group = 'The "Readers"'
    primary.rows(sql.SQL("CREATE ROLE {}").format(sql.Identifier(group)))
    try:
        declared.create()
        primary.rows(sql.SQL("GRANT {} TO tested").format(sql.Identifier(group)))
        live = declared.read()
        assert live is not None
        assert live.member_of == [group]
        declared.update(live)
        assert drift(declared) == set()
    finally:
        primary.rows(sql.SQL("DROP ROLE {}").format(sql.Identifier(group)))


def test_membership_granted_by_somebody_else(primary: Node, declared: ReplicationRole) -> None:
    """A plain REVOKE by another than the grantor does nothing but warn."""
    primary.rows("CREATE ROLE readers; CREATE ROLE granting; GRANT readers TO granting WITH ADMIN OPTION")
    try:
        declared.create()
        primary.rows("SET ROLE granting; GRANT readers TO tested")
        live = declared.read()
        assert live is not None
        declared.update(live)
        assert drift(declared) == set()
    finally:
        primary.rows("DROP ROLE IF EXISTS tested; DROP ROLE readers; DROP ROLE granting")


def test_another_password_is_set(primary: Node, declared: ReplicationRole) -> None:
    old = declared.create()
    new = role(primary, password="another")
    new.update(old)
    assert logs_in(primary, "tested", "another")
    assert not logs_in(primary, "tested", PASSWORD)


def test_the_role_of_another_stack_is_left_to_it(primary: Node, declared: ReplicationRole) -> None:
    first, second = (declared.replace(stack=f"tde-replication/{name}/{name}") for name in ("one", "two"))
    first.create()
    with pytest.raises(Conflict, match="it belongs to another stack \\(tde-replication/one/one\\)"):
        role(primary, password="another", stack=second.stack).create()
    assert logs_in(primary, "tested", PASSWORD)
    assert first.create().ours
    assert (first.maker, second.maker) == (first.stack, first.stack)
    primary.rows("COMMENT ON ROLE tested IS 'made by tde-replication: standbys log in as this role'")
    assert second.maker == second.stack  # as it was written before it said whose


def test_a_dropped_role_is_gone(primary: Node, declared: ReplicationRole) -> None:
    declared.create()
    primary.rows("DROP ROLE tested")
    assert declared.read() is None


def test_a_role_that_was_here_before_is_taken_over_and_left_on_destroy(
    primary: Node, declared: ReplicationRole
) -> None:
    primary.rows("CREATE ROLE tested REPLICATION LOGIN")
    made = declared.create()
    assert not made.ours
    assert logs_in(primary, "tested", PASSWORD)
    made.delete()
    assert declared.read() is not None


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("ALTER ROLE tested SUPERUSER", "SUPERUSER"),
        ("ALTER ROLE tested CREATEDB BYPASSRLS", "BYPASSRLS, CREATEDB"),
        ("GRANT pg_read_all_data TO tested", "member of pg_read_all_data"),
    ],
)
def test_a_role_that_can_do_more_is_refused_and_left_as_it_is(
    primary: Node, declared: ReplicationRole, more: str, told: str
) -> None:
    primary.rows("CREATE ROLE tested REPLICATION LOGIN PASSWORD 'its own'")
    primary.rows(more)
    before = primary.rows("SELECT * FROM pg_authid WHERE rolname = 'tested'")
    with pytest.raises(Conflict) as refused:
        declared.create()
    assert f"({told})" in str(refused.value)
    assert primary.rows("SELECT * FROM pg_authid WHERE rolname = 'tested'") == before


@pytest.mark.parametrize(
    ("database", "made", "told"),
    [
        ("apart", "CREATE TABLE its_own (); ALTER TABLE its_own OWNER TO tested", "table public.its_own"),
        ("postgres", "ALTER DATABASE apart OWNER TO tested", "database apart"),
        (
            "apart",
            "CREATE SCHEMA one AUTHORIZATION tested; CREATE TABLE its_own (); GRANT ALL ON its_own TO tested",
            "schema one",
        ),
    ],
)
def test_a_role_that_owns_something_is_not_dropped_and_the_way_on_is_told(
    primary: Node, declared: ReplicationRole, database: str, made: str, told: str
) -> None:
    role = declared.create()
    primary.rows("CREATE DATABASE apart")
    try:
        primary.rows(made, database=database)
        with pytest.raises(Conflict) as refused:
            role.delete()
        assert f"the role owns {told} (seen from database {database}), and is not dropped: nothing was" in str(
            refused.value
        )
        assert 'REASSIGN OWNED BY "tested" TO postgres' in str(refused.value)
        assert "\n" not in str(refused.value)
        assert drift(declared) == set()
        primary.rows("REASSIGN OWNED BY tested TO postgres", database=database)
        role.delete()
        assert declared.read() is None
    finally:
        primary.rows("DROP DATABASE apart")


def test_what_others_granted_the_role_goes_with_it(primary: Node, declared: ReplicationRole) -> None:
    """In any database, by anybody: else its destroy and replacement would be in their hands."""
    role = declared.create()
    primary.rows("CREATE ROLE owner_of_apart")
    primary.rows("CREATE DATABASE apart OWNER owner_of_apart")
    for statement in (
        "SET ROLE owner_of_apart; CREATE TABLE mine (n int); GRANT SELECT ON mine TO tested",
        "SET ROLE owner_of_apart; CREATE TABLE second (n int); CREATE POLICY p ON second TO tested USING (true)",
        "GRANT CONNECT ON DATABASE apart TO tested; GRANT SET ON PARAMETER work_mem TO tested",
        "ALTER DEFAULT PRIVILEGES FOR ROLE owner_of_apart GRANT SELECT ON TABLES TO tested",
        "ALTER DEFAULT PRIVILEGES FOR ROLE tested GRANT SELECT ON TABLES TO PUBLIC",
        "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE USER MAPPING FOR tested SERVER s",
    ):
        primary.rows(statement, database="apart")
    primary.rows("CREATE TABLE also (n int); GRANT SELECT ON also TO tested")
    try:
        role.delete()
        assert declared.read() is None
        assert primary.rows("SELECT n FROM mine", database="apart") == []
    finally:
        primary.rows("DROP DATABASE apart")
        primary.rows("DROP TABLE also; DROP ROLE owner_of_apart")


def test_a_database_that_takes_no_connections_is_told(primary: Node, declared: ReplicationRole) -> None:
    role = declared.create()
    primary.rows("CREATE DATABASE apart")
    primary.rows("CREATE TABLE mine (n int); GRANT SELECT ON mine TO tested", database="apart")
    primary.rows("ALTER DATABASE apart ALLOW_CONNECTIONS false")
    try:
        with pytest.raises(UserError, match="database apart takes no connections: run ALTER DATABASE apart ALLOW_CONN"):
            role.delete()
        primary.rows("ALTER DATABASE apart ALLOW_CONNECTIONS true")
        role.delete()
    finally:
        primary.rows("DROP DATABASE apart")


def test_another_clusters_server_is_refused(primary: Node) -> None:
    with pytest.raises(UserError, match="is another cluster"):
        role(primary, system_identifier="1").read()


def test_the_servers_log_holds_neither_password_nor_verifier(primary: Node, declared: ReplicationRole) -> None:
    """With log_statement = all, durations, and every error told in full."""
    mark = len(primary.log)
    made = declared.create()
    verifier = primary.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'tested'")
    role(primary, password="Another-Password").update(made)
    second = primary.value("SELECT rolpassword FROM pg_authid WHERE rolname = 'tested'")
    with pytest.raises(UserError) as told:
        role(primary, valid_until="never-ever", password="Third-Password").update(made)
    log = primary.log[mark:]
    assert "CREATE ROLE" in log or "COMMENT ON ROLE" in log or "set_config" in log  # the log does hold what was done
    for secret in (PASSWORD, "Another-Password", "Third-Password", verifier, second, "SCRAM-SHA-256$"):
        assert secret not in log
        assert secret not in str(told.value)
    assert PASSWORD not in repr(made)
