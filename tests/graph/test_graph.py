"""EncryptedReplication as a graph: names and types that are kept for ever, order, secrets, and what is refused first."""

import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from tde_replication import settings, stack_file
from tde_replication.hosts.account import service_account
from tde_replication.postgres.marker import MARKER
from tde_replication.preflight import cluster as preflight_of_cluster
from tde_replication.settings import MANAGED_PARAMETERS
from tde_replication.stack_file import StackFileError
from tde_replication.vault.key_age import NewestKey
from tests.graph import graph as graphs
from tests.graph.graph import EXPIRES, PASSWORD, TOKEN, Graph, Place, plain, values_outside_secrets


@pytest.fixture
def place() -> Iterator[Place]:
    root = Path(tempfile.mkdtemp(prefix="tde graph "))
    root.chmod(0o755)  # the servers' account asks what is there
    made = Place(root)
    yield made
    made.end()


# Names and types are in people's states: a change here makes their next `up` replace what they have.
WHOLE = """\
DataDirectory db2
CleanupRecord db1
CleanupRecord db2
DataDirectory db1
Extension pg_tde in postgres
HbaRule replicator from 127.0.0.1/32
HostFile db1-vault-token
HostFile db2-pgpass
HostFile db2-vault-token
KeyBinding default key
KeyBinding server key
KeyProvider vault
Password orders-replication-password
PrincipalKey orders-principal-key
ReplicationCheck db2
ReplicationRole replicator
ReplicationSlot tde_db2
SecretContent orders-replication-secret
Server db1
Server db2
Token db1-token
Token db2-token
Topology orders
WalEncryption WAL of db1
WalEncryption WAL of db2
pulumi:providers:vault orders-vault
tde:index:EncryptedReplication orders
tde:index:KeyVault orders
vault:index/mount:Mount orders-mount
vault:index/policy:Policy db1-policy
vault:index/policy:Policy db2-policy
vault:kv/secretV2:SecretV2 orders-replication-secret""".splitlines()
OF_A_STANDBY = {label for label in WHOLE if "db2" in label}
OF_PG_TDE = {label for label in WHOLE if label.startswith(("Extension", "Key", "Principal", "Wal"))}


def test_a_primary_and_a_standby(place: Place) -> None:
    assert place.build(place.cluster("db2")).labels == sorted(WHOLE)


def test_databases_have_the_extension_side_by_side(place: Place) -> None:
    made = place.build(place.cluster("db2", databases=["template1", "more", "app"], enforceEncryption=True))
    names = ("postgres", "app", "more", "template1")
    extensions = {f"Extension pg_tde in {name}" for name in names}
    assert set(made.labels) == {*WHOLE, *extensions, *(f"DatabaseEncryption encryption in {name}" for name in names)}
    for name in names:
        before = made.before(f"DatabaseEncryption encryption in {name}")
        assert {f"Extension pg_tde in {name}", "KeyBinding default key"} <= before
        # Nobody makes a database as long as somebody is connected to its template.
        others = (
            extensions - {f"Extension pg_tde in {name}", "Extension pg_tde in postgres"}
            if name == "template1"
            else set()
        )
        assert made.before(f"Extension pg_tde in {name}") & extensions == others
        assert made[f"DatabaseEncryption encryption in {name}"].inputs["settings"] == {
            "pg_tde.enforce_encryption": "on",
            "default_table_access_method": "tde_heap",
        }
    made = place.build(place.cluster("db2", databases=["app"]))
    assert set(made.labels) == {*WHOLE, "Extension pg_tde in app"}


def test_when_a_cluster_expires_is_there_before_and_after_everything_else(place: Place) -> None:
    made = place.build(place.cluster("db2", expires="8h", disposable=True))
    assert set(made.labels) == {*WHOLE, "Expiry expiry"}
    for label in WHOLE:
        # A component is no resource by itself.
        assert "Expiry expiry" in made.before(label) or label.startswith("tde:index:"), label
    assert made.outputs["expires"] == EXPIRES
    assert made.outputs["summary"].endswith("expires 2026-11-30 09:00 UTC: after that, make reap destroys it")
    assert place.build(place.cluster("db2")).outputs["expires"] is None


def test_a_primary_alone(place: Place) -> None:
    labels = place.build(place.cluster()).labels
    assert set(WHOLE) - set(labels) == OF_A_STANDBY | {"HbaRule replicator from 127.0.0.1/32"}
    assert set(labels) <= set(WHOLE)


def test_another_standby_adds_its_own_and_touches_nothing_else(place: Place) -> None:
    labels = place.build(place.cluster("db2", "db3", "db-4")).labels
    named = {label.replace("db2", name) for label in OF_A_STANDBY for name in ("db3", "db-4")}
    named = {label.replace("tde_db-4", "tde_db_4") for label in named}
    assert set(labels) == set(WHOLE) | named
    assert len(labels) == len(set(labels))


