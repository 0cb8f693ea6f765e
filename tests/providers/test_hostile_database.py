"""Statements of the superuser in somebody else's database: nothing of that person's ever runs, and nothing is kept from ending.

Traps are made of all that PostgreSQL and pg_tde have; then everything is asked and done that the project's code asks and does. So
what is added to the code later is tried too.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import psycopg
import pytest

from tde_replication import settings, unasked
from tde_replication.errors import Conflict, UserError
from tde_replication.hosts.placement import Placement
from tde_replication.postgres.base_backup import ClonedDirectory
from tde_replication.postgres.database_encryption import DatabaseEncryption
from tde_replication.postgres.encryption_proof import EncryptionProof
from tde_replication.postgres.extension import Extension
from tde_replication.postgres.hba_rule import HbaRule
from tde_replication.postgres.pg_tde import PROVIDERS, PgTde
from tde_replication.postgres.relations import of_database
from tde_replication.postgres.replication_check import ReplicationCheck
from tde_replication.postgres.replication_role import ReplicationRole
from tde_replication.postgres.replication_slot import ReplicationSlot
from tde_replication.postgres.session import server_session
from tde_replication.postgres.table_encryption import TableEncryption
from tde_replication.postgres.tables import Pattern
from tde_replication.postgres.wal_encryption import WalEncryption
from tde_replication.preflight import (
    adoption as preflight_adoption,
    clone as preflight_clone,
    keys as preflight_keys,
    ports as preflight_ports,
    server as preflight,
    tables as preflight_tables,
)
from tde_replication.status.declared import Declared, DeclaredServer
from tde_replication.status.model import Database
from tde_replication.status.observation import observe
from tests.providers.encrypted import NAMES, KeyStore, binding, check, key, provider
from tests.providers.servers import PASSWORD, STACK, Node, Servers, cost_of
from tests.providers.traps import OF_OWNER, OPTIONS, RAN, Attacker

PROOF = EncryptionProof("tde_status")


def place(data: PurePosixPath, binaries: PurePosixPath | str, port: int) -> Placement:
    return Placement(
        address="local", data=data, binaries=PurePosixPath(binaries), port=port, replication_host="127.0.0.1",
        replication_sources=(), dsn="", server="", has_pg_tde=True, version=18, version_setting="binaries", parameters={},
    )  # fmt: skip


class Cluster:
    def __init__(self, primary: Node, standby: Node, store: KeyStore) -> None:
        self.primary = primary
        self.standby = standby
        self.store = store
        self.round = 0
        self.missed: list[str] = []

    def log(self) -> str:
        return self.primary.log + self.standby.log

    def attacker(self, database: str) -> Attacker:
        connection = psycopg.connect(
            host="/tmp", port=self.primary.port, user="postgres", dbname=database, autocommit=True, options=OPTIONS
        )
        return Attacker(connection)

    def check(self) -> ReplicationCheck:
        return check(self.primary, self.standby).replace(database="app")

    def everything(self) -> None:
        """What reconcilers and preflight ask of a server and do to it, with names of their own for each round."""
        self.round += 1
        node, standby, number = self.primary, self.standby, self.round
        extension = Extension.model_validate({**node.inside, "database": "app"})
        vault = provider(node, self.store, database="app", provider=f"vault{number}")
        extension.create().read()
        vault.create().read()
        vault.update(vault)
        made = key(node, f"hostile{number}", database="app", provider=vault.provider)
        made.create().read()
        place = {"standbys": [("local", str(standby.data))], "slots": [self.check().slot]}
        for scope in ("server", "default"):
            bound = binding(node, scope, made.key, database="app", provider=vault.provider, adopted=True, **place)
            if (live := bound.read()) is None:
                bound.create()
            else:
                bound.update(live)
            assert bound.read() == bound
        made.update(made)
        proof = self.check()
        assert proof.create().read().streaming == "from its slot"
        assert proof.update(proof) == proof
        proof.delete()
        role = ReplicationRole.model_validate({**node.inside, "role": "hostile", "password": PASSWORD})
        role.create().read()
        node.rows("GRANT pg_monitor TO hostile")
        role.update(role.replace(member_of=["pg_monitor"], password_matches=False, connection_limit=7))
        assert role.read() == role
        rule = HbaRule.model_validate({**node.inside, "role": "hostile", "address": "192.0.2.7/32"})
        assert rule.create().read() == rule
        rule.delete()
        role.create().delete()
        slot = ReplicationSlot.model_validate({**node.inside, "slot": "tde_hostile", "stack": STACK})
        assert slot.create().read() == slot
        slot.delete()
        for server in (node.server, standby.server):
            running = server.read()
            assert running is not None
            server.update(running.replace(settings={}))
            cost_of(server, running)
        clone = standby.directory
        assert isinstance(clone, ClonedDirectory)
        assert clone.read() == clone
        cost_of(clone, None)
        refused = node.server.replace(settings=node.server.settings | {"work_mem": "lots"})
        with pytest.raises(UserError, match="work_mem"):
            refused.update(node.server.replace(settings={}))
        self.asked()
        wal = WalEncryption.model_validate(
            {**node.inside, "name": "db1", "binaries": str(node.server.binaries), "wal_encrypt": "off"}
        )
        assert wal.create().read() == wal
        vault.delete()
        extension.replace(ours=False).delete()

    def enforce(self) -> None:
        declared = settings.Cluster(enforce_encryption=True).database_settings
        enforced = DatabaseEncryption.model_validate({**self.primary.inside, "database": "app", "settings": declared})
        assert enforced.create().read() is not None
        enforced.update(enforced)
        cost_of(enforced, None)
        enforced.delete()

    def rewritten(self) -> None:
        """All tables there and back."""
        for encrypted in (True, False):
            pattern = Pattern(schema_name="*", table="*", encrypted=encrypted)
            tables = TableEncryption.model_validate({**self.primary.inside, "database": "app", "patterns": [pattern]})
            tables.update(tables.read())
            assert tables.read() == tables
            cost_of(tables, None)

    def asked(self) -> None:
        """What only asks."""
        self.preflight()
        self.status()

    def status(self) -> None:
        """The live state of both servers, and of each database, while it has an encrypted table."""
        document = {"database": "app", "encryption": "required"}
        servers = [
            DeclaredServer(name, name == "db1", place(node.data, node.server.binaries, node.port))
            for name, node in (("db1", self.primary), ("db2", self.standby))
        ]
        declared = Declared(
            Path("/"), "orders", settings.Cluster.model_validate(document), tuple(servers), None, "no Vault is asked"
        )
        with server_session(self.primary.host, self.primary.data, "test", "app") as session, PROOF.made(session):
            snapshot = observe(declared)
        assert [server.problem or server.encryption_problem for server in snapshot.servers] == ["", ""]
        [app, postgres] = snapshot.databases
        assert (app.problem, postgres.problem) == ("", "")
        assert app.encrypted_bytes > 0

    def preflight(self) -> None:
        """What is asked before a plan, of a server that is to be adopted and of a standby that is to be cloned."""
        node = self.primary
        document = {
            "database": "app",
            "databases": ["template1"],
            "primary": "db1",
            "servers": {"db1": {"adopt": True, "dataDirectory": str(node.data), "port": node.port}, "db2": {}},
        }
        cluster = settings.Cluster.model_validate(document)
        site, new = (
            place(data, node.server.binaries, node.port) for data in (node.data, node.data.parent / "new" / "data")
        )
        token = "/nosuch"
        with unasked.told(self.missed.append):
            told = preflight_adoption.check_adoption(cluster, site, token, in_force=True)
            assert "server key" in told[0]
            preflight.check_keys(cluster, site, NAMES, "", in_force=True)
            preflight_adoption.check_dependents(cluster, site, token, in_force=True)
            preflight_adoption.check_databases(cluster, site, in_force=True)
            preflight.check_failover(cluster.members, [site, new])
            preflight_adoption.adoption(cluster.primary_server, site, {"work_mem": "5MB"})
            preflight_ports.of_adopted(cluster, cluster.primary_server, site)
            db1, db2 = cluster.members
            preflight_clone.check_clones((db1.place, db1, site), [(db2.place, db2, new)])
            preflight_keys.check_keys_in_use(cluster, site, "another")
            preflight_keys.check_cipher(cluster, cluster.places, [site, new])
            preflight_keys.check_weaker_cipher(cluster, site, token)
            preflight_keys.notices_of_cipher(cluster, site)
            pattern = Pattern(schema_name="*", table="*", encrypted=True)
            preflight_tables.check_tables(site, cluster.primary_server, token, "app", [pattern])
        assert self.missed == []


@pytest.fixture(scope="module")
def cluster(root: Any, programs_with_pg_tde: Any, store: KeyStore) -> Iterator[Cluster]:
    servers = Servers(root, programs_with_pg_tde)
    try:
        primary = servers.primary("host1", shared_preload_libraries="pg_tde")
        store.equip(primary.host, primary.data, "primary")
        clone = servers.clone(primary, "host2")
        store.equip(primary.host, clone.path, "standby")
        standby = servers.on_clone(clone.create(), "host2", primary)
        primary.rows("CREATE ROLE mallory LOGIN PASSWORD 'x'; GRANT CREATE ON SCHEMA public TO mallory")
        primary.rows("GRANT CREATE ON DATABASE postgres TO mallory; GRANT USAGE ON LANGUAGE plpgsql TO mallory")
        primary.rows("CREATE DATABASE app OWNER mallory")
        yield Cluster(primary, standby, store)
    finally:
        servers.end()


@pytest.fixture(scope="module")
def trapped(cluster: Cluster) -> Cluster:
    """Traps in all places, among them of pg_tde's functions, and what an owner may set for his database."""
    Extension.model_validate({**cluster.primary.inside, "database": "app"}).create()
    with cluster.attacker("app") as owner:
        owner.owns("app")
        owner.plants_pg_tde(*OF_OWNER)
    with cluster.attacker("postgres") as guest:
        guest.visits()
    return cluster


