"""What a killed, cut off or half-finished `up` or `destroy` leaves, and that the next one finishes the work by itself."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tde_replication.hosts.account import service_account
from tests.engine.cluster import Cluster, base_directory
from tests.engine.interruption import (
    OF_A_PERSON,
    OF_SERVERS,
    Kill,
    at_every_step,
    ctrl_c,
    ctrl_c_twice,
    interrupted,
    kill_engine,
    kill_provider,
    leftovers,
    lose_state,
    strays_gone,
    whole,
)
from tests.engine.workspace import Output, Workspace, eventually
from tests.openbao import OpenBao

UP, DESTROY = ["up"], ["destroy"]
EVERY = ""
CLONE = "DataDirectory db2 creating"


def _ways(among: str, kill: Kill) -> pytest.MarkDecorator:
    """A sample of steps with the worst kill for every run; every step with every kill for `make soak`."""
    every = [
        pytest.param(kill, EVERY, id=f"{kill.__name__} at every step", marks=pytest.mark.soak)
        for kill in (kill_engine, lose_state, kill_provider, *OF_SERVERS, *OF_A_PERSON)
    ]
    return pytest.mark.parametrize(
        ("kill", "among"), [pytest.param(kill, among, id=f"{kill.__name__}: {among}"), *every]
    )


@pytest.fixture
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path: Path) -> Iterator[Cluster]:
    """Not there yet: a stack of one primary and one standby, and the name and port of another standby."""
    base = base_directory()
    workspace = Workspace(tmp_path, "kill", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=encrypted_binaries)
    workspace.init()
    _standbys(made, 1)
    yield made
    openbao.start()
    workspace.unlock()
    done = workspace.destroy()
    strays_gone(made)
    for name in ("db1", "db2", "db3"):
        if made.running(name):
            made.kill(name)
    shutil.rmtree(base)
    workspace.close()
    assert done.code == 0, done.errors


def _standbys(cluster: Cluster, count: int, *, parameters: dict[str, Any] | None = None, **changes: object) -> None:
    """Declare so many of the standbys, `parameters` of the primary, and other settings."""
    names = ["db1", "db2", "db3"][: count + 1]
    binaries = str(cluster.binaries)
    declared: dict[str, dict[str, Any]] = {
        name: {"port": cluster.ports[name], "dataDirectory": str(cluster.data(name)), "binaries": binaries}
        for name in names
    }
    declared["db1"]["settings"] = parameters or {}
    cluster.names = names
    cluster.workspace.write({**cluster.workspace.cluster, "servers": declared, **changes})


@_ways("Mount|ReplicationSlot|DataDirectory db2|Server db2", lose_state)
def test_up_from_nothing(cluster: Cluster, kill: Kill, among: str) -> None:
    steps = at_every_step(cluster, UP, kill, lambda: _destroyed(cluster), among)
    assert len(steps) > (10 if among == EVERY else 3), steps  # one by one, or side by side when one of them fails
    whole(cluster)


def _destroyed(cluster: Cluster) -> None:
    done = cluster.workspace.destroy()
    assert done.code == 0, done.errors


@_ways("ReplicationRole|DataDirectory db[23]", lose_state)
def test_up_that_changes(cluster: Cluster, kill: Kill, among: str) -> None:
    def begin() -> None:
        _standbys(cluster, 1, replication={"passwordVersion": 1})
        cluster.workspace.up_well()
        _standbys(cluster, 2, parameters={"max_connections": 77}, replication={"passwordVersion": 2})

    steps = at_every_step(cluster, UP, kill, begin, among)
    assert len(steps) > (5 if among == EVERY else 1), steps
    whole(cluster)
    assert cluster.sql("db1", "SHOW max_connections") == [("77",)]


@_ways("DataDirectory db[23]", lose_state)
def test_up_that_clones_anew(cluster: Cluster, kill: Kill, among: str) -> None:
    """A standby that cannot follow any more, and whose slot is gone too."""

    def begin() -> None:
        cluster.workspace.up_well()
        cluster.sql("db2", "SELECT pg_promote()")
        eventually(lambda: cluster.streaming() == [])
        cluster.sql("db1", "SELECT pg_drop_replication_slot('tde_db2')")

    steps = at_every_step(cluster, UP, kill, begin, among)
    assert len(steps) > (3 if among == EVERY else 1), steps
    whole(cluster)
    assert cluster.sql("db2", "SELECT pg_is_in_recovery()") == [(True,)]


@_ways("ReplicationSlot|DataDirectory", kill_engine)
def test_destroy(cluster: Cluster, kill: Kill, among: str) -> None:
    steps = at_every_step(cluster, DESTROY, kill, cluster.workspace.up_well, among)
    assert len(steps) > (4 if among == EVERY else 1), steps
    nothing_left(cluster)


def nothing_left(cluster: Cluster) -> None:
    assert not [name for name in cluster.names if cluster.running(name)]
    assert sorted(str(path.relative_to(cluster.base)) for path in cluster.base.glob("*/*")) == []
    assert "tde-kill/" not in cluster.bao.client().sys.list_mounted_secrets_engines()["data"]


@pytest.mark.soak
def test_primary_killed(cluster: Cluster) -> None:
    _at(cluster, "DataDirectory db2", lambda: cluster.kill("db1"))
    cluster.workspace.up_well()
    whole(cluster)


@pytest.mark.soak
def test_standby_killed(cluster: Cluster) -> None:
    _at(cluster, "ReplicationCheck", lambda: cluster.kill("db2"))
    cluster.workspace.up_well()
    whole(cluster)


@pytest.mark.soak
def test_vault_killed(cluster: Cluster) -> None:
    _at(cluster, "KeyProvider", cluster.bao.kill)
    cluster.bao.start()
    cluster.workspace.up_well()
    whole(cluster)


def _at(cluster: Cluster, step: str, act: Callable[[], object]) -> Output:
    """Run `up` and `act` when it begins `step`."""
    output, reached = interrupted(cluster, UP, lambda *_: act(), lambda name: name.startswith(step))
    assert reached
    strays_gone(cluster)
    assert output.code == 0 or all("Traceback" not in line for line in output.errors), output.text
    return output


def test_interrupted_once_it_ends_its_steps(cluster: Cluster) -> None:
    output, _ = interrupted(cluster, UP, ctrl_c, lambda name: name == CLONE)
    assert output.code != 0
    assert "DataDirectory db2 created" in output.text
    assert not cluster.workspace.unlock()
    strays_gone(cluster)
    cluster.workspace.up_well()
    whole(cluster)


def test_interrupted_twice_it_ends_at_once(cluster: Cluster) -> None:
    output, _ = interrupted(cluster, UP, ctrl_c_twice, lambda name: name == CLONE)
    assert output.code != 0
    strays_gone(cluster)
    cluster.workspace.unlock()
    cluster.workspace.up_well()
    whole(cluster)


def test_destroy_is_interrupted_like_up(cluster: Cluster) -> None:
    cluster.workspace.up_well()
    for pressed in OF_A_PERSON:
        output, step = interrupted(cluster, DESTROY, pressed, lambda name: name.startswith(("Replication", "Server")))
        assert step, pressed
        assert "^C received" in output.text  # its exit status is 0 then
        assert "postgres:Server" in cluster.workspace.state(), "it came to its end"
        strays_gone(cluster)
        cluster.workspace.unlock()
    assert cluster.workspace.destroy().code == 0
    nothing_left(cluster)


def test_two_at_once(cluster: Cluster) -> None:
    others: list[Output] = []
    output, _ = interrupted(
        cluster, UP, lambda *_: others.append(cluster.workspace.up()), lambda name: name.startswith("DataDirectory")
    )
    assert output.code == 0, output.errors
    assert others[0].code != 0
    assert "the stack is currently locked" in others[0].text
    whole(cluster)


def test_disk_full_during_the_clone(cluster: Cluster) -> None:
    place = cluster.base / "db2"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size=12m,mode=0711,uid={service_account().uid}", "tmpfs", place], check=False
    )
    if mounted.returncode:
        pytest.skip("this account may not mount a small file system: a full disk was NOT tested")
    try:
        output = cluster.workspace.up()
        assert output.code != 0
        assert any("No space left on device" in line and "Nothing of it is left" in line for line in output.errors)
        assert leftovers(cluster) == []
        assert cluster.sql("db1", "SELECT active FROM pg_replication_slots") == [(False,)]
        subprocess.run(["mount", "-o", "remount,size=1g", place], check=True)
        cluster.workspace.up_well()
        whole(cluster)
        assert cluster.workspace.destroy().code == 0
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_network_cut_during_the_clone(cluster: Cluster) -> None:
    _standbys(cluster, 0)
    cluster.workspace.up_well()
    cluster.sql("db1", "CREATE TABLE big AS SELECT repeat('x', 7000) FROM generate_series(1, 15000)")
    cluster.sql("db1", "ALTER TABLE big ALTER COLUMN repeat SET STORAGE EXTERNAL")
    _standbys(cluster, 1)

    def cut() -> None:
        def running() -> bool:
            return bool(cluster.sql("db1", "SELECT pg_terminate_backend(pid) FROM pg_stat_progress_basebackup"))

        eventually(running)

    output = _at(cluster, "DataDirectory db2", cut)
    assert output.code != 0
    assert any("base backup of db1" in line and "Nothing of it is left" in line for line in output.errors), output.text
    assert leftovers(cluster) == []
    cluster.workspace.up_well()
    whole(cluster)
