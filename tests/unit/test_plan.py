"""What a cluster is to be, by its settings and faked facts: nothing is asked, nothing is registered, and Pulumi is not loaded."""

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from tde_replication import stack_file
from tde_replication.cluster_plan import ClusterPlan
from tde_replication.decision import Facts, decide, declared_key, vault_of
from tde_replication.hosts.placement import Placement, PlacementContext
from tde_replication.member import Occupied, Standby
from tde_replication.plan import context_of
from tde_replication.preflight.cluster import _used_twice
from tde_replication.vault.address import VaultAddress
from tde_replication.vault.key_age import NewestKey

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 30, 9, tzinfo=UTC)
ADDRESS = VaultAddress("https://vault.example.net", None, None)
SOCKETS = {"unix_socket_directories": "/run"}


def placed(name: str, port: int, **more: Any) -> Placement:
    fields: dict[str, Any] = {
        "address": "local",
        "data": PurePosixPath("/srv", name, "data"),
        "binaries": PurePosixPath("/usr/lib/postgresql/18/bin"),
        "replication_host": "127.0.0.1",
        "replication_sources": (),
        "dsn": "",
        "server": "PostgreSQL 18.6",
        "has_pg_tde": True,
        "version": 18,
        "version_setting": "binaries",
        "parameters": SOCKETS,
    }
    return Placement(**(fields | more), port=port)


def planned(
    servers: Mapping[str, Any],
    places: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    name: str = "orders",
    newest: NewestKey | None = None,
    address: VaultAddress = ADDRESS,
    **declared: Any,
) -> ClusterPlan:
    """The plan of a cluster with primary db1; `places` says what is different about where a server lives."""
    cluster = stack_file.parse("test", {"primary": "db1", "servers": servers, **declared})
    context = context_of("shop", "orders", name, cluster)
    placements = {
        one.name: placed(one.name, cluster.port(one, context.named(one.name)), **(places or {}).get(one.name, {}))
        for one in cluster.members
    }
    facts = Facts(placements, newest or declared_key(context, cluster), NOW)
    return decide(context, cluster, vault_of(cluster, address), facts)


OF_ALL = {
    "max_slot_wal_keep_size": "4GB",
    "pg_tde.cipher": "aes_128",
    "shared_preload_libraries": "pg_tde",
}
OF_OWN = {**OF_ALL, **SOCKETS, "listen_addresses": "127.0.0.1"}
DB1 = {**OF_OWN, "port": "54321", "cluster_name": "db1"}
DB2 = {
    **OF_OWN,
    "port": "54322",
    "cluster_name": "db2",
    "primary_slot_name": "tde_db2",
    "wal_retrieve_retry_interval": "1s",
}


def contained(name: str, published: int) -> dict[str, Any]:
    """What is different about a server in a container."""
    return {
        "address": f"docker://tde-orders-{name}",
        "replication_host": f"tde-orders-{name}",
        "replication_sources": ("samenet",),
        "in_container": True,
        "published": published,
        "parameters": {"unix_socket_directories": "/tmp"},
    }