def test_the_traps_work(trapped: Cluster) -> None:
    """In a session as anybody has it, they are what is run: also with pg_catalog first, where types match better."""
    for node in (trapped.primary, trapped.standby):
        for path, query in (
            ("postgres,pg_catalog", "SELECT * FROM pg_control_system()"),
            ("pg_catalog,postgres", "SELECT unnest(ARRAY['a'])"),
        ):
            before = node.log.count(RAN)
            with psycopg.connect(
                host="/tmp", port=node.port, user="postgres", dbname="postgres", options=f"-c search_path={path}"
            ) as session:
                session.execute(query.encode())
            assert node.log.count(RAN) > before, query


def test_nothing_of_somebody_elses_runs(trapped: Cluster) -> None:
    before = trapped.log().splitlines()
    trapped.everything()
    trapped.enforce()
    trapped.rewritten()
    assert {line for line in trapped.log().splitlines() if RAN in line}.difference(before) == set()


def test_a_schema_of_the_proofs_name_that_is_somebody_elses_is_refused(trapped: Cluster) -> None:
    proof, before = trapped.check(), trapped.log().count(RAN)
    schema = EncryptionProof(proof.slot).schema
    with trapped.attacker("app") as owner:
        owner.does(
            f"CREATE SCHEMA {schema}",
            f"CREATE VIEW {schema}.proof AS SELECT 42 AS content WHERE evil.sprung('proof')",
            f"GRANT ALL ON SCHEMA {schema} TO PUBLIC",
        )
        try:
            with pytest.raises(
                Conflict, match=f"schema {schema} in database app is owned by mallory, or others may use"
            ):
                proof.create()
            proof.delete()  # nor is it taken away
            assert owner.rows(f"SELECT 1 FROM pg_views WHERE schemaname = '{schema}'") == [(1,)]
        finally:
            owner.does(f"DROP SCHEMA {schema} CASCADE")
    assert trapped.log().count(RAN) == before


