"""Tables that are encrypted where they are, and brought back: on the contract double and a real OpenBao."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import psycopg
import pytest

from tde_replication import settings
from tde_replication.errors import Conflict, UserError
from tde_replication.hosts.placement import Placement
from tde_replication.postgres import table_rewrite
from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.session import server_session
from tde_replication.postgres.table_encryption import TableEncryption
from tde_replication.postgres.tables import Pattern, survey
from tde_replication.preflight import tables as preflight
from tde_replication.progress import reported_to
from tde_replication.waiting import until
from tests.providers.encrypted import KeyStore, encrypted_server, here
from tests.providers.servers import Node, Servers, cost_of, text_of


@pytest.fixture(scope="module")
def node(root: Path, programs_with_pg_tde: Path, store: KeyStore) -> Iterator[Node]:
    cluster = Servers(root, programs_with_pg_tde)
    try:
        yield encrypted_server(cluster, store, "tables")
    finally:
        cluster.end()


@pytest.fixture(autouse=True)
def schema(node: Node) -> Iterator[None]:
    node.rows("CREATE SCHEMA shop")
    yield
    node.rows("DROP SCHEMA shop CASCADE")


def pattern(text: str, *, encrypted: bool = True) -> Pattern:
    schema, table = text.split(".")
    return Pattern(schema_name=schema, table=table, encrypted=encrypted)


def declared(node: Node, *patterns: Pattern) -> TableEncryption:
    return TableEncryption.model_validate({**here(node), "patterns": list(patterns)})


def methods(node: Node) -> dict[str, str]:
    """By name, with a star where the files are encrypted."""
    return dict(
        node.rows(
            "SELECT relname::text, coalesce(amname::text, '') || CASE WHEN pg_tde_is_encrypted(c.oid) THEN '*' ELSE '' END "
            "FROM pg_class AS c LEFT JOIN pg_am AS a ON a.oid = relam "
            "WHERE relnamespace = 'shop'::regnamespace AND relkind IN ('r', 'm', 'p')"
        )
    )


def here_and(node: Node, **declared: Any) -> tuple[Placement, settings.Server, str]:
    """What preflight is told of a primary."""
    place = Placement(
        address="local", data=node.data, binaries=PurePosixPath(node.server.binaries), port=node.port,
        replication_host="127.0.0.1", replication_sources=(), dsn="", server="", has_pg_tde=True, version=18,
        version_setting="binaries", parameters={},
    )  # fmt: skip
    return place, settings.Server.model_validate(declared).named("db1"), "/nosuch"


def test_there_and_back(node: Node) -> None:
    """Every kind of table; names as people may choose them; what matches no pattern, or an earlier one, is left alone."""
    node.rows(
        "CREATE TABLE shop.plain (id serial PRIMARY KEY, t text); INSERT INTO shop.plain (t) SELECT repeat('x', 9000);"
        "CREATE UNLOGGED TABLE shop.unlogged (n int);"
        "CREATE MATERIALIZED VIEW shop.sums AS SELECT count(*) FROM shop.plain;"
        "CREATE TABLE shop.done (n int) USING tde_heap; CREATE TABLE shop.log_1 (n int); CREATE TABLE shop.logs (n int);"
        'CREATE TABLE shop."It\'s ""a"" 100% täble.;" (n int); CREATE SEQUENCE shop.free; CREATE TEMP TABLE shop (n int)'
    )
    wanted = declared(node, pattern("shop.log_*", encrypted=False), pattern("shop.*"))
    odd = '"It\'s ""a"" 100% täble.;"'
    live = wanted.read()
    assert live.to_encrypt == sorted([f"shop.{odd}", "shop.logs", "shop.plain", "shop.sums", "shop.unlogged"])
    assert wanted.changed(live) == {"to_encrypt"}
    cost = cost_of(wanted, None)
    assert cost
    assert cost.kind == "rewrite"
    assert cost.text.startswith("encrypts 5 tables (")
    assert "in database postgres, each locked (ACCESS EXCLUSIVE) while it is rewritten: shop.plain (" in cost.text
    assert cost.text.endswith("; sequences that no table owns stay in clear: shop.free")
    told: list[str] = []
    with reported_to(lambda text, _: told.append(text)):
        made = wanted.create()
    assert wanted.changed(made) == set()
    assert made.read() == made
    assert cost_of(wanted, made) is None
    assert told[0].startswith("tables of postgres: shop.")
    assert ", 1 of 5, " in told[0]
    assert "shop.plain, 5 of 5, " in told[4]
    assert told[-1].startswith("tables of postgres: 5 tables (")
    assert told[-1].endswith(") are encrypted")
    everything = {"plain", "unlogged", "sums", "done", "logs", 'It\'s "a" 100% täble.;'}
    assert methods(node) == dict.fromkeys(everything, "tde_heap*") | {"log_1": "heap"}

    node.rows("CREATE TABLE shop.late (n int)")
    live = made.read()
    assert live.to_encrypt == ["shop.late"]
    made.update(live)
    assert made.read() == made

    made.delete()
    assert methods(node)["plain"] == "tde_heap*"
    back = declared(node, pattern("*.*", encrypted=False))
    live = back.read()
    assert len(live.to_decrypt) == 7
    assert text_of(cost_of(back, live)).startswith("decrypts 7 tables (")
    back.update(live)
    assert back.read() == back
    assert set(methods(node).values()) == {"heap"}


def test_what_was_made_encrypted_and_yet_is_in_clear(node: Node) -> None:
    """Where somebody had switched off the event triggers."""
    node.rows("SET event_triggers = off; CREATE TABLE shop.t USING tde_heap AS SELECT 7 AS n")
    assert methods(node) == {"t": "tde_heap"}
    wanted = declared(node, pattern("shop.*"))
    assert wanted.read().to_encrypt == ["shop.t"]
    wanted.create()
    assert methods(node) == {"t": "tde_heap*"}
    assert node.value("SELECT n FROM shop.t") == 7


def test_parents_and_children(node: Node) -> None:
    """pg_tde alters no parent of which a part is encrypted; and with enforce_encryption, no partitioned table."""
    node.rows(
        "CREATE TABLE shop.p (n int) PARTITION BY RANGE (n);"
        "CREATE TABLE shop.p1 PARTITION OF shop.p FOR VALUES FROM (0) TO (9);"
        "CREATE TABLE shop.p2 PARTITION OF shop.p FOR VALUES FROM (9) TO (99) PARTITION BY RANGE (n);"
        "CREATE TABLE shop.p21 PARTITION OF shop.p2 FOR VALUES FROM (9) TO (19);"
        "CREATE TABLE shop.up (n int); CREATE TABLE shop.down (m int) INHERITS (shop.up); INSERT INTO shop.up SELECT 1"
    )
    everything = {"p", "p1", "p2", "p21", "up", "down"}
    wanted = declared(node, pattern("shop.*"))
    node.rows("ALTER DATABASE postgres SET pg_tde.enforce_encryption = on")
    try:
        wanted.create()
        assert {name: method.rstrip("*") for name, method in methods(node).items()} == dict.fromkeys(
            everything, "tde_heap"
        )
        assert wanted.read() == wanted
        node.rows("CREATE TABLE shop.p3 PARTITION OF shop.p FOR VALUES FROM (99) TO (999)")
        assert methods(node)["p3"] == "tde_heap*"
        declared(node, pattern("shop.*", encrypted=False)).create()
        assert set(methods(node).values()) == {"heap"}
    finally:
        node.rows("ALTER DATABASE postgres RESET pg_tde.enforce_encryption")

    node.rows("ALTER TABLE shop.p1 SET ACCESS METHOD tde_heap; ALTER TABLE shop.down SET ACCESS METHOD tde_heap")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="on a mix of encrypted and unencrypted"):
        node.rows("ALTER TABLE shop.p SET ACCESS METHOD tde_heap")
    assert wanted.create().read().to_encrypt == []
    found = methods(node)
    assert found.pop("up") == "heap"
    assert {method.rstrip("*") for method in found.values()} == {"tde_heap"}
    _, [notice] = preflight.check_tables(*here_and(node), "postgres", wanted.patterns)
    assert notice.startswith(
        "shop.up of database postgres stays as it is: tables below it are encrypted, and others are not"
    )


def test_a_locked_table_keeps_nobody_waiting(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are done; who holds the lock is told; and once it is free, the next run goes on."""
    monkeypatch.setattr(table_rewrite, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(table_rewrite, "ROUNDS", 1)
    node.rows("CREATE TABLE shop.held (n int); CREATE TABLE shop.larger AS SELECT generate_series(1, 9999) AS n")
    wanted = declared(node, pattern("shop.*"))
    with node.host.connect(node.data, "postgres") as holder:
        holder.execute("BEGIN; SELECT * FROM shop.held")
        with pytest.raises(
            UserError,
            match=r"did not get a lock within 3 s: process \d+ .* holds it since .*\(shop.held\)\. 1 of 2 tables are rewritten",
        ):
            wanted.create()
        assert methods(node) == {"held": "heap", "larger": "tde_heap*"}
        holder.execute("ROLLBACK; BEGIN; LOCK TABLE shop.held, shop.larger")
        assert wanted.read().to_encrypt == ["shop.held"]  # which waits for no lock
        assert "shop.held (" in text_of(cost_of(wanted, None))
        holder.execute("ROLLBACK")
    wanted.create()
    assert methods(node) == {"held": "tde_heap*", "larger": "tde_heap*"}


def slow(node: Node, seconds: int) -> None:
    """Have each row of an index take so long."""
    node.rows(
        "CREATE OR REPLACE FUNCTION shop.slow(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS "
        f"'BEGIN PERFORM pg_catalog.pg_sleep({seconds}); RETURN n; END'"
    )


RUN = """
import sys
from tde_replication.postgres import table_encryption, table_rewrite
table_rewrite.SETTINGS["client_connection_check_interval"] = "100ms"
table_encryption.TableEncryption.model_validate_json(sys.stdin.read()).create()
"""
REWRITTEN = "SELECT 1 FROM pg_locks WHERE relation = 'shop.b'::regclass AND mode = 'AccessExclusiveLock' AND granted"


def test_a_run_that_is_killed_in_the_middle(node: Node) -> None:
    """Each table is as it was or done; the server ends the rewrite that nobody waits for, and the next run does the rest."""
    slow(node, 0)
    node.rows("CREATE TABLE shop.a (n int); CREATE TABLE shop.b AS SELECT generate_series(1, 30) AS n")
    node.rows("CREATE INDEX ON shop.b (shop.slow(n))")
    slow(node, 60)
    wanted = declared(node, pattern("shop.*"))
    run = subprocess.Popen([sys.executable, "-c", RUN], stdin=subprocess.PIPE, text=True)
    assert run.stdin
    run.stdin.write(wanted.model_dump_json(by_alias=True))
    run.stdin.close()
    assert until(lambda: node.rows(REWRITTEN) != [], seconds=20)
    run.kill()
    run.wait()
    assert until(lambda: node.rows(REWRITTEN) == [], seconds=10)
    live = wanted.read()
    assert live.to_encrypt == ["shop.b"]
    slow(node, 0)
    wanted.update(live)
    assert methods(node) == {"a": "tde_heap*", "b": "tde_heap*"}
    assert node.value("SELECT count(*) FROM shop.b") == 30


def test_nothing_of_the_owner_runs_as_the_superuser(node: Node) -> None:
    """Functions of indexes run as the owner, who cannot get out of that; all others do not run."""
    node.rows("CREATE ROLE shopkeeper; GRANT ALL ON SCHEMA shop TO shopkeeper")
    try:
        with node.host.connect(node.data, "postgres") as owner:
            for statement in OWNED:
                owner.execute(statement.encode())
        before = len(node.log)
        declared(node, pattern("shop.*")).create()
        declared(node, pattern("shop.*", encrypted=False)).create()
        lines = [line for line in node.log[before:].splitlines() if "LOG:" in line and "SPY" in line]
        assert {line.partition("SPY ")[2] for line in lines} == {
            "index: shopkeeper, held",
            "predicate: shopkeeper, held",
            "of view: shopkeeper, held",
        }
    finally:
        node.rows("DROP OWNED BY shopkeeper CASCADE; DROP ROLE shopkeeper")


OWNED = (
    "SET SESSION AUTHORIZATION shopkeeper",
    """CREATE FUNCTION shop.spy(what text, n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    BEGIN
        PERFORM pg_catalog.set_config('role', 'postgres', false);
        RAISE LOG 'SPY %: %, at large', what, current_user;
    EXCEPTION WHEN OTHERS THEN
        RAISE LOG 'SPY %: %, held', what, current_user;
    END;
    RETURN n; END $$""",
    "CREATE DOMAIN shop.domain AS int CHECK (shop.spy('domain', VALUE) > 0)",
    """CREATE TABLE shop.t (n int NOT NULL CHECK (shop.spy('check', n) > 0), d shop.domain,
    g int GENERATED ALWAYS AS (shop.spy('generated', n)) STORED, f int DEFAULT shop.spy('default', 1))""",
    "CREATE FUNCTION shop.fires() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM shop.spy(''trigger'', 1); RETURN NEW; END'",
    "INSERT INTO shop.t VALUES (1, 1)",
    "CREATE TRIGGER fires BEFORE INSERT OR UPDATE ON shop.t FOR EACH ROW EXECUTE FUNCTION shop.fires()",
    "CREATE INDEX ON shop.t (shop.spy('index', n))",
    "CREATE INDEX ON shop.t (n) WHERE shop.spy('predicate', n) > 0",
    "CREATE STATISTICS shop.s ON (shop.spy('statistics', n)), n FROM shop.t",
    "CREATE POLICY p ON shop.t USING (shop.spy('policy', n) > 0)",
    "ALTER TABLE shop.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "CREATE MATERIALIZED VIEW shop.v AS SELECT shop.spy('view', 1) AS n",
    "CREATE INDEX ON shop.v (shop.spy('of view', n))",
)


def test_an_event_trigger_of_somebody_elses_is_not_fired(node: Node) -> None:
    node.rows(
        "CREATE ROLE mallory; CREATE TABLE shop.t (n int);"
        "CREATE FUNCTION shop.fire() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''fired''; END';"
        "ALTER FUNCTION shop.fire() OWNER TO mallory;"
        "CREATE EVENT TRIGGER other ON ddl_command_start EXECUTE FUNCTION shop.fire()"
    )
    try:
        with pytest.raises(
            Conflict, match="the function of event trigger other is owned by mallory, who is not a superuser"
        ):
            declared(node, pattern("shop.*")).create()
        assert methods(node) == {"t": "heap"}
    finally:
        node.rows("SET event_triggers = off; DROP EVENT TRIGGER other")
        node.rows("DROP FUNCTION shop.fire(); DROP ROLE mallory")


def test_a_rewrite_that_does_not_encrypt_is_taken_back(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.rows("CREATE TABLE shop.t (n int)")
    monkeypatch.setattr(PgTde, "is_encrypted", lambda *_: False)
    with pytest.raises(UserError, match=r"shop\.t is not encrypted after its rewrite, which was taken back"):
        declared(node, pattern("shop.*")).create()
    assert methods(node) == {"t": "heap"}


def test_a_standby_that_is_behind_does_not_lose_its_slot(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_rewrite, "PACE_SECONDS", 0.1)
    node.rows("CREATE TABLE shop.t AS SELECT generate_series(1, 60000) AS n")
    wanted = declared(node, pattern("shop.*"))
    node.rows("SELECT pg_create_physical_replication_slot('behind', true)")
    node.rows("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    node.rows("SELECT pg_reload_conf()")
    try:
        _, [notice] = preflight.check_tables(*here_and(node), "postgres", wanted.patterns)
        assert "shop.t of database postgres writes about " in notice
        assert "of WAL while it is rewritten, and slots may hold 1.0 MiB" in notice
        node.rows("SELECT pg_switch_wal(); SELECT pg_logical_emit_message(false, 'x', 'x', true)")
        with pytest.raises(
            UserError, match=r"replication slot behind has room for .* the slot would be lost\. 0 of 1 tables"
        ):
            wanted.create()
        assert methods(node) == {"t": "heap"}
    finally:
        node.rows("SELECT pg_drop_replication_slot('behind')")
        node.rows("ALTER SYSTEM RESET max_slot_wal_keep_size")
        node.rows("SELECT pg_reload_conf()")


def test_a_table_that_the_disk_has_no_room_for_is_refused(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.rows("CREATE TABLE shop.t AS SELECT generate_series(1, 9999) AS n")
    patterns = [pattern("shop.*")]
    assert preflight.check_tables(*here_and(node), "postgres", patterns) == ([], [])
    _, [notice] = preflight.check_tables(*here_and(node, adopt=True), "postgres", patterns)
    assert notice.startswith("encrypts 1 table (")
    monkeypatch.setattr(preflight, "free_bytes", lambda *_: 2**16)
    [mistake], _ = preflight.check_tables(*here_and(node), "postgres", patterns)
    assert mistake.startswith("cluster.tables: shop.t of database postgres takes another ")
    assert f"and only 64 KiB are free in {node.data} on db1. Nothing is changed" in mistake
    assert preflight.check_tables(*here_and(node), "nowhere", patterns) == ([], [])


def test_a_database_without_the_extension_shows_what_would_be_encrypted(node: Node) -> None:
    node.rows("CREATE DATABASE later")
    node.rows("CREATE TABLE public.t (n int)", database="later")
    try:
        with server_session(node.host, node.data, "test", "later") as server:
            found: Any = survey(server, [pattern("public.*")])
        assert [table.name for table in found.to_encrypt] == ["public.t"]
    finally:
        node.rows("DROP DATABASE later")
