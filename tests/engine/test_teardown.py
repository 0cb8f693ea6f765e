"""`destroy`, whatever state the cluster is in: what goes, what stays, and what it says."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import hvac.exceptions
import pytest

from tde_replication.hosts.account import service_account
from tde_replication.hosts.local.machine import LocalHost
from tests.engine.cluster import Cluster
from tests.engine.interruption import (
    destroyed_after_every_step,
    interrupted,
    kill_engine,
    lose_state,
    strays_gone,
)
from tests.engine.workspace import Output, eventually
from tests.removal import removed_under_its_server

MOUNT = "tde-down"
LEAVE = "TDE_REPLICATION_LEAVE_UNREACHABLE"


@pytest.fixture
def cluster(not_there_yet: Cluster) -> Cluster:
    return not_there_yet


def declare(cluster: Cluster, standbys: int, *, db1: dict[str, Any] | None = None, **changes: Any) -> None:
    """So many of the standbys, another primary `db1`, and other settings."""
    declared = cluster.workspace.cluster
    cluster.names = cluster.names[: standbys + 1]
    servers = {name: declared["servers"][name] for name in cluster.names}
    cluster.workspace.write({**declared, "servers": {**servers, "db1": db1 or servers["db1"]}, **changes})


def _up(cluster: Cluster, **changes: Any) -> None:
    declare(cluster, 1, **changes)
    cluster.workspace.up_well()


def leaving(cluster: Cluster) -> Output:
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
    State("standby's data directory removed under it", lambda cluster: removed_under_its_server(cluster.data("db2"))),
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


@_states(
    *("primary killed", "standby promoted", "role dropped"),
    *("standby's data directory gone", "standby's data directory removed under it"),
)
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
        assert any("Make it reachable" in line and f"{LEAVE}=true" in line for line in done.errors), done.errors
        done = leaving(cluster)
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
    LocalHost().start(cluster.binaries, PurePosixPath(aside))
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


ON_SERVERS = "^(?!Mount|Policy|Token|Secret)"
"""Steps of our own resources; what pulumi-vault was just making stays in Vault until the next `up`."""


@pytest.mark.parametrize("among", ["DataDirectory db2|Server db1", pytest.param(ON_SERVERS, marks=pytest.mark.soak)])
def test_a_first_up_that_never_ended(cluster: Cluster, among: str) -> None:
    declare(cluster, 1)

    def nothing_left() -> None:
        assert not [name for name in cluster.names if cluster.running(name)]
        assert [str(path) for path in cluster.base.glob("*/*")] == []

    steps = destroyed_after_every_step(cluster, lose_state, among, nothing_left)
    assert len(steps) > (10 if among == ON_SERVERS else 1), steps
    _nothing_left(cluster)


def test_a_standby_removed_from_the_stack_file(cluster: Cluster) -> None:
    cluster.workspace.up_well()
    pids = {name: cluster.pid(name) for name in ("db1", "db2")}
    started = cluster.sql("db2", "SELECT pid FROM pg_stat_wal_receiver")
    declare(cluster, 1)
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
    assert preview.plan["DataDirectory db2"] == "replace"
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
    cluster.workspace.write({**alone, "servers": {**alone["servers"], "db3": _third(cluster)}})
    output, _ = interrupted(cluster, ["up"], kill_engine, lambda step: step.startswith("DataDirectory db3"))
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
    assert "left by an interrupted `up`" not in cluster.workspace.destroy().text
    _nothing_left(cluster)


def _third(cluster: Cluster) -> dict[str, Any]:
    db2 = cluster.workspace.cluster["servers"]["db2"]
    return {**db2, "port": cluster.ports["db3"], "dataDirectory": str(cluster.data("db3"))}


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
