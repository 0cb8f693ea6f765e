"""A primary that somebody else made: what a stack does on it, and that it comes back as it was."""

import os
import shutil
import socket
import subprocess
from pathlib import PurePosixPath
from typing import Any

import pytest

from tde_replication.hosts.account import service_account
from tde_replication.hosts.local.machine import LocalHost
from tests.engine.cluster import Cluster
from tests.engine.interruption import destroyed_after_every_step, lose_state
from tests.engine.test_switchover import may_make_keys
from tests.engine.test_teardown import ON_SERVERS, declare, leaving
from tests.engine.workspace import eventually


@pytest.fixture
def cluster(not_there_yet: Cluster) -> Cluster:
    return not_there_yet


class Adopted:
    """A primary that somebody else made, with data, rules, settings and a role of their own."""

    def __init__(self, cluster: Cluster, *, encryption: bool) -> None:
        self.cluster = cluster
        account, data = service_account(), cluster.data("db1")
        data.parent.mkdir()
        os.chown(data.parent, account.uid, account.gid)
        LocalHost().run(
            [str(cluster.binaries / "initdb"), "--pgdata", str(data), "--username", "postgres", "--auth", "trust"],
            deadline=60,
        )
        with (data / "postgresql.conf").open("a") as conf:
            libraries = "shared_preload_libraries = 'pg_tde'" if encryption else ""
            conf.write(f"port = {cluster.ports['db1']}\nlisten_addresses = '127.0.0.1'\n{libraries}\n")
            conf.write(f"unix_socket_directories = '{cluster.sockets('db1')}'\nwork_mem = '5MB'\n")
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("# somebody's own\nhost replication elder 192.0.2.1/32 scram-sha-256\n")
        cluster.start("db1")
        self._sql("ALTER SYSTEM SET maintenance_work_mem = '70MB'; ALTER SYSTEM SET max_wal_size = '2GB'")
        self._sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'; SELECT pg_reload_conf()")
        self._sql("CREATE TABLE public.t AS SELECT 42 AS a; CREATE ROLE elder WITH REPLICATION LOGIN PASSWORD 'old'")
        db1 = {**cluster.workspace.cluster["servers"]["db1"], "adopt": True, "restart": "refused"}
        synchronous = {"standbys": ["db2"]}
        declare(cluster, 1, db1=db1, encryption="required" if encryption else "off", synchronous=synchronous)
        self.before = self.look()

    def _sql(self, query: str) -> list[tuple[Any, ...]]:
        return self.cluster.sql("db1", query)

    def look(self) -> dict[str, Any]:
        """Everything that must be as it was."""
        return {
            "pid": self.cluster.pid("db1"),
            "rules": (self.cluster.data("db1") / "pg_hba.conf").read_text(),
            "settings": self._sql("SELECT name, setting, sourcefile FROM pg_file_settings WHERE applied ORDER BY name"),
            "in force": self._sql("SELECT name, setting FROM pg_settings WHERE source <> 'session' ORDER BY name"),
            "roles": self._sql("SELECT rolname, rolpassword, rolreplication FROM pg_authid ORDER BY 1"),
            "slots": self._sql("SELECT slot_name FROM pg_replication_slots"),
            "data": self._sql("SELECT a FROM public.t"),
            "extensions": self._sql("SELECT extname FROM pg_extension ORDER BY 1"),
            "files": sorted(path.name for path in self.cluster.base.glob("db1/[!.]*")),
        }


@pytest.mark.parametrize(
    "among", ["ReplicationSlot|HbaRule|Server db1|Synchronous", pytest.param(ON_SERVERS, marks=pytest.mark.soak)]
)
def test_an_adopted_primary_keeps_nothing_of_an_up_that_never_ended(cluster: Cluster, among: str) -> None:
    adopted = Adopted(cluster, encryption=False)

    def nothing_left() -> None:
        assert adopted.look() == adopted.before
        assert list((cluster.base / "db2").glob("*")) == []

    steps = destroyed_after_every_step(cluster, lose_state, among, nothing_left)
    assert len(steps) > (8 if among == ON_SERVERS else 1), steps


