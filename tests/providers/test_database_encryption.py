"""New tables of a database: encrypted by default, refused in clear, shown where they are in clear all the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tde_replication.postgres.database_encryption import FOUND, TABLES_SHOWN, DatabaseEncryption
from tde_replication.postgres.extension import Extension
from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.relations import of_database
from tde_replication.postgres.session import server_session
from tde_replication.postgres.tables import Pattern
from tde_replication.progress import reported_to
from tde_replication.settings import Cluster
from tde_replication.status.model import Database
from tde_replication.values import DEFAULT_METHOD, ENFORCE
from tests.providers.servers import Node, Servers, cost_of, text_of

ENFORCED = Cluster(enforce_encryption=True).database_settings
BY_DEFAULT = Cluster(default_table_access_method="tde_heap").database_settings
REFUSED = "enforce_encryption is ON, only the tde_heap access method is allowed"
SET = "SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setrole = 0 ORDER BY 1"


@pytest.fixture(scope="module")
def node(root: Path, programs_with_pg_tde: Path) -> Iterator[Node]:
    """With keys in a file: what is tried here asks no Vault."""
    servers = Servers(root, programs_with_pg_tde)
    made = servers.primary("crypt", shared_preload_libraries="pg_tde")
    made.rows("CREATE ROLE boss LOGIN")
    made.rows("CREATE DATABASE app OWNER boss")
    Extension.model_validate({**made.inside, "database": "app"}).create()
    made.rows("SELECT pg_tde_add_global_key_provider_file('file', 'keyring')", database="app")
    for call in ("create_key", "set_default_key"):
        made.rows(f"SELECT pg_tde_{call}_using_global_key_provider('orders', 'file')", database="app")
    yield made
    servers.end()


@pytest.fixture(autouse=True)
def nothing_left(node: Node) -> Iterator[None]:
    yield
    node.rows("ALTER DATABASE app RESET ALL; ALTER ROLE boss RESET ALL")


def declared(node: Node, settings: dict[str, str] = ENFORCED, database: str = "app") -> DatabaseEncryption:
    return DatabaseEncryption.model_validate({**node.inside, "database": database, "settings": settings})


def anybody(node: Node, *statements: str, user: str = "postgres", database: str = "app") -> list[Any]:
    """What a session says that sets nothing itself; nothing of it stays."""
    with psycopg.connect(host="/tmp", port=node.port, user="postgres", dbname=database) as session:
        session.execute(f"SET SESSION AUTHORIZATION {user}".encode())
        rows: list[Any] = []
        for statement in statements:
            cursor = session.execute(statement.encode())
            rows = cursor.fetchall() if cursor.description else []
        session.rollback()
        return rows


def test_new_tables_are_encrypted_and_others_refused(node: Node) -> None:
    assert declared(node).create().read() == declared(node)
    made = "CREATE TABLE one (a serial)", "CREATE MATERIALIZED VIEW two AS SELECT 1"
    assert anybody(
        node, *made, "SELECT pg_tde_is_encrypted('one'), pg_tde_is_encrypted('one_a_seq'), pg_tde_is_encrypted('two')"
    ) in ([(True, True, True)], [(True, False, True)])  # the double does not encrypt sequences
    for refused in (
        "CREATE TABLE one (a int) USING heap",
        "CREATE TABLE one USING heap AS SELECT 1",
        "CREATE MATERIALIZED VIEW one USING heap AS SELECT 1",
        "CREATE TABLE one (a int); ALTER TABLE one SET ACCESS METHOD heap",
    ):
        with pytest.raises(psycopg.Error, match=REFUSED):
            anybody(node, refused)
    # In a database without the extension, as ever.
    assert anybody(node, "CREATE TABLE one (a int)", "SHOW default_table_access_method", database="postgres") == [
        ("heap",)
    ]


def test_what_the_owner_of_the_database_can_change_and_what_not(node: Node) -> None:
    """docs/security.md says it."""
    wanted = declared(node).create()
    for refused in (
        f"ALTER DATABASE app SET {ENFORCE} = off",
        f"SET {ENFORCE} = off",
        f"ALTER ROLE boss SET {ENFORCE} = off",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            anybody(node, refused, user="boss")
    node.rows("SET SESSION AUTHORIZATION boss; ALTER DATABASE app RESET ALL")
    live = wanted.read()
    assert live
    assert live.settings == {ENFORCE: "on"}
    with pytest.raises(psycopg.Error, match=REFUSED):
        anybody(node, "CREATE TABLE one (a int)")
    wanted.update(live)
    assert wanted.read() == wanted


def test_drift_is_found_and_repaired_and_what_was_there_before_is_given_back(node: Node) -> None:
    node.rows(f"ALTER DATABASE app SET {DEFAULT_METHOD} = heap")
    wanted = declared(node)
    live = wanted.read()
    assert live
    assert live.settings == {DEFAULT_METHOD: "heap"}
    wanted.create()
    wanted.create()  # after an `up` that was killed, nobody takes the stack's own value for that of before
    assert wanted.read() == wanted
    node.rows(f"ALTER DATABASE app RESET {ENFORCE}; ALTER DATABASE app SET {DEFAULT_METHOD} = heap")
    live = wanted.read()
    assert live
    assert wanted.changed(live) == {"settings"}
    assert cost_of(wanted, live) is None
    wanted.update(live)
    assert wanted.read() == wanted
    # Another spelling is the same.
    node.rows(f"ALTER DATABASE app SET {ENFORCE} = true")
    assert wanted.read() == wanted
    # Less is declared: what is not, is as it was.
    less = declared(node, BY_DEFAULT)
    less.update(wanted)
    assert less.read() == less
    assert {name.partition("=")[0] for (name,) in node.rows(SET)} == {DEFAULT_METHOD, FOUND}
    for _ in "12":
        less.delete()
        assert node.rows(SET) == [(f"{DEFAULT_METHOD}=heap",)]


def test_what_was_as_declared_before_the_stack_stays_and_so_does_what_somebody_has_set_since(node: Node) -> None:
    node.rows(f"ALTER DATABASE app SET {ENFORCE} = on")
    wanted = declared(node).create()
    node.rows(f"ALTER DATABASE app SET {DEFAULT_METHOD} = heap")
    wanted.delete()
    assert node.rows(SET) == [(f"{DEFAULT_METHOD}=heap",), (f"{ENFORCE}=on",)]


@pytest.mark.parametrize("note", ["no JSON", "[1]", '{"work_mem": "1GB", "default_table_access_method": 7}'])
def test_a_note_that_somebody_has_changed_sets_nothing(node: Node, note: str) -> None:
    wanted = declared(node).create()
    node.rows(f"ALTER DATABASE app SET {FOUND} = '{note}'")
    wanted.create()
    wanted.delete()
    assert not [name for (name,) in node.rows(SET) if "work_mem" in name or FOUND in name]


def test_a_change_is_made_whole_or_not_at_all(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    real = DatabaseEncryption._alter

    def failing(self: Any, server: Any, name: str, value: str | None) -> None:
        if name == DEFAULT_METHOD:
            raise RuntimeError("killed")
        real(self, server, name, value)

    monkeypatch.setattr(DatabaseEncryption, "_alter", failing)
    with pytest.raises(RuntimeError):
        declared(node).create()
    assert node.rows(SET) == []


def test_tables_in_clear_are_shown_and_left(node: Node) -> None:
    wanted = declared(node).create()
    in_clear = (
        f"SET {ENFORCE} = off",
        'CREATE TABLE "Odd ""one""" (a int) USING heap',
        "CREATE MATERIALIZED VIEW view USING heap AS SELECT 1",
        "CREATE TEMPORARY TABLE temporary (a int) USING heap",
        "CREATE SEQUENCE free",
        "CREATE TABLE crypt (a int)",
        # Of which pg_tde learns nothing.
        "SET event_triggers = off",
        "CREATE TABLE overlooked (a int) USING tde_heap",
    )
    with psycopg.connect(host="/tmp", port=node.port, user="postgres", dbname="app", autocommit=True) as session:
        for statement in in_clear:
            session.execute(statement.encode())
    try:
        live = wanted.read()
        assert live
        assert live.tables_in_clear == ['public."Odd ""one"""', "public.overlooked", "public.view"]
        assert wanted.changed(live) == {"tables_in_clear"}
        cost = cost_of(wanted, live)
        assert cost
        assert cost.kind == "by hand"
        assert text_of(cost).startswith(
            'database app: in clear: public."Odd ""one""", public.overlooked, public.view. `up` encrypts only '
        )
        with server_session(node.host, node.data, "test", "app") as server:
            found = Database.model_validate_json(server.value(of_database(PgTde(server), [])))
        assert (found.clear_table_count, found.free_sequences) == (3, 1)
        told: list[str] = []
        with reported_to(lambda text, _: told.append(text)):
            wanted.update(live)
        assert told == [text_of(cost)]
        assert wanted.read() == live
        # A pattern that declares one of them in clear, before another one that does not.
        patterns = [pattern('Odd "*', encrypted=False), pattern("view", encrypted=True), pattern("v*", encrypted=False)]
        of_tables = wanted.replace(patterns=patterns)
        assert not wanted.changed(of_tables)
        assert of_tables.stores(wanted)
        assert of_tables.read() == of_tables.replace(tables_in_clear=["public.overlooked", "public.view"])
        with server_session(node.host, node.data, "test", "app") as server:
            found = Database.model_validate_json(server.value(of_database(PgTde(server), patterns)))
        assert (found.clear_table_count, found.declared_clear_count) == (2, 1)
        assert {one.name for one in found.clear_tables} == {"public.overlooked", "public.view"}
        # With less declared, nobody wants to know.
        assert declared(node, BY_DEFAULT).read() == declared(node, BY_DEFAULT).replace(tables_in_clear=[])
        for statement in (
            'ALTER TABLE "Odd ""one""" SET ACCESS METHOD tde_heap',
            "ALTER MATERIALIZED VIEW view SET ACCESS METHOD tde_heap",
            "DROP TABLE overlooked",
        ):
            node.rows(statement, database="app")
        assert wanted.read() == wanted
    finally:
        node.rows(
            'DROP TABLE IF EXISTS "Odd ""one""", crypt, overlooked; DROP MATERIALIZED VIEW view; DROP SEQUENCE free',
            database="app",
        )