def test_an_event_trigger_with_somebody_elses_function_is_not_fired(trapped: Cluster) -> None:
    """pg_tde needs event triggers, and they run as the superuser."""
    node, proof = trapped.primary, EncryptionProof("triggers")
    with server_session(node.host, node.data, "the primary", "app") as primary:
        primary.rows(
            "CREATE FUNCTION evil.fire() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''fired''; END'"
        )
        primary.rows("CREATE ROLE another")
        primary.rows("ALTER FUNCTION evil.fire() OWNER TO another")
        primary.rows("CREATE EVENT TRIGGER other ON ddl_command_start EXECUTE FUNCTION evil.fire()")
        try:
            with pytest.raises(Conflict, match="event trigger other is owned by another"), proof.made(primary):
                pass
            assert not primary.row("SELECT 1 FROM pg_namespace WHERE nspname = %s", [proof.schema])
        finally:
            primary.rows("DROP EVENT TRIGGER other")
            primary.rows("DROP FUNCTION evil.fire()")
            primary.rows("DROP ROLE another")


def test_what_arrives_on_the_standby_is_looked_at_before_it_is_read(trapped: Cluster) -> None:
    proof, before = EncryptionProof("other"), trapped.log().count(RAN)
    node, standby = trapped.primary, trapped.standby
    with (
        server_session(node.host, node.data, "the primary", "app") as primary,
        server_session(standby.host, standby.data, "standby db2", "app") as replica,
        proof.made(primary),
    ):
        primary.rows(f"DROP TABLE {proof.schema}.proof".encode())  # type: ignore[arg-type]
        primary.rows(f"CREATE VIEW {proof.schema}.proof AS SELECT 42 AS content WHERE evil.sprung('proof')".encode())  # type: ignore[arg-type]
        trapped.check()._replayed(primary, replica)
        with pytest.raises(UserError, match="differs from the one made on the primary"):
            proof.check(primary, replica)
        primary.rows(f"DROP VIEW {proof.schema}.proof".encode())  # type: ignore[arg-type]
    assert trapped.log().count(RAN) == before