def test_a_primary_that_is_encrypted_already_is_not_adopted_with_keys_of_its_own(cluster: Cluster) -> None:
    adopted = Adopted(cluster, encryption=True)
    client, account = cluster.bao.client(), service_account()
    client.sys.enable_secrets_engine("kv", path="elder", options={"version": "2"})
    token = cluster.base / "db1" / "elder.token"
    token.write_text(cluster.bao.token)
    os.chown(token, account.uid, account.gid)
    shutil.copy(cluster.bao.ca, cluster.base / "elder-ca.pem")
    cluster.sql(
        "db1",
        "CREATE EXTENSION pg_tde; "
        f"SELECT pg_tde_add_global_key_provider_vault_v2('vault', '{cluster.bao.address}', 'elder', '{token}', "
        f"'{cluster.base / 'elder-ca.pem'}'); "
        "SELECT pg_tde_create_key_using_global_key_provider('elder-key', 'vault'); "
        "SELECT pg_tde_set_server_key_using_global_key_provider('elder-key', 'vault')",
    )
    before = adopted.look()
    done = cluster.workspace.preview()
    assert done.code != 0
    assert (
        'cluster.servers.db1.adopt: the server has key provider "vault", server key "elder-key" of its own: '
        in done.text
    )
    assert adopted.look() == before
    cluster.stop("db1")
    client.sys.disable_secrets_engine("elder")


@pytest.mark.parametrize(
    "encryption", [pytest.param(True, id="pg_tde"), pytest.param(False, id="plain", marks=pytest.mark.soak)]
)
def test_an_adopted_primary_comes_back_as_it_was(cluster: Cluster, encryption: bool) -> None:  # noqa: FBT001
    adopted = Adopted(cluster, encryption=encryption)
    if encryption:
        declare(cluster, 1, database="nowhere")
        assert f"the server on {cluster.data('db1')} has no database nowhere" in cluster.workspace.preview().text
        declare(cluster, 1, database="postgres")
    cluster.workspace.up_well()
    assert cluster.streaming() == ["tde_db2"]
    assert cluster.sql("db1", "SELECT sync_state FROM pg_stat_replication") == [("quorum",)]
    assert adopted.look()["pid"] == adopted.before["pid"]
    cluster.workspace.unchanged()
    declared = cluster.workspace.cluster["servers"]["db1"]
    for changed in (
        {"maintenance_work_mem": "80MB", "max_wal_size": "3GB", "wal_keep_size": "16MB"},
        {"maintenance_work_mem": "90MB", "wal_keep_size": "16MB"},
    ):
        declare(cluster, 1, db1={**declared, "settings": changed})
        cluster.workspace.up_well()
        cluster.workspace.unchanged()
    assert cluster.sql("db1", "SELECT current_setting('maintenance_work_mem'), current_setting('max_wal_size')") == [
        ("90MB", "2GB")
    ]
    done = cluster.workspace.destroy()
    assert done.code == 0, done.errors
    after = adopted.look()
    if encryption:  # its server key can never be unset: with it stay the token, the CA, the key and what opens it
        adopted.before["files"] = ["data", "down.vault-ca.pem", "down.vault-token", "postgresql.log"]
    assert after == adopted.before
    if encryption:
        cluster.stop("db1")
        cluster.start("db1")
        assert cluster.sql("db1", "SELECT a FROM public.t") == [(42,)]