def test_a_standby_that_goes_touches_nothing_of_the_others(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the first of three, with ports and directories by default; and in any order."""
    monkeypatch.setattr(settings, "LOCAL_PORT", 19000)  # where no `make up` of somebody's is
    programs = str(graphs.installation(place.root / "server", pg_tde=True))

    def built(*standbys: str) -> dict[str, Any]:
        declared = {name: {"binaries": programs} for name in (*standbys, "db1")}
        cluster = stack_file.parse("test", {"primary": "db1", "servers": declared})
        # Keys are only set while every standby can open them: which ones there are is no property of theirs.
        made = [one for one in place.build(cluster).resources if one.kind != "KeyBinding"]
        # So is where the others are, which may be the primary next.
        return {
            str(one): {name: value for name, value in one.inputs.items() if name != "others"}
            for one in made
            if one.kind != "Topology"
        }

    whole = built("db2", "db3", "db4")
    assert built("db4", "db3") == {label: inputs for label, inputs in whole.items() if "db2" not in label}


@pytest.mark.parametrize("inside", [False, True])
def test_progress_is_shown_in_the_row_of_the_resource_wherever_the_cluster_is(place: Place, *, inside: bool) -> None:
    for preview in (False, True):
        graph = place.build(place.cluster("db2", "db3"), inside=inside, preview=preview)
        [component] = graph.of("tde:index:EncryptedReplication")
        *head, types, _ = component.urn.split("::")  # the mocks' URNs of its children have but one type before theirs
        assert types.startswith("shop:index:Shop$") == inside
        assert sorted(clone.inputs["urn"] for clone in graph.of("DataDirectory") if "urn" in clone.inputs) == [
            "::".join([*head, f"{types}$pulumi-python:dynamic/postgres:DataDirectory", name]) for name in ("db2", "db3")
        ]


def test_standbys_come_from_where_they_find_a_primary_on_their_machine(place: Place) -> None:
    graph = place.build(place.cluster("db2", db1={"listen": ["::1"]}))
    assert [rule.inputs["address"] for rule in graph.of("HbaRule")] == ["::1/128"]
    assert graph["DataDirectory db2"].inputs["upstream"]["host"] == "::1"


def test_one_rule_for_each_address_that_standbys_come_from(place: Place) -> None:
    cluster = place.cluster("db2", "db3", "db4")
    declared = cluster.model_dump(by_alias=True)
    declared["servers"]["db4"]["address"] = "10.0.0.0/8"
    made = place.build(type(cluster).model_validate(declared))
    # Resources are registered side by side: in no order.
    assert {rule.name for rule in made.of("HbaRule")} == {"replicator from 127.0.0.1/32", "replicator from 10.0.0.0/8"}
    assert len(made.of("HbaRule")) == 2


def test_no_two_resources_share_a_urn(place: Place) -> None:
    made = place.build(place.cluster("db2", "db3"), ca=place.ca())
    assert len({resource.urn for resource in made.resources}) == len(made.resources)


def test_everything_is_inside_the_component(place: Place) -> None:
    made = place.build(place.cluster("db2"))
    component, vault = made["tde:index:EncryptedReplication orders"], made["tde:index:KeyVault orders"]
    for resource in made.resources:
        if resource is not component:
            in_vault = resource.type.startswith(("vault:", "pulumi-python:dynamic/vault:"))
            assert resource.parent == (vault.urn if in_vault else component.urn)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        # A token before the server, which fetches its server key as it starts.
        ("HostFile db1-vault-token", "Server db1"),
        ("vault:index/policy:Policy db1-policy", "HostFile db1-vault-token"),
        ("DataDirectory db1", "Server db1"),
        # Who is the primary, before anything that lies in one.
        ("Topology orders", "DataDirectory db1"),
        # pg_tde's own order.
        ("Server db1", "Extension pg_tde in postgres"),
        ("Extension pg_tde in postgres", "KeyProvider vault"),
        ("vault:index/mount:Mount orders-mount", "KeyProvider vault"),
        ("KeyProvider vault", "PrincipalKey orders-principal-key"),
        ("PrincipalKey orders-principal-key", "KeyBinding server key"),
        ("KeyBinding server key", "KeyBinding default key"),
        # What a clone needs.
        ("KeyBinding default key", "DataDirectory db2"),
        ("ReplicationRole replicator", "HbaRule replicator from 127.0.0.1/32"),
        ("HbaRule replicator from 127.0.0.1/32", "DataDirectory db2"),
        ("ReplicationSlot tde_db2", "DataDirectory db2"),
        ("HostFile db2-pgpass", "DataDirectory db2"),
        ("HostFile db2-vault-token", "Server db2"),
        ("DataDirectory db2", "Server db2"),
        ("Server db2", "ReplicationCheck db2"),
    ],
)
def test_order(place: Place, first: str, then: str) -> None:
    made = place.build(place.cluster("db2"))
    assert first in made.before(then)
    assert then not in made.before(first)


def test_standbys_do_not_wait_for_one_another(place: Place) -> None:
    """But for what pg_tde opens there: a key is not rotated before all may open it."""
    made = place.build(place.cluster("db2", "db3"))
    for name, other in (("db2", "db3"), ("db3", "db2")):
        found = {label for label in made.before(f"ReplicationCheck {name}") if other in label}
        assert found == {
            f"vault:index/policy:Policy {other}-policy",
            f"Token {other}-token",
            f"HostFile {other}-vault-token",
            f"CleanupRecord {other}",
        }


def test_a_key_provider_comes_after_its_files_on_every_server(place: Place) -> None:
    """Directly, as the engine needs it to delete the former one first."""
    declared = _cascade(place).model_dump(by_alias=True)
    made = place.build(settings.Cluster.model_validate({**declared, "vault": {"provider": "there"}}))
    direct = set(made["KeyProvider there"].dependencies)
    for name in ("db1", "db2", "db3"):
        file = made[f"HostFile {name}-there-token"]
        assert file.urn in direct
        assert made[f"Token {name}-token"].urn in file.dependencies
        assert str(file.inputs["path"]).endswith("/orders.there-token")
    assert made["KeyProvider there"].inputs["tokenPath"] == "../orders.there-token"


def test_the_base_backup_and_initdb_side_by_side_with_the_vault(place: Place) -> None:
    """Nothing waits for Vault that can do without it: the time to the first standby is the product's."""
    made = place.build(place.cluster("db2"))
    assert not {label for label in made.before("DataDirectory db1") if label.startswith("vault:")}
    assert "ReplicationRole replicator" not in made.before("ReplicationSlot tde_db2")


def test_wal_encryption_comes_after_the_server_key_and_before_any_clone(place: Place) -> None:
    made = place.build(place.cluster("db2", walEncryption=True))
    assert {"KeyBinding server key", "KeyBinding default key"} <= made.before("WalEncryption WAL of db1")
    assert "WalEncryption WAL of db1" in made.before("DataDirectory db2")
    assert made["DataDirectory db2"].inputs["encryptWal"] is True
    for name in ("db1", "db2"):  # a role is no matter: each has its own
        assert made[f"WalEncryption WAL of {name}"].inputs["walEncrypt"] == "on"
        assert "pg_tde.wal_encrypt" not in made[f"Server {name}"].inputs["settings"]
    assert "WalEncryption WAL of db2" in made.before("ReplicationCheck db2")


@pytest.mark.parametrize("adopt", [False, True])
def test_a_parameter_that_the_stack_sets_is_refused_in_the_stack_file_or_is_the_persons(
    place: Place, *, adopt: bool
) -> None:
    """None is overwritten in silence."""
    primary = {"adopt": adopt} | ({"dataDirectory": "/srv/elsewhere"} if adopt else {})
    made = place.build(place.cluster("db2", walEncryption=True, db1=primary))
    ours = {name for label in ("Server db1", "Server db2") for name in made[label].inputs["settings"]}
    persons = ours - MANAGED_PARAMETERS - {"shared_preload_libraries"}  # to whose value the stack adds pg_tde
    assert persons == {"wal_retrieve_retry_interval"}
    cluster = place.cluster("db2")
    cluster.servers["db2"].settings.update(dict.fromkeys(persons, "7s"))
    settings = place.build(cluster)["Server db2"].inputs["settings"]
    assert {name: settings[name] for name in persons} == dict.fromkeys(persons, "7s")


@pytest.mark.parametrize("cipher", ["aes_128", "aes_256"])
def test_the_cipher_is_a_parameter_of_every_server_before_any_key_is_made(place: Place, cipher: str) -> None:
    made = place.build(place.cluster("db2", cipher=cipher, walEncryption=True))
    for name in ("db1", "db2"):
        assert made[f"Server {name}"].inputs["settings"]["pg_tde.cipher"] == cipher
    assert made["PrincipalKey orders-principal-key"].inputs["cipher"] == cipher
    assert made["DataDirectory db2"].inputs["cipher"] == cipher
    assert "Server db1" in made.before("PrincipalKey orders-principal-key")
    plain = place.build(place.cluster(encryption="off", cipher=cipher))
    assert "pg_tde.cipher" not in plain["Server db1"].inputs["settings"]


@pytest.mark.parametrize(("declared", "expected"), [({}, None), ({"namespace": "/team/a/"}, "team/a")])
def test_pulumi_vault_and_pg_tde_ask_in_one_namespace(
    place: Place, declared: dict[str, str], expected: str | None
) -> None:
    made = place.build(place.cluster("db2", vault=declared))
    assert made["pulumi:providers:vault orders-vault"].inputs.get("namespace") == expected
    assert made["KeyProvider vault"].inputs["namespace"] == (expected or "")


def test_preload_is_there_before_the_first_start_of_primary_and_clone(place: Place) -> None:
    made = place.build(place.cluster("db2", db1={"settings": {"shared_preload_libraries": "auto_explain"}}))
    assert made["Server db1"].inputs["settings"]["shared_preload_libraries"] == "auto_explain,pg_tde"
    assert made["Server db2"].inputs["settings"]["shared_preload_libraries"] == "pg_tde"


def test_the_same_paths_on_every_server(place: Place) -> None:
    """A provider's record is replayed on standbys: the paths in it must be right there too."""
    made = place.build(place.cluster("db2"), ca=place.ca())
    provider = made["KeyProvider vault"].inputs
    for name in ("db1", "db2"):
        data = Path(made[f"Server {name}"].inputs["dataDirectory"])
        files = {file.inputs["path"]: file.inputs for file in made.of("HostFile")}
        assert str((data / provider["tokenPath"]).resolve()) in files
        assert str((data / provider["caPath"]).resolve()) in files
        assert files[str((data / provider["tokenPath"]).resolve())]["mode"] == "0600"


def test_slot_standby_and_clone_agree(place: Place) -> None:
    made = place.build(place.cluster("db-2"))
    settings = made["Server db-2"].inputs["settings"]
    assert made["DataDirectory db-2"].inputs["slot"] == settings["primary_slot_name"] == "tde_db_2"
    passfile = made["DataDirectory db-2"].inputs["upstream"]["passfile"]
    assert passfile == made["HostFile db-2-pgpass"].inputs["path"]
    assert conninfo_to_dict(settings["primary_conninfo"])["passfile"] == passfile
    assert made["Server db-2"].inputs["recovery"] == "standby"


def _cascade(place: Place) -> settings.Cluster:
    declared = place.cluster("db2", "db3").model_dump(by_alias=True)
    declared["servers"]["db3"]["upstream"] = "db2"
    return settings.Cluster.model_validate(declared)


def test_what_streams_from_a_standby_has_its_slot_there_and_is_a_clone_of_the_primary(place: Place) -> None:
    made = place.build(_cascade(place))
    slot, above, clone = (
        made[one].inputs for one in ("ReplicationSlot tde_db3 on db2", "DataDirectory db2", "DataDirectory db3")
    )
    assert slot["dataDirectory"] == above["dataDirectory"] == clone["senderDirectory"]
    assert slot["others"] == []
    assert "Server db2" in made.before("ReplicationSlot tde_db3 on db2")
    assert "ReplicationSlot tde_db3 on db2" in made.before("DataDirectory db3")
    ports = {name: str(made[f"Server {name}"].inputs["settings"]["port"]) for name in ("db1", "db2")}
    assert int(clone["upstream"]["port"]) == int(ports["db1"])
    assert conninfo_to_dict(made["Server db3"].inputs["settings"]["primary_conninfo"])["port"] == ports["db2"]
    assert made["ReplicationCheck db3"].inputs["senderDirectory"] == above["dataDirectory"]
    assert made["CleanupRecord db3"].inputs["primaryDirectory"] == above["dataDirectory"]
    [rule] = made.of("HbaRule")
    assert rule.inputs["upstreams"] == ["db2"]
    assert rule.inputs["upstreamPlaces"] == {"db2": ["local", above["dataDirectory"]]}


def test_a_switchover_leaves_what_streams_from_its_target_as_it_is(place: Place) -> None:
    declared = _cascade(place).model_dump(by_alias=True)
    before, after = (
        place.build(settings.Cluster.model_validate(declared | {"primary": name})) for name in ("db1", "db2")
    )
    for label in ("ReplicationSlot tde_db3 on db2", "Server db3", "CleanupRecord db3"):
        assert before[label].inputs == after[label].inputs, label


@pytest.mark.parametrize("primary", ["db1", "db2"])
def test_an_adopted_server_is_the_same_resource_whichever_part_it_has(place: Place, primary: str) -> None:
    """What is somebody else's goes with nothing of the stack, and everything of the stack goes after it was looked at."""
    for name in ("db1", "db2"):
        (place.root / name / "data").mkdir(parents=True)
        marker = json.dumps({"stack": "tde-replication/orders/orders", "name": name})
        (place.root / name / "data" / ("tde-replication.json" if name == "db2" else "theirs")).write_text(marker)
    declared = place.cluster("db2", "db3", walEncryption=True, disposable=True, db1={"adopt": True}).model_dump(
        by_alias=True
    )
    made = place.build(settings.Cluster.model_validate(declared | {"primary": primary, "synchronous": {}}))
    directory = made["DataDirectory db1"].inputs
    assert (directory.get("origin", "adopted"), directory["disposable"]) == ("adopted", False)
    assert directory["role"] == ("primary" if primary == "db1" else "standby")
    assert made["Server db1"].inputs["ours"] is False
    assert [made[one].deleted_with for one in ("WalEncryption WAL of db1", "Server db1", "DataDirectory db1")] == [
        ""
    ] * 3
    record = made["CleanupRecord db1"].inputs
    assert record["settings"].keys() >= made["Server db1"].inputs["settings"].keys() | {"pg_tde.wal_encrypt"}
    assert record["files"] == [*([] if primary == "db1" else ["orders.pgpass"]), "orders.restore-drill.json"]
    assert [made[f"Token {name}-token"].retained for name in ("db1", "db2")] == [True, False]
    custom = {str(one) for one in made.resources if "pulumi-python" in one.type or one.type.startswith("vault:")}
    assert custom - made.before("Adoption db1") == {"Adoption db1"}


def test_commits_wait_for_standbys_once_all_of_them_stream(place: Place) -> None:
    declared = place.cluster("db2", "db3").model_dump(by_alias=True) | {"synchronous": {"number": 2}}
    made = place.build(settings.Cluster.model_validate(declared))
    label = "SynchronousStandbys synchronous_standby_names"
    assert made[label].inputs["names"] == 'ANY 2 ("db2", "db3")'
    assert {"ReplicationCheck db2", "ReplicationCheck db3", "Server db1"} <= made.before(label)
    assert made["Topology orders"].inputs["synchronous"]["standbys"] == ["db2", "db3"]


def test_tables_are_encrypted_once_standbys_follow(place: Place) -> None:
    declared = place.cluster("db2").model_dump(by_alias=True) | {
        "tables": [{"schema": "audit", "encrypted": False}, "post?res.shop.*"]
    }
    made = place.build(settings.Cluster.model_validate(declared))
    label = "TableEncryption tables of postgres"
    assert set(made.labels) == {*WHOLE, label}
    assert made[label].inputs["patterns"] == [
        {"schema": "audit", "table": "*", "encrypted": False},
        {"schema": "shop", "table": "*", "encrypted": True},
    ]
    assert {"KeyBinding default key", "WalEncryption WAL of db1", "ReplicationCheck db2"} <= made.before(label)


def test_the_stanza_is_of_the_cluster_and_needs_the_primary_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_of_cluster, "check_archive", lambda _: ([], []))
    declared = place.cluster("db2").model_dump(by_alias=True) | {"archive": {"pgbackrest": {"stanza": "orders"}}}
    made = place.build(settings.Cluster.model_validate(declared))
    assert set(made.labels) == {*WHOLE, "Stanza orders"}
    assert "Server db1" in made.before("Stanza orders")
    assert "Server db2" not in made.before("Stanza orders")
    assert made["DataDirectory db2"].inputs["stanza"] == "orders"
    for name in ("db1", "db2"):
        assert made[f"Server {name}"].inputs["settings"]["archive_mode"] == "on"