def test_a_schema_that_is_swapped_for_another_between_look_and_call(trapped: Cluster) -> None:
    """The owner of the schema that the extension is in may rename it, and put another in its place."""
    node, before = trapped.primary, trapped.log().count(RAN)
    with (
        trapped.attacker("app") as owner,
        server_session(node.host, node.data, "test", "app") as server,
        PROOF.made(server),
    ):
        tde = PgTde(server)
        owner.does("ALTER SCHEMA public RENAME TO was", "CREATE SCHEMA public")
        owner.plants_pg_tde("public")
        try:
            for name, arguments in (
                ("pg_tde_verify_server_key", []),
                ("pg_tde_delete_global_key_provider", ["vault1"]),
            ):
                with pytest.raises(
                    Conflict, match=f"{name} has become another function while it was called: it was not run"
                ):
                    tde.call(name, arguments)
            query = psycopg.sql.SQL("SELECT name FROM {}").format(tde.table(PROVIDERS))
            assert server.rows(query) == []
            live = Database.model_validate_json(server.value(of_database(tde, [])))
            assert (live.encrypted_bytes, live.unknown_bytes > 0) == (0, True)
            found = PgTde(server)  # which looks where it is now
            assert server.rows(psycopg.sql.SQL("SELECT name FROM {}").format(found.table(PROVIDERS))) != []
        finally:
            owner.does("DROP SCHEMA public CASCADE", "ALTER SCHEMA was RENAME TO public")
    assert trapped.log().count(RAN) == before


def test_names_of_proofs_differ_for_long_names_of_standbys() -> None:
    slots = [f"tde_{'x' * 50}{end}" for end in ("one", "two", "twothree")] + ["tde_db2"]
    schemas = [EncryptionProof(slot).schema for slot in slots]
    assert len(set(schemas)) == len(slots)
    assert all(len(schema) <= 63 for schema in schemas)
    assert schemas[-1] == "tde_replication_check_tde_db2"
