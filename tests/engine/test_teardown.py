"""`destroy`, whatever state the cluster is in: what goes, what stays, and what it says."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import hvac.exceptions
import pytest

from components.hosts.account import service_account
from components.hosts.local import LocalHost
from tests.engine.cluster import Cluster, base_directory
from tests.engine.interruption import (
    destroyed_after_every_step,
    interrupted,
    kill_engine,
    lose_state,
    strays_gone,
)
from tests.engine.workspace import Output, Workspace, eventually
from tests.openbao import OpenBao

MOUNT = "tde-down"
LEAVE = "TDE_REPLICATION_LEAVE_UNREACHABLE"


@pytest.fixture
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path: Path) -> Iterator[Cluster]:
    """Not there yet: one primary and two standbys, disposable."""
    base = base_directory()
    workspace = Workspace(tmp_path, "down", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=encrypted_binaries)
    workspace.init()
    yield made
    openbao.start()
    strays_gone(made)
    for place in base.glob("*/*"):
        if running := LocalHost().postmaster(PurePosixPath(place)):
            os.kill(running.pid, signal.SIGKILL)
    _forget(openbao)
    shutil.rmtree(base)
    workspace.close()


def _forget(bao: OpenBao) -> None:
    """Take away what a stack left in the Vault."""
    system = bao.client().sys
    system.disable_secrets_engine(MOUNT)
    for kind in ("primary", "standby"):
        system.delete_policy(f"{MOUNT}-{kind}")


def _declare(cluster: Cluster, standbys: int, **changes: Any) -> None:
    declared = cluster.workspace.cluster
    cluster.names = cluster.names[: standbys + 1]
    cluster.workspace.write({**declared, "standbys": declared["standbys"][:standbys], **changes})


def _up(cluster: Cluster, **changes: Any) -> None:
    _declare(cluster, 1, **changes)
    cluster.workspace.up_well()


def _leaving(cluster: Cluster) -> Output:
    """Destroy with what does not answer left behind."""
    cluster.workspace.environment[LEAVE] = "true"
    try:
        return cluster.workspace.destroy()
    finally:
        del cluster.workspace.environment[LEAVE]


def _gone(cluster: Cluster, name: str) -> None:
    cluster.kill(name)
    shutil.rmtree(cluster.data(name))


def _drop_slot(cluster: Cluster) -> None:
    cluster.stop("db2")
    eventually(lambda: not cluster.streaming())
    cluster.sql("db1", "SELECT pg_drop_replication_slot('tde_db2')")


def _revoke(cluster: Cluster) -> None:
    token = cluster.file("db1", "vault-token").read_text()
    cluster.bao.client().auth.token.revoke(token)


@dataclass(frozen=True)
class State:
    """What has become of a cluster. `needs_primary`: what lies on the primary cannot be taken away one by one."""

    what: str
    act: Callable[[Cluster], object]
    needs_primary: bool = False

    def __str__(self) -> str:
        return self.what


STATES = [
    State("untouched", lambda _: None),
    State("primary stopped", lambda cluster: cluster.stop("db1"), needs_primary=True),
    State("primary killed", lambda cluster: cluster.kill("db1"), needs_primary=True),
    State("primary's data directory gone", lambda cluster: _gone(cluster, "db1"), needs_primary=True),
    State("standby stopped", lambda cluster: cluster.stop("db2")),
    State("standby killed", lambda cluster: cluster.kill("db2")),
    State("standby promoted", lambda cluster: cluster.sql("db2", "SELECT pg_promote()")),
    State("standby's data directory gone", lambda cluster: _gone(cluster, "db2")),
    State("slot dropped", _drop_slot),
    State("role dropped", lambda cluster: cluster.sql("db1", "DROP ROLE replicator")),
    State("token revoked", _revoke),
]


def _states(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "state",
        [pytest.param(state, marks=() if state.what in names else pytest.mark.soak) for state in STATES],
        ids=str,
    )


@_states("primary killed", "standby promoted", "standby's data directory gone", "role dropped")
def test_a_disposable_stack_is_gone(cluster: Cluster, state: State) -> None:
    _up(cluster)
    state.act(cluster)
    done = cluster.workspace.destroy()
    assert done.code == 0, done.errors
    _nothing_left(cluster)


def _nothing_left(cluster: Cluster) -> None:
    assert [str(path) for path in cluster.base.glob("*/*")] == []
    assert f"{MOUNT}/" not in cluster.bao.client().sys.list_mounted_secrets_engines()["data"]
    strays_gone(cluster)


@_states("untouched", "primary killed", "slot dropped")
def test_other_stacks_keep_data_and_keys(cluster: Cluster, state: State) -> None:
    _up(cluster, disposable=False)
    cluster.sql("db1", "CREATE TABLE t USING tde_heap AS SELECT 42 AS a; CHECKPOINT")
    state.act(cluster)
    done = cluster.workspace.destroy()
    if state.needs_primary:
        assert done.code != 0
        assert any("Bring that back" in line and f"{LEAVE}=true" in line for line in done.errors), done.errors
        done = _leaving(cluster)
        assert "left behind: ReplicationSlot tde_db2 (no server runs on" in done.text
    assert done.code == 0, done.errors
    assert not [name for name in cluster.names if cluster.running(name)]
    key = cluster.bao.client().secrets.kv.v2.read_secret_version(
        "down-principal-key", mount_point=MOUNT, raise_on_deleted_version=True
    )
    assert key["data"]["metadata"]["version"] == 1
    assert not cluster.data("db2").exists()
    if "data directory gone" not in state.what:
        _start_aside(cluster)
        assert cluster.sql("db1", "SELECT a FROM t") == [(42,)]
        slots = cluster.sql("db1", "SELECT count(*) FROM pg_replication_slots")
        assert slots == [(1 if state.needs_primary else 0,)]


def _start_aside(cluster: Cluster) -> None:
    """Start the primary's data that was set aside, as docs/teardown.md says: with a token and the CA in their places."""
    (aside,) = (cluster.base / "db1").glob("data.set-aside-*")
    account = service_account()
    for kind, text in (("vault-token", cluster.bao.token), ("vault-ca.pem", cluster.bao.ca.read_text())):
        file = cluster.file("db1", kind)
        file.write_text(text)
        os.chown(file, account.uid, account.gid)
    LocalHost().launch(cluster.binaries, PurePosixPath(aside))
    eventually(lambda: cluster.answers("db1"))