def secrets_of(made: Graph) -> dict[str, str]:
    return {
        "ReplicationRole replicator": plain(made["ReplicationRole replicator"].inputs["password"]),
        "HostFile db2-pgpass": plain(made["HostFile db2-pgpass"].inputs["content"]),
        "HostFile db1-vault-token": plain(made["HostFile db1-vault-token"].inputs["content"]),
        "HostFile db2-vault-token": plain(made["HostFile db2-vault-token"].inputs["content"]),
    }


def test_secrets_are_marked_where_they_go(place: Place) -> None:
    made = place.build(place.cluster("db2"))
    assert secrets_of(made) == {
        "ReplicationRole replicator": PASSWORD,
        "HostFile db2-pgpass": f"*:*:replication:replicator:{PASSWORD}\n",
        "HostFile db1-vault-token": "hvs.of-db1-token",
        "HostFile db2-vault-token": "hvs.of-db2-token",
    }
    assert "value" in made["Password orders-replication-password"].secret_outputs
    assert "clientToken" in made["Token db1-token"].secret_outputs


def test_no_secret_is_anywhere_else(place: Place) -> None:
    made = place.build(place.cluster("db2"), ca=place.ca())
    seen = [leaf for resource in made.resources for leaf in values_outside_secrets(resource.inputs)]
    text = json.dumps([*seen, {name: made.outputs[name] for name in made.outputs.keys() - made.secret_outputs}])
    for secret in (PASSWORD, TOKEN, "hvs."):
        assert secret not in text