def test_an_adopted_primary_gives_up_its_part_and_gets_it_back(cluster: Cluster) -> None:
    """One line each way. While it follows a server of the stack's own, it is not left as the standby of nobody."""
    adopted, workspace = Adopted(cluster, encryption=True), cluster.workspace
    declare(cluster, 1, synchronous={"standbys": ["db1", "db2"]})
    workspace.up_well()
    workspace.write({**workspace.cluster, "primary": "db2"})
    refused = workspace.preview()
    assert refused.code != 0
    assert (
        "switchover from db1 to db2: db1 must be stopped for it, and the stack says restart: refused: set restart: allowed for "
        "db1. Nothing is changed"
    ) in refused.text, refused.text
    declare(cluster, 1, db1={**workspace.cluster["servers"]["db1"], "restart": "allowed"})
    preview = workspace.preview()
    assert preview.code == 0, preview.text
    assert preview.plan["DataDirectory db1"] == preview.plan["Server db1"] == "update", preview.text
    workspace.up_well()
    assert cluster.sql("db2", "SELECT slot_name, active FROM pg_replication_slots") == [("tde_db1", True)]
    assert cluster.sql("db1", "SELECT pg_is_in_recovery(), current_setting('work_mem')") == [(True, "5MB")]
    assert [may_make_keys(cluster, name) for name in ("db1", "db2")] == [False, True]
    workspace.unchanged()

    both = workspace.cluster
    alone = {name: value for name, value in both.items() if name != "synchronous"}
    workspace.write({**alone, "servers": {"db2": both["servers"]["db2"]}})
    for done in (workspace.preview(), workspace.destroy()):
        assert done.code != 0
        assert "db1 was here before the stack, and would be left as a standby without a primary" in done.text, done.text
    workspace.write(both)
    workspace.unchanged()

    workspace.write({**both, "primary": "db1"})
    workspace.up_well()
    done = workspace.destroy()
    assert done.code == 0, done.errors
    assert may_make_keys(cluster, "db1")
    expected = {
        **adopted.before,
        "pid": 0,
        "files": ["data", "down.vault-ca.pem", "down.vault-token", "postgresql.log"],
    }
    assert {**adopted.look(), "pid": 0} == expected


def test_a_restart_of_a_primary_that_is_to_be_adopted_is_told_at_preview(cluster: Cluster) -> None:
    adopted = Adopted(cluster, encryption=False)
    db1 = cluster.workspace.cluster["servers"]["db1"] | {"settings": {"max_connections": "130"}}
    del db1["restart"]
    declare(cluster, 1, db1=db1)
    refused = cluster.workspace.preview()
    assert refused.code != 0
    assert "cluster.servers.db1: server db1 must be restarted for max_connections" in refused.text, refused.text
    declare(cluster, 1, db1=db1 | {"restart": "allowed"})
    allowed = cluster.workspace.preview()
    assert allowed.code == 0, allowed.errors
    assert "server db1 will be restarted: max_connections can only change at start" in allowed.text
    assert adopted.look() == adopted.before


def test_who_else_depends_on_a_primary_that_is_to_be_adopted_is_told(cluster: Cluster) -> None:
    """A slot of theirs would be given up, a standby of theirs stop; nothing is touched."""
    adopted = Adopted(cluster, encryption=True)
    cluster.sql("db1", "ALTER SYSTEM RESET max_slot_wal_keep_size; SELECT pg_reload_conf()")
    cluster.sql("db1", "SELECT pg_create_physical_replication_slot('theirs', true)")
    # As a standby of theirs would.
    environment = {
        "PGAPPNAME": "elder",
        "PGHOST": str(cluster.sockets("db1")),
        "PGPORT": str(cluster.ports["db1"]),
        "PGUSER": "postgres",
    }
    command = [str(cluster.binaries / "pg_receivewal"), "-D", str(cluster.base / "db1"), "-S", "theirs"]
    receiver = subprocess.Popen(command, env=environment)
    try:
        eventually(lambda: cluster.sql("db1", "SELECT count(*) FROM pg_stat_replication") == [(1,)])
        before = adopted.look()
        refused = cluster.workspace.preview()
        assert refused.code != 0
        slots = (
            "it is -1 on the server that is to be adopted, and its replication slots theirs would be given up beyond"
        )
        assert f"cluster.replication.maxSlotWalKeepSize: missing; {slots} the default of 4GB" in refused.text
        assert "standbys that this stack did not make stream from the server (elder from a socket)" in refused.text
        declare(cluster, 1, encryption="off", replication={"maxSlotWalKeepSize": "-1"})
        assert cluster.workspace.preview().code == 0
        assert {**adopted.look(), "files": []} == {**before, "files": []}
    finally:
        receiver.terminate()
        receiver.wait()