def test_a_protected_stack_refuses(cluster: Cluster) -> None:
    _up(cluster, protect=True)
    done = cluster.workspace.run("destroy", "--yes")
    assert done.code != 0
    assert "protected" in done.text
    assert cluster.streaming() == ["tde_db2"]
    cluster.workspace.unchanged()
    # Without its preview Pulumi refuses too late for the standbys; the primary and the keys stay as they are.
    assert cluster.workspace.destroy().code != 0
    assert cluster.answers("db1")
    assert f"{MOUNT}/" in cluster.bao.client().sys.list_mounted_secrets_engines()["data"]
    cluster.workspace.up_well()
    assert cluster.streaming() == ["tde_db2"]
    cluster.workspace.write({**cluster.workspace.cluster, "protect": False})
    cluster.workspace.up_well()
    assert cluster.workspace.destroy().code == 0
    _nothing_left(cluster)


ON_SERVERS = "^(?!Mount|Policy|Token|SecretV2)"
"""Steps of our own resources; what pulumi-vault was just making stays in Vault until the next `up`."""


@pytest.mark.parametrize("among", ["BaseBackup|Server db1", pytest.param(ON_SERVERS, marks=pytest.mark.soak)])
def test_a_first_up_that_never_ended(cluster: Cluster, among: str) -> None:
    _declare(cluster, 1)

    def nothing_left() -> None:
        assert not [name for name in cluster.names if cluster.running(name)]
        assert [str(path) for path in cluster.base.glob("*/*")] == []

    steps = destroyed_after_every_step(cluster, lose_state, among, nothing_left)
    assert len(steps) > (10 if among == ON_SERVERS else 1), steps
    _nothing_left(cluster)


@pytest.mark.parametrize("among", ["ReplicationSlot|HbaRule", pytest.param(ON_SERVERS, marks=pytest.mark.soak)])
def test_an_adopted_primary_keeps_nothing_of_an_up_that_never_ended(cluster: Cluster, among: str) -> None:
    adopted = Adopted(cluster, encryption=False)

    def nothing_left() -> None:
        assert adopted.look() == adopted.before
        assert list((cluster.base / "db2").glob("*")) == []

    steps = destroyed_after_every_step(cluster, lose_state, among, nothing_left)
    assert len(steps) > (8 if among == ON_SERVERS else 1), steps