def test_connection_strings_are_secret_outputs_and_hold_no_password(place: Place) -> None:
    made = place.build(place.cluster("db2"))
    assert made.secret_outputs == {"primary_dsn", "standby_dsns"}
    assert PASSWORD not in json.dumps(made.outputs)
    assert f"port={made.outputs['primary']['port']}" in made.outputs["primary_dsn"]
    assert len(made.outputs["standby_dsns"]) == 1


def test_connection_strings_trust_the_servers_account_alone(place: Place) -> None:
    """Whoever may put a socket in the server's place would be the server."""
    made = place.build(place.cluster("db2"))
    for dsn in (made.outputs["primary_dsn"], *made.outputs["standby_dsns"]):
        assert conninfo_to_dict(dsn)["requirepeer"] == service_account().name


@pytest.mark.parametrize("switch", ["on", "off"])
def test_a_standby_that_synchronizes_slots_logs_in_to_a_database(place: Place, switch: str) -> None:
    """PostgreSQL documentation, *sync_replication_slots*: dbname in primary_conninfo. Rule and passfile must have it, too."""
    cluster = place.cluster("db2", database="orders")
    cluster.servers["db2"].settings.update({"sync_replication_slots": switch, "hot_standby_feedback": "on"})
    made = place.build(cluster)
    databases = ["orders"] if switch == "on" else []
    settings = made["Server db2"].inputs["settings"]
    assert settings["sync_replication_slots"] == switch
    assert conninfo_to_dict(settings["primary_conninfo"]).get("dbname") == ("orders" if databases else None)
    assert made["HbaRule replicator from 127.0.0.1/32"].inputs["databases"] == ["replication", *databases]
    passfile = plain(made["HostFile db2-pgpass"].inputs["content"])
    assert [line.split(":")[2] for line in passfile.splitlines()] == ["replication", *databases]