def test_a_standby_obeys_nothing_that_was_written_for_an_adopted_primary(cluster: Cluster) -> None:
    """It would be a second primary, take no connections, or start on the primary's own directory."""
    adopted = Adopted(cluster, encryption=False)
    included = cluster.base / "db1" / "conf.d"
    lines = (
        f"data_directory = '{cluster.data('db1')}'\nhot_standby = off\nexternal_pid_file = '{cluster.base}/db1/pid'\n"
    )
    LocalHost().write(PurePosixPath(included / "one.conf"), lines.encode(), mode=0o600)
    with (cluster.data("db1") / "postgresql.conf").open("a") as conf:
        conf.write(f"include_dir = '{included}'\n")
    for setting in ("recovery_target = 'immediate'", "recovery_target_action = 'promote'", "archive_mode = on"):
        cluster.sql("db1", f"ALTER SYSTEM SET {setting}")
    cluster.stop("db1")
    cluster.start("db1")
    before = adopted.look()
    shown = cluster.workspace.preview()
    assert (
        "db2 will not take over from db1: archive_mode (two servers would write into one archive); hot_standby (a standby that "
        "takes no connections cannot be checked); recovery_target, recovery_target_action (the clone would stop there, or become "
        "a primary)"
    ) in " ".join(shown.text.split()), shown.text
    cluster.workspace.up_well()
    assert cluster.streaming() == ["tde_db2"]
    assert cluster.sql("db2", "SELECT pg_is_in_recovery(), current_setting('data_directory')") == [
        (True, str(cluster.data("db2")))
    ]
    cluster.workspace.unchanged()
    assert cluster.workspace.destroy().code == 0
    assert adopted.look() == before


def test_all_that_an_adopted_primary_has_against_a_standby_is_told_together(cluster: Cluster) -> None:
    adopted = Adopted(cluster, encryption=False)
    fast = cluster.base / "fast"
    fast.mkdir(mode=0o700)
    shutil.chown(fast, service_account().name)
    cluster.sql("db1", f"CREATE TABLESPACE fast LOCATION '{fast}'")
    port = cluster.ports["db1"]
    db1 = cluster.workspace.cluster["servers"]["db1"]
    with socket.create_server(("127.0.0.1", cluster.ports["db2"])):
        declare(cluster, 1, db1={**db1, "port": port + 1})
        refused = cluster.workspace.preview()
    assert refused.code != 0
    for told in (
        f"cluster.servers.db1.port: the server on {cluster.data('db1')} listens on {port}, and the stack file says {port + 1}",
        f"cluster.servers.db2.host: db1 has tablespaces outside of its data directory (fast in {fast}), and a standby on the ",
        f"cluster.servers.db2.port: {cluster.ports['db2']} is in use on 127.0.0.1, by ",
    ):
        assert told in refused.text, refused.text
    cluster.sql("db1", "DROP TABLESPACE fast")
    assert adopted.look() == adopted.before


def test_an_adopted_primary_that_is_dead(cluster: Cluster) -> None:
    adopted = Adopted(cluster, encryption=False)
    cluster.workspace.up_well()
    cluster.kill("db1")
    done = cluster.workspace.destroy()
    assert done.code != 0
    assert any("no server runs on" in line and "Make it reachable" in line for line in done.errors), done.errors
    assert not cluster.running("db1")
    cluster.start("db1")
    done = cluster.workspace.destroy()
    assert done.code == 0, done.errors
    assert {**adopted.look(), "pid": 0} == {**adopted.before, "pid": 0}


def test_an_adopted_primary_that_is_left_behind(cluster: Cluster) -> None:
    Adopted(cluster, encryption=False)
    cluster.workspace.up_well()
    cluster.kill("db1")
    done = leaving(cluster)
    assert done.code == 0, done.errors
    for what in (
        "ReplicationSlot tde_db2",
        "ReplicationRole replicator",
        "HbaRule replicator 127.0.0.1/32",
        "Server db1",
    ):
        assert f"left behind: {what} (no server runs on" in done.text
    assert cluster.data("db1").exists()
    assert not cluster.data("db2").exists()


def test_a_role_that_was_there_before_comes_back_as_it_was(cluster: Cluster) -> None:
    adopted = Adopted(cluster, encryption=False)
    cluster.sql("db1", "CREATE ROLE replicator WITH REPLICATION LOGIN PASSWORD 'theirs' VALID UNTIL '2099-01-01'")
    before = adopted.look()
    cluster.workspace.up_well()
    assert cluster.workspace.destroy().code == 0
    assert adopted.look() == before