def pattern(table: str, *, encrypted: bool) -> Pattern:
    return Pattern(schema_name="*", table=table, encrypted=encrypted)


def test_of_many_tables_their_number_is_shown(node: Node) -> None:
    wanted = declared(node)
    node.rows(
        f"DO $$BEGIN FOR i IN 0..{TABLES_SHOWN} LOOP EXECUTE 'CREATE TABLE t' || i || ' ()'; END LOOP; END$$",
        database="app",
    )
    try:
        live = wanted.read()
        assert live
        assert live.tables_in_clear == [f"{TABLES_SHOWN + 1} tables"]
        declared_so = wanted.replace(patterns=[pattern("t1*", encrypted=False)])
        live = declared_so.read()
        assert live
        assert live.tables_in_clear == sorted(
            f"public.t{n}" for n in range(TABLES_SHOWN + 1) if not f"{n}".startswith("1")
        )
    finally:
        node.rows(
            f"DO $$BEGIN FOR i IN 0..{TABLES_SHOWN} LOOP EXECUTE 'DROP TABLE t' || i; END LOOP; END$$", database="app"
        )


def test_what_outranks_it_for_a_role_is_shown_and_left(node: Node) -> None:
    wanted = declared(node).create()
    node.rows(f"ALTER ROLE boss IN DATABASE app SET {ENFORCE} = off; ALTER ROLE boss SET {DEFAULT_METHOD} = heap")
    node.rows(
        f"ALTER ROLE postgres IN DATABASE app SET {ENFORCE} = true; ALTER ROLE boss IN DATABASE postgres SET {ENFORCE} = off"
    )
    try:
        live = wanted.read()
        assert live
        assert live.outranked == [f"{ENFORCE} is off for role boss", f"{DEFAULT_METHOD} is heap for role boss"]
        assert wanted.changed(live) == {"outranked"}
        assert "which overrides the database's value: `up` does not change it" in text_of(cost_of(wanted, live))
        wanted.update(live)
        assert wanted.read() == live
    finally:
        for role, database in (("boss", "app"), ("postgres", "app"), ("boss", "postgres")):
            node.rows(f"ALTER ROLE {role} IN DATABASE {database} RESET ALL")


def test_where_the_database_or_the_extension_is_gone_another_resource_tells(node: Node) -> None:
    assert declared(node, database="nowhere").read() is None
    declared(node, database="nowhere").delete()
    without = declared(node, database="postgres").replace(tables_in_clear=["public.known"])
    live = without.read()
    assert live
    assert live.tables_in_clear == ["public.known"]
    assert live.settings == {}


def test_a_database_that_is_made_takes_the_extension_of_template1_and_it_is_ours(node: Node) -> None:
    template, other = (
        Extension.model_validate({**node.inside, "database": name}) for name in ("template1", "of a template")
    )
    try:
        assert template.create().read() == template
        made = other.create()
        assert made.ours
        made.delete()
        assert other.read() is None
        template.delete()
        assert template.read() is None
    finally:
        node.rows('DROP DATABASE "of a template"')