@pytest.mark.parametrize("rejoin", ["clone", "rewind"])
def test_a_former_primary_is_rewound_by_queries_in_a_database(place: Place, rejoin: str) -> None:
    """Where it may log in for that: rule, topology and passfile have it; what it streams with does not."""
    cluster = place.cluster("db2", database="orders", rejoin=rejoin, pg_tde=False, encryption="off")
    (programs_of(cluster) / "pg_rewind").touch()
    made = place.build(cluster)
    databases = ["replication", "orders"] if rejoin == "rewind" else ["replication"]
    directory = made["DataDirectory db2"].inputs
    assert (directory["rejoin"], directory["database"]) == (rejoin, "orders")
    assert made["HbaRule replicator from 127.0.0.1/32"].inputs["databases"] == databases
    assert [rule["databases"] for rule in made["Topology orders"].inputs["rules"]] == [databases]
    passfile = plain(made["HostFile db2-pgpass"].inputs["content"])
    assert [line.split(":")[2] for line in passfile.splitlines()] == databases
    assert "dbname" not in conninfo_to_dict(made["Server db2"].inputs["settings"]["primary_conninfo"])


def programs_of(cluster: settings.Cluster) -> Path:
    return Path(cluster.primary_server.binaries or "")


@pytest.mark.parametrize(
    ("library", "why"),
    [
        (None, "there is no pg_tde_rewind in {programs}"),
        (b"\x7fELF\0\xffpg_tde_tranche\0", "which version of pg_tde is installed cannot be told"),
        (
            b"\x7fELF\0\xffpg_tde 2.2.0\0\xff",
            (
                "pg_tde_rewind of pg_tde 2.2.0 can make encrypted relations unreadable, and 2.2.1 is the first without that fault"
            ),
        ),
        (b"\x7fELF\0\xffpg_tde 2.2.1\0\xff", None),
        (b"\x7fELF\0\xffpg_tde 10.0.0\0\xff", None),
    ],
)
def test_programs_that_cannot_rewind_are_a_mistake_of_the_setting(
    place: Place, library: bytes | None, why: str | None
) -> None:
    cluster = place.cluster("db2", rejoin="rewind")
    programs = programs_of(cluster)
    if library:
        (programs / "pg_tde_rewind").touch()
        (programs.parent / "lib").mkdir()
        (programs.parent / "lib" / "pg_tde.so").write_bytes(library)
    if why is None:
        assert place.build(cluster)["DataDirectory db2"].inputs["rejoin"] == "rewind"
        return
    with pytest.raises(StackFileError) as told:
        place.build(cluster)
    assert told.value.mistakes == [
        f"cluster.rejoin: db1, db2 cannot be rewound: {why.format(programs=programs)}. Write clone"
    ]


def test_servers_get_tokens_and_policies_of_their_own(place: Place) -> None:
    made = place.build(place.cluster("db2"))
    of = {name: made[f"Token {name}-token"] for name in ("db1", "db2")}
    assert "vault:index/policy:Policy db1-policy" in made.before(str(of["db1"]))
    assert "vault:index/policy:Policy db2-policy" in made.before(str(of["db2"]))
    for name, token in of.items():
        policy = made[f"vault:index/policy:Policy {name}-policy"]
        assert policy.urn in token.dependencies
        assert token.inputs["policies"] == [policy.inputs["name"]]
        assert token.inputs["periodHours"] == 768