def test_a_standby_removed_from_the_stack_file(cluster: Cluster) -> None:
    cluster.workspace.up_well()
    pids = {name: cluster.pid(name) for name in ("db1", "db2")}
    started = cluster.sql("db2", "SELECT pid FROM pg_stat_wal_receiver")
    _declare(cluster, 1)
    cluster.workspace.up_well()
    assert cluster.sql("db1", "SELECT slot_name FROM pg_replication_slots") == [("tde_db2",)]
    assert {name: cluster.pid(name) for name in ("db1", "db2")} == pids
    assert cluster.sql("db2", "SELECT pid FROM pg_stat_wal_receiver") == started
    assert not list((cluster.base / "db3").glob("*"))
    cluster.workspace.unchanged()
    assert cluster.workspace.destroy().code == 0


def test_a_disposable_primary_whose_data_is_gone_is_made_anew(cluster: Cluster) -> None:
    """With all that was in it, and its standbys from it."""
    _up(cluster)
    before = cluster.sql("db1", "SELECT system_identifier FROM pg_control_system()")
    _gone(cluster, "db1")
    preview = cluster.workspace.preview()
    assert preview.code == 0, preview.errors
    assert preview.plan["DataDirectory db1"] == "create"
    assert preview.plan["BaseBackup db2"] == "replace"
    cluster.workspace.up_well()
    cluster.workspace.unchanged()
    assert cluster.sql("db1", "SELECT system_identifier FROM pg_control_system()") != before
    assert cluster.streaming() == ["tde_db2"]
    assert cluster.workspace.destroy().code == 0
    _nothing_left(cluster)


def test_a_standby_that_never_came_is_removed_from_the_stack_file(cluster: Cluster) -> None:
    """Its slot is in no state: it would hold WAL back as long as the primary lives."""
    _up(cluster)
    cluster.names = ["db1", "db2", "db3"]
    alone = cluster.workspace.cluster
    cluster.workspace.write({**alone, "standbys": [*alone["standbys"], _third(cluster)]})
    output, _ = interrupted(cluster, ["up"], kill_engine, lambda step: step.startswith("BaseBackup"))
    assert output.code != 0
    strays_gone(cluster)
    cluster.workspace.unlock()
    # As if it had been killed a moment before.
    resources = json.loads(cluster.workspace.run("stack", "export").text)["deployment"]["resources"]
    [urn] = [one["urn"] for one in resources if one["urn"].endswith("ReplicationSlot::tde_db3")]
    assert cluster.workspace.run("state", "delete", urn, "--yes").code == 0
    assert cluster.sql("db1", "SELECT slot_name FROM pg_replication_slots ORDER BY 1") == [("tde_db2",), ("tde_db3",)]
    cluster.workspace.write(alone)
    cluster.workspace.up_well()
    assert cluster.sql("db1", "SELECT slot_name FROM pg_replication_slots") == [("tde_db2",)]
    assert not list((cluster.base / "db3").glob("*"))
    cluster.workspace.unchanged()
    assert "a killed `up` left it" not in cluster.workspace.destroy().text
    _nothing_left(cluster)


def _third(cluster: Cluster) -> dict[str, Any]:
    [db2] = cluster.workspace.cluster["standbys"]
    return {**db2, "name": "db3", "port": cluster.ports["db3"], "dataDirectory": str(cluster.data("db3"))}


def test_the_vault_sealed(cluster: Cluster) -> None:
    _up(cluster)
    cluster.bao.seal()
    done = cluster.workspace.destroy()
    assert done.code != 0
    assert any("sealed" in line.lower() for line in done.errors), done.errors
    cluster.bao.unseal()
    assert cluster.workspace.destroy().code == 0
    _nothing_left(cluster)