def streaming(plan: ClusterPlan, name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """A standby's parameters but for the connection, and the connection's."""
    own = dict(plan.member(name).parameters)
    return own, conninfo_to_dict(own.pop("primary_conninfo"))


def test_a_primary_and_a_standby() -> None:
    plan = planned({"db1": {}, "db2": {}})
    assert plan.primary.parameters == DB1
    own, connection = streaming(plan, "db2")
    assert own == DB2
    assert {name: connection[name] for name in ("host", "port", "user", "passfile", "application_name")} == {
        "host": "127.0.0.1",
        "port": "54321",
        "user": "replicator",
        "passfile": "/srv/db2/orders.pgpass",
        "application_name": "db2",
    }
    assert "dbname" not in connection


def test_a_standby_of_a_standby_streams_from_that_and_is_a_clone_of_the_primary() -> None:
    plan = planned({"db1": {}, "db2": {"upstream": "db3"}, "db3": {}})
    db2, db3 = plan.member("db2"), plan.member("db3")
    assert isinstance(db2, Standby)
    assert streaming(plan, "db2")[1]["port"] == str(db3.placement.port)
    assert db2.source.port == plan.primary.placement.port
    assert plan.upstream(db2) is db3
    assert plan.downstream == [db3, db2]


def test_only_a_standby_that_is_declared_so_replays_late() -> None:
    plan = planned({"db1": {}, "db2": {"applyDelay": "1h"}, "db3": {}})
    late = {one.name: one.parameters.get("recovery_min_apply_delay") for one in plan.members}
    assert late == {"db1": None, "db2": "1h", "db3": None}


def test_an_adopted_server_keeps_what_is_no_matter_of_replication_and_gets_all_back() -> None:
    adopted = {"db1": {"adopt": True, "port": 5432, "dataDirectory": "/srv/db1/data"}, "db2": {}}
    plan = planned(adopted, walEncryption=True, synchronous={})
    assert plan.primary.parameters == OF_ALL
    assert plan.primary.given_back == {
        **OF_ALL,
        "pg_tde.wal_encrypt": "on",
        "synchronous_standby_names": 'ANY 1 ("db2")',
    }
    assert plan.primary.removed_files == ("orders.restore-drill.json",)
    assert plan.member("db2").given_back == {}
    assert plan.member("db2").removed_files == ("orders.vault-token", "orders.pgpass", "orders.restore-drill.json")


def test_an_adopted_server_that_is_a_standby_now_gives_back_how_it_streams_too() -> None:
    restart = {"adopt": True, "restart": "allowed", "port": 5432, "dataDirectory": "/srv/db1/data"}
    plan = planned({"db1": restart, "db2": {}}, primary="db2")
    own, connection = streaming(plan, "db1")
    assert own == {**OF_ALL, "primary_slot_name": "tde_db1", "wal_retrieve_retry_interval": "1s"}
    assert connection["port"] == "54322"
    assert plan.member("db1").given_back == plan.member("db1").parameters
    assert plan.member("db1").removed_files == ("orders.pgpass", "orders.restore-drill.json")


def test_without_pg_tde_nothing_is_kept_for_it() -> None:
    adopted = {"db1": {"adopt": True, "port": 5432, "dataDirectory": "/srv/db1/data"}, "db2": {}}
    plan = planned(adopted, encryption="off", walEncryption=True, cipher="aes_256")
    assert plan.primary.parameters == plan.primary.given_back == {"max_slot_wal_keep_size": "4GB"}
    assert plan.primary.removed_files == ("orders.vault-token", "orders.restore-drill.json")
    assert plan.reason == "the stack file says encryption: off"


def test_a_container_decides_its_own_sockets_and_occupies_a_port_of_dockerd() -> None:
    host = {"host": {"docker": "postgres:18"}, "binaries": "/bin"}
    plan = planned({"db1": host, "db2": host}, {"db1": contained("db1", 20001), "db2": contained("db2", 20002)})
    own, connection = streaming(plan, "db2")
    assert own == DB2 | {"unix_socket_directories": "/tmp", "listen_addresses": "*"}
    assert connection["host"] == "tde-orders-db1"
    assert plan.member("db2").occupies == [Occupied("dockerd", "port", 20002)]
    local = planned({"db1": {}}).primary
    assert local.occupies == [Occupied("local", "port", 54321), Occupied("local", "dataDirectory", "/srv/db1/data")]


def test_a_persons_values_outrank_defaults_and_are_outranked_by_what_replication_needs() -> None:
    own = {"shared_preload_libraries": "auto_explain", "wal_retrieve_retry_interval": "7s", "max_connections": 300}
    plan = planned({"db1": {}, "db2": {"settings": own}, "db3": {"settings": {"max_connections": 200}}})
    parameters = {one.name: one.parameters for one in plan.members}
    assert parameters["db2"]["shared_preload_libraries"] == "auto_explain,pg_tde"
    assert [parameters[name]["wal_retrieve_retry_interval"] for name in ("db2", "db3")] == ["7s", "1s"]
    # A switchover must not change it: whoever has none of its own has the highest, which may be its primary's one day.
    assert [parameters[name]["max_connections"] for name in ("db1", "db2", "db3")] == ["300", "300", "200"]


def test_a_standby_that_synchronizes_slots_names_a_database() -> None:
    plan = planned({"db1": {}, "db2": {"settings": {"sync_replication_slots": True, "hot_standby_feedback": True}}})
    assert streaming(plan, "db2")[1]["dbname"] == "postgres"
    assert plan.databases(*plan.standbys) == ["postgres"]


def test_names_and_files_of_a_cluster_that_is_not_called_as_its_stack() -> None:
    address = VaultAddress("https://vault.example.net", None, "/etc/ca.pem")
    plan = planned({"db1": {}, "db2": {}}, name="ledger", address=address)
    assert (plan.stack, plan.mount, plan.key) == (
        "shop/orders/ledger",
        "tde-orders-ledger",
        "orders-ledger-principal-key",
    )
    assert (plan.context.named("db1"), plan.files.token, plan.files.ca) == (
        "ledger-db1",
        "ledger.vault-token",
        "ledger.vault-ca.pem",
    )
    assert plan.member("db2").removed_files == (
        "ledger.vault-token",
        "ledger.vault-ca.pem",
        "ledger.pgpass",
        "ledger.restore-drill.json",
    )
    # Two clusters of one program do not meet.
    assert {one.placement.port for one in plan.members} & {54321, 54322} == set()


def test_what_the_settings_say_of_the_vault_outranks_the_environment() -> None:
    environment = VaultAddress("https://vault.example.net", None, "/etc/ca.pem", "team")
    assert planned({"db1": {}}, address=environment).vault_address == environment
    own = planned({"db1": {}}, address=environment, vault={"ca": "/own.pem", "namespace": "other"}).vault_address
    assert (own.ca, own.namespace) == ("/own.pem", "other")


@pytest.mark.parametrize(
    ("made", "key"), [(datetime(2026, 1, 1, tzinfo=UTC), "team/key-rotation-1"), (NOW, "team/key")]
)
def test_a_key_that_is_due_is_rotated(made: datetime, key: str) -> None:
    plan = planned({"db1": {}}, newest=NewestKey("team/key", made), key={"name": "team/key", "rotateAfter": "90d"})
    assert plan.key == key


def test_what_another_cluster_of_the_program_has_is_refused() -> None:
    servers = {"db1": {"port": 5001}, "db2": {"port": 5002}}
    first, second = planned(servers), planned(servers, name="ledger")
    assert _used_twice(second, {}) == []
    assert _used_twice(second, first.occupied("the first")) == [
        "cluster.servers.db1.port: 5001 is also used by db1 of the first: choose another",
        "cluster.servers.db1.dataDirectory: /srv/db1/data is also used by db1 of the first: choose another",
        "cluster.servers.db2.port: 5002 is also used by db2 of the first: choose another",
        "cluster.servers.db2.dataDirectory: /srv/db2/data is also used by db2 of the first: choose another",
    ]


BLOCKED = """
import sys
for name in ("pulumi", "pulumi_vault", "pulumi_docker", "pulumi_command"):
    sys.modules[name] = None
import tde_replication.hosts.docker.placement
import tde_replication.hosts.local.placement
import tde_replication.hosts.ssh.placement
import tde_replication.plan
import tde_replication.preflight.cluster
from tests.unit.test_plan import planned
plan = planned({"db1": {}, "db2": {}})
print(plan.member("db2").parameters["primary_slot_name"], plan.key)
"""


def test_it_needs_no_pulumi() -> None:
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("tde_db2 orders-principal-key\n", "")


def test_a_context_says_whose_things_are() -> None:
    assert PlacementContext("shop", "orders", "orders").prefix == "orders"
    assert PlacementContext("shop", "orders", "ledger").prefix == "orders-ledger"