def test_the_next_primary_may_make_keys_before_a_switchover_and_the_former_one_until_its_end(place: Place) -> None:
    cluster = place.cluster("db2")
    data = place.root / "db1" / "data"
    data.mkdir(parents=True)
    (data / MARKER).write_text(json.dumps({"stack": "tde-replication/orders/orders", "name": "db1"}))
    made = place.build(cluster)
    assert "vault:index/policy:Policy db1-policy" in made.before("Topology orders")
    assert "Topology orders" in made.before("vault:index/policy:Policy db2-policy")


def capabilities(policy: str) -> dict[str, set[str]]:
    found = re.findall(r'path "([^"]+)" \{ capabilities = \[([^\]]*)\] \}', policy)
    return {path: set(re.findall(r'"(\w+)"', names)) for path, names in found}


def test_policies_hold_what_pg_tde_calls_and_no_more(place: Place) -> None:
    made = place.build(place.cluster("db2", vault={"mount": "team/tde"}))
    primary = made["vault:index/policy:Policy db1-policy"].inputs
    standby = made["vault:index/policy:Policy db2-policy"].inputs
    assert capabilities(primary["policy"]) == {
        "sys/mounts/team/tde": {"read"},
        "team/tde/data/*": {"create", "read"},
        "team/tde/data/replication/*": {"deny"},
        "team/tde/metadata/*": {"list"},
        "team/tde/metadata": {"list"},
    }
    assert capabilities(standby["policy"]) == {"team/tde/data/*": {"read"}, "team/tde/data/replication/*": {"deny"}}
    assert (primary["name"], standby["name"]) == ("team_2ftde__db1", "team_2ftde__db2")


def test_on_a_shared_mount_they_open_the_stacks_own_keys_alone(place: Place) -> None:
    key = {"name": "orders/2027", "former": ["orders-2026", "orders/2025"]}
    made = place.build(place.cluster("db2", vault={"mount": "shared", "existing": True}, key=key))
    assert capabilities(made["vault:index/policy:Policy db1-policy"].inputs["policy"]) == {
        "sys/mounts/shared": {"read"},
        "shared/data/orders/*": {"create", "read"},
        "shared/data/orders-2026": {"create", "read"},
        "shared/data/replication/*": {"deny"},
        "shared/metadata/": {"list"},
        "shared/metadata": {"list"},
    }
    assert capabilities(made["vault:index/policy:Policy db2-policy"].inputs["policy"]) == {
        "shared/data/orders/*": {"read"},
        "shared/data/orders-2026": {"read"},
        "shared/data/replication/*": {"deny"},
    }


def test_the_default_key_is_opened_on_a_shared_mount_too(place: Place) -> None:
    made = place.build(place.cluster("db2", vault={"mount": "shared", "existing": True}))
    key = made["PrincipalKey orders-principal-key"].inputs["key"]
    opened = capabilities(made["vault:index/policy:Policy db2-policy"].inputs["policy"])
    assert opened[f"shared/data/{key}"] == {"read"}