@pytest.mark.parametrize(
    "disposable", [pytest.param(True, id="disposable"), pytest.param(False, id="kept", marks=pytest.mark.soak)]
)
def test_the_vault_gone_for_good(cluster: Cluster, disposable: bool) -> None:  # noqa: FBT001
    """The commands of docs/teardown.md."""
    _up(cluster, disposable=disposable)
    cluster.bao.kill()
    assert cluster.workspace.destroy().code != 0
    assert cluster.running("db1")
    cluster.workspace.destroy("--refresh=false", "--continue-on-error")
    assert not [name for name in cluster.names if cluster.running(name)]
    assert not [name for name in cluster.names if cluster.data(name).exists()]
    left = cluster.workspace.run("stack", "rm", "--force", "--yes")
    assert left.code == 0, left.text
    cluster.bao.start()


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
            conf.write("unix_socket_directories = '/tmp'\nwork_mem = '5MB'\n")
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("# somebody's own\nhost replication elder 192.0.2.1/32 scram-sha-256\n")
        cluster.start("db1")
        self._sql("ALTER SYSTEM SET maintenance_work_mem = '70MB'; ALTER SYSTEM SET max_wal_size = '2GB'")
        self._sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'; SELECT pg_reload_conf()")
        self._sql("CREATE TABLE t AS SELECT 42 AS a; CREATE ROLE elder WITH REPLICATION LOGIN PASSWORD 'old'")
        declared = cluster.workspace.cluster
        primary = {**declared["primary"], "adopt": True, "restart": "refused"}
        _declare(cluster, 1, primary=primary, encryption="required" if encryption else "off")
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
            "data": self._sql("SELECT a FROM t"),
            "extensions": self._sql("SELECT extname FROM pg_extension ORDER BY 1"),
            "files": sorted(path.name for path in self.cluster.base.glob("db1/*")),
        }


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
        'cluster.primary.adopt: the server has key provider "vault", server key "elder-key" of its own: ' in done.text
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
        _declare(cluster, 1, database="nowhere")
        assert f"the server on {cluster.data('db1')} has no database nowhere" in cluster.workspace.preview().text
        _declare(cluster, 1, database="postgres")
    cluster.workspace.up_well()
    assert cluster.streaming() == ["tde_db2"]
    assert adopted.look()["pid"] == adopted.before["pid"]
    cluster.workspace.unchanged()
    declared = cluster.workspace.cluster["primary"]
    for changed in (
        {"maintenance_work_mem": "80MB", "max_wal_size": "3GB", "wal_keep_size": "16MB"},
        {"maintenance_work_mem": "90MB", "wal_keep_size": "16MB"},
    ):
        _declare(cluster, 1, primary={**declared, "settings": changed})
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
        assert cluster.sql("db1", "SELECT a FROM t") == [(42,)]


def test_a_restart_of_a_primary_that_is_to_be_adopted_is_told_at_preview(cluster: Cluster) -> None:
    adopted = Adopted(cluster, encryption=False)
    primary = cluster.workspace.cluster["primary"] | {"settings": {"max_connections": "130"}}
    del primary["restart"]
    _declare(cluster, 1, primary=primary)
    refused = cluster.workspace.preview()
    assert refused.code != 0
    assert "cluster.primary: server db1 must be restarted for max_connections" in refused.text, refused.text
    _declare(cluster, 1, primary=primary | {"restart": "allowed"})
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
    environment = {"PGAPPNAME": "elder", "PGHOST": "/tmp", "PGPORT": str(cluster.ports["db1"]), "PGUSER": "postgres"}
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
        _declare(cluster, 1, encryption="off", replication={"maxSlotWalKeepSize": "-1"})
        assert cluster.workspace.preview().code == 0
        assert {**adopted.look(), "files": []} == {**before, "files": []}
    finally:
        receiver.terminate()
        receiver.wait()


def test_an_adopted_primary_that_is_dead(cluster: Cluster) -> None:
    adopted = Adopted(cluster, encryption=False)
    cluster.workspace.up_well()
    cluster.kill("db1")
    done = cluster.workspace.destroy()
    assert done.code != 0
    assert any("no server runs on" in line and "Bring that back" in line for line in done.errors), done.errors
    assert not cluster.running("db1")
    cluster.start("db1")
    done = cluster.workspace.destroy()
    assert done.code == 0, done.errors
    assert {**adopted.look(), "pid": 0} == {**adopted.before, "pid": 0}


def test_an_adopted_primary_that_is_left_behind(cluster: Cluster) -> None:
    Adopted(cluster, encryption=False)
    cluster.workspace.up_well()
    cluster.kill("db1")
    done = _leaving(cluster)
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


def test_a_key_that_is_not_there_is_no_hindrance(cluster: Cluster) -> None:
    """A mount that somebody disabled: nothing to take away."""
    _up(cluster)
    cluster.bao.client().sys.disable_secrets_engine(MOUNT)
    with pytest.raises(hvac.exceptions.InvalidPath):
        cluster.bao.client().secrets.kv.v2.read_secret_version("x", mount_point=MOUNT, raise_on_deleted_version=True)
    done = cluster.workspace.destroy()
    assert done.code == 0, done.errors
    _nothing_left(cluster)


def test_a_standbys_directory_that_somebody_else_put_there_stays(cluster: Cluster) -> None:
    _up(cluster)
    _gone(cluster, "db2")
    cluster.data("db2").mkdir()
    (cluster.data("db2") / "theirs").write_text("do not touch")
    done = cluster.workspace.destroy()
    assert done.code == 0, done.errors
    assert (cluster.data("db2") / "theirs").read_text() == "do not touch"
    subprocess.run(["rm", "-r", cluster.data("db2")], check=True)