def test_a_key_that_is_too_old_is_replaced_once_every_server_may_open_the_next_one(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A standby that may not dies of the rotation."""
    asked: list[str] = []

    def newest(_: object, mount: str, declared: str, former: Sequence[str]) -> NewestKey:
        asked.extend((mount, declared, *former))
        return NewestKey("2025-rotation-1", datetime.now(UTC) - timedelta(days=91), ("2025", "2024"))

    monkeypatch.setattr("tde_replication.plan.newest_key", newest)
    key = {"name": "2025", "former": ["2024"], "rotateAfter": "90d"}
    made = place.build(place.cluster("db2", vault={"mount": "shared", "existing": True}, key=key))
    assert asked == ["shared", "2025", "2024"]
    assert {made[f"KeyBinding {scope} key"].inputs["key"] for scope in ("server", "default")} == {"2025-rotation-2"}
    assert made["PrincipalKey 2025-rotation-2"].inputs["key"] == made["ReplicationCheck db2"].inputs["key"]
    opened = capabilities(made["vault:index/policy:Policy db2-policy"].inputs["policy"])
    assert {f"shared/data/{name}" for name in ("2024", "2025", "2025-rotation-1", "2025-rotation-2")} < set(opened)
    assert "vault:index/policy:Policy db2-policy" in made.before("KeyBinding server key")
    assert "key 2025-rotation-1 is due for rotation" in caplog.text


def test_a_database_gets_a_key_of_its_own_after_the_default_key(place: Place) -> None:
    """The default key is set for whoever has the former one."""
    made = place.build(place.cluster("db2", database="app", keys={"app": {"name": "app-key"}}))
    binding = made["KeyBinding key of app"].inputs
    assert (binding["scope"], binding["database"], binding["key"]) == ("database", "app", "app-key")
    assert {"KeyBinding default key", "PrincipalKey app-key"} < made.before("KeyBinding key of app")
    assert "KeyProvider vault" in made.before("PrincipalKey app-key")
    assert "KeyBinding key of app" in made.before("DataDirectory db2")
    shared = {"mount": "shared", "existing": True}
    made = place.build(place.cluster("db2", vault=shared, database="app", keys={"app": {"name": "app-key"}}))
    opened = capabilities(made["vault:index/policy:Policy db2-policy"].inputs["policy"])
    assert opened["shared/data/app-key"] == {"read"}


def test_a_key_of_a_database_needs_the_extension_there(place: Place) -> None:
    made = place.build(place.cluster(databases=["app", "template1"], keys={"app": {"name": "app-key"}}))
    assert "Extension pg_tde in app" in made.before("PrincipalKey app-key")
    for database, says in (("other", "a key needs the extension, and"), ("template1", "name that database")):
        with pytest.raises(StackFileError, match=f"cluster.keys.{database}: .*{says}"):
            place.cluster(databases=["template1"], keys={database: {"name": "a-key"}})


@pytest.mark.parametrize("name", ["orders-principal-key", "2025"])
def test_a_key_of_a_database_is_no_other_ones(place: Place, name: str) -> None:
    cluster = place.cluster(database="app", key={"former": ["2025"]}, keys={"app": {"name": name}})
    with pytest.raises(
        StackFileError,
        match=f"cluster.keys.app.name: {name} is used twice: choose a name for the key of this database alone",
    ):
        place.build(cluster)


@pytest.mark.parametrize("mode", ["required", "if-available"])
def test_encrypted_where_pg_tde_is(place: Place, mode: str) -> None:
    made = place.build(place.cluster("db2", encryption=mode))
    assert set(made.labels) >= OF_PG_TDE
    assert made.outputs["encryption"] == {
        "mode": mode,
        "inForce": True,
        "provider": "vault",
        "key": "orders-principal-key",
    }
    assert "encrypted by pg_tde" in made.outputs["summary"]
    assert made["ReplicationCheck db2"].inputs["encryption"] is True


@pytest.mark.parametrize(
    ("mode", "pg_tde", "reason"),
    [
        ("off", True, "the stack file says encryption: off"),
        ("off", False, "the stack file says encryption: off"),
        ("if-available", False, "this PostgreSQL (18.6) has no pg_tde"),
    ],
)
def test_not_encrypted_and_says_so(
    place: Place,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    pg_tde: bool,  # noqa: FBT001 - one of a table
    reason: str,
) -> None:
    made = place.build(place.cluster("db2", encryption=mode, pg_tde=pg_tde))
    assert set(made.labels) == set(WHOLE) - OF_PG_TDE
    assert made.outputs["encryption"] == {"mode": mode, "inForce": False, "reason": reason}
    assert f"NOT ENCRYPTED: {reason}" in made.outputs["summary"]
    assert f"NOT ENCRYPTED: {reason}" in caplog.text
    assert "shared_preload_libraries" not in made["Server db1"].inputs["settings"]
    assert made["ReplicationCheck db2"].inputs["encryption"] is False


def refused(place: Place, **declared: Any) -> str:
    with pytest.raises(StackFileError) as told:
        build_and_see_nothing_registered(place, **declared)
    return str(told.value)


def build_and_see_nothing_registered(place: Place, **declared: Any) -> None:
    """Raise what the component raises, once it is sure that nothing was registered."""
    made = Graph()
    cluster = place.cluster(*declared.pop("standbys", ()), **declared)
    graphs.listen(made)
    try:
        graphs.run(lambda: graphs.program(cluster, made, None))
    finally:
        assert made.resources == []


def test_encryption_required_without_pg_tde_is_refused(place: Place) -> None:
    assert refused(place, pg_tde=False) == (
        'EncryptedReplication "orders" has 1 mistake; nothing was touched:\n'
        "  cluster.encryption: required, and this PostgreSQL (18.6) has no pg_tde (see docs/encryption.md)"
    )


@pytest.mark.parametrize("file", ["wal_keys", "1663_keys", "5_keys"])
def test_a_cluster_with_keys_that_is_down_stays_encrypted(place: Place, file: str) -> None:
    """Its servers would start without pg_tde, and a standby would replay plain text over encrypted tables."""
    data = place.root / "db1" / "data"
    (data / "pg_tde").mkdir(parents=True)
    (data / MARKER).write_text(json.dumps({"stack": "tde-replication/orders/orders", "name": "db1"}))
    (data / "pg_tde" / "keys_version").touch()
    place.build(place.cluster(encryption="off"))
    (data / "pg_tde" / file).touch()
    for declared in ({"encryption": "off"}, {"encryption": "if-available", "pg_tde": False}):
        assert refused(place, **declared) == (
            'EncryptedReplication "orders" has 1 mistake; nothing was touched:\n'
            "  cluster.encryption: the cluster is encrypted, and without pg_tde its tables can no longer be read: set it back. "
            "To have the data in clear, copy it into a new cluster"
        )
    place.build(place.cluster())


def test_a_data_directory_of_somebody_else_is_refused(place: Place) -> None:
    data = place.root / "db1" / "data"
    data.mkdir(parents=True)
    (data / "precious").touch()
    text = refused(place)
    assert f"cluster.servers.db1.dataDirectory: {data} is not empty and was not made by this stack" in text
    assert [entry.name for entry in data.iterdir()] == ["precious"]


def test_a_data_directory_of_another_stack_is_refused(place: Place) -> None:
    data = place.root / "db1" / "data"
    data.mkdir(parents=True)
    (data / "tde-replication.json").write_text('{"stack": "tde-replication/other/orders", "madeAt": "x"}')
    text = refused(place)
    assert (
        f'cluster.servers.db1.dataDirectory: {data} is of stack "other" (tde-replication/other/orders), and this one is '
        in text
    )
    assert "Where the stack was renamed, give it its name back: `pulumi stack rename other`" in text


@pytest.mark.parametrize("maker", ["a/b", "a/$(reboot)/c", "a/b\\nc/d", ""])
def test_a_mark_that_names_no_stack_is_not_repeated(place: Place, maker: str) -> None:
    data = place.root / "db1" / "data"
    data.mkdir(parents=True)
    (data / "tde-replication.json").write_text(f'{{"stack": "{maker}", "madeAt": "x"}}')
    assert f"{data} is not empty and was not made by this stack" in refused(place)


def test_a_data_directory_of_this_stack_is_no_mistake(place: Place) -> None:
    data = place.root / "db1" / "data"
    data.mkdir(parents=True)
    (data / "tde-replication.json").write_text('{"stack": "tde-replication/orders/orders", "madeAt": "x"}')
    assert place.build(place.cluster()).resources


def test_a_port_in_use_is_refused_for_each_server_that_has_one(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = refused(place, db1={"port": port, "listen": ["localhost"]})
    assert f"cluster.servers.db1.port: {port} is in use on 127.0.0.1, by " in text
    assert re.search(rf"by (python\S* \(process {os.getpid()} of \w+\)|a process of the account \w+): stop that", text)


def test_mistakes_that_only_the_machines_know_are_told_together(place: Place) -> None:
    (place.root / "db2" / "data").mkdir(parents=True)
    (place.root / "db2" / "data" / "x").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = refused(place, standbys=("db2",), pg_tde=False, db1={"port": taken.getsockname()[1]})
    assert "has 3 mistakes" in text
    for key in ("cluster.servers.db1.port", "cluster.servers.db2.dataDirectory", "cluster.encryption"):
        assert f"  {key}: " in text


def test_a_server_that_is_too_old_is_a_mistake_at_its_key(place: Place) -> None:
    old = str(graphs.installation(place.root / "old", pg_tde=False, version="16.9"))
    text = refused(place, db1={"binaries": old})
    assert f"  cluster.servers.db1: {old} holds PostgreSQL 16.9: version 17 or newer is needed" in text


def test_binaries_that_hold_no_server_are_a_mistake_at_their_key(place: Place) -> None:
    text = refused(place, db1={"binaries": str(place.root)})
    assert f"  cluster.servers.db1: {place.root} holds no PostgreSQL server" in text


def test_the_same_cluster_gives_the_same_graph_and_outputs(place: Place) -> None:
    cluster = place.cluster("db2", "db3")
    one, other = place.build(cluster), place.build(cluster)
    assert one.outputs == other.outputs
    by_label = {str(resource): resource.inputs for resource in one.resources}
    assert {str(resource): resource.inputs for resource in other.resources} == by_label


def test_nothing_volatile_in_the_outputs(place: Place) -> None:
    made = place.build(place.cluster("db2"))
    assert set(made.outputs["primary"]) == {"name", "host", "port", "dataDirectory", "state"}
    assert set(made.outputs["standbys"][0]) == {"name", "host", "port", "dataDirectory", "slot", "state"}
    text = json.dumps(made.outputs).lower()
    assert not re.search(r"lsn|pid|lag|behind|bytes|[0-9a-f]+/[0-9a-f]{6,}|20\d\d-\d\d-\d\d", text)


def test_preview_registers_what_update_registers(place: Place) -> None:
    cluster = place.cluster("db2")
    assert place.build(cluster, preview=True).labels == place.build(cluster).labels


def test_key_material_of_a_kept_cluster_outlives_the_stack(place: Place) -> None:
    mount = "vault:index/mount:Mount orders-mount"
    assert place.build(place.cluster())[mount].retained
    assert not place.build(place.cluster(disposable=True))[mount].retained


def test_an_existing_mount_is_used_and_not_made(place: Place) -> None:
    made = place.build(place.cluster(vault={"mount": "shared", "existing": True}))
    assert not [resource for resource in made.resources if "Mount" in resource.type]
    assert made["KeyProvider vault"].inputs["mountPath"] == "shared"


def test_two_stacks_on_one_mount_have_nothing_in_it_in_common(place: Place) -> None:
    def names(**vault: Any) -> list[str]:
        made = place.build(place.cluster("db2", vault={"mount": "team/tde", **vault}))
        labels = ("index/policy:Policy db1-policy", "index/policy:Policy db2-policy")
        return [
            made[f"vault:{label}"].inputs["name"]
            for label in (*labels, "kv/secretV2:SecretV2 orders-replication-secret")
        ]

    assert names() == ["team_2ftde__db1", "team_2ftde__db2", "replication/replicator"]
    assert names(existing=True) == [
        "team_2ftde__orders__db1",
        "team_2ftde__orders__db2",
        "replication/orders/replicator",
    ]


def test_in_a_disposable_cluster_what_goes_with_the_directory_is_not_taken_away_by_sql(place: Place) -> None:
    made = place.build(place.cluster("db2", disposable=True))
    claim = made["CleanupRecord db1"].urn
    for label in ("ReplicationRole replicator", "ReplicationSlot tde_db2", "KeyProvider vault"):
        assert made[label].deleted_with == claim
    assert made["Server db1"].deleted_with == ""
    assert made["DataDirectory db2"].deleted_with == ""


def test_two_clusters_of_one_stack_share_no_name(place: Place) -> None:
    made = place.build_two(place.cluster("db2"), elsewhere(place, place.cluster("db2")))
    assert len(set(made.labels)) == len(made.labels)
    assert {*WHOLE, "Server ledger-db1", "ReplicationRole ledger-replicator", "Token ledger-db2-token"} <= set(
        made.labels
    )
    assert len(made.labels) == 2 * len(WHOLE)
    assert {one.inputs["path"] for one in made.of("vault:index/mount:Mount")} == {"tde-orders", "tde-orders-ledger"}


def test_what_two_clusters_would_both_occupy_is_refused(place: Place) -> None:
    one = place.cluster("db2")
    with pytest.raises(StackFileError) as refused:
        place.build_two(one, one)
    data = place.root / "db1" / "data"
    taken = 'is also used by db1 of EncryptedReplication "orders": choose another'
    assert refused.value.mistakes[:2] == [
        f"cluster.servers.db1.port: {one.primary_server.port} {taken}",
        f"cluster.servers.db1.dataDirectory: {data} {taken}",
    ]
    assert len(refused.value.mistakes) == 4


def elsewhere(place: Place, cluster: settings.Cluster) -> settings.Cluster:
    """The same in other directories."""

    def moved(server: settings.Server) -> settings.Server:
        return server.model_copy(update={"data_directory": str(place.root / f"other {server.name}" / "data")})

    return cluster.model_copy(update={"servers": {name: moved(one) for name, one in cluster.servers.items()}})
