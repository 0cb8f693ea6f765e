"""Another server becomes the primary: one line of the stack file, on the real engine, while somebody writes."""

import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.engine.cluster import Cluster, base_directory
from tests.engine.interruption import strays_gone
from tests.engine.switchover import (
    BETWEEN_CONTAINERS,
    ENOUGH,
    STEPS,
    VICTIMS,
    Switch,
    declare,
    figures,
    in_recovery,
    interrupted,
    killed,
    nothing_lost,
    primary,
    waits,
    whole,
)
from tests.engine.workspace import Output, Workspace, eventually
from tests.engine.writer import writing
from tests.openbao import OpenBao

SERVERS = ["db1", "db2", "db3"]


@pytest.fixture(scope="module")
def cluster(openbao: OpenBao, encrypted_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    base = base_directory()
    workspace = Workspace(tmp_path_factory.mktemp("switch"), "switch", openbao.environment)
    made = Cluster(workspace, base, 2, openbao, binaries=encrypted_binaries)
    workspace.init()
    workspace.up_well()
    made.sql("db1", "CREATE TABLE written (number int PRIMARY KEY) USING tde_heap")
    yield made
    done = workspace.destroy()
    assert done.code == 0, done.text
    shutil.rmtree(base)


def may_make_keys(cluster: Cluster, name: str) -> bool:
    """With the token that the server has."""
    token, path = cluster.file(name, "vault-token").read_text(), f"tde-{cluster.workspace.stack}/data/another"
    held = cluster.bao.client().write("sys/capabilities", token=token, paths=[path])["data"][path]
    return "create" in held


def test_a_switchover_is_one_update_and_clones_nothing(cluster: Cluster) -> None:
    workspace = cluster.workspace
    made = {name: cluster.sql(name, "SELECT pg_postmaster_start_time()") for name in ("db2", "db3")}
    before = primary(cluster)
    assert before == "db1"
    cluster.sql(before, "TRUNCATE written")
    declare(cluster, "db2")
    preview = workspace.preview()
    assert preview.code == 0, preview.errors
    assert preview.plan["Topology switch"] == "update"
    assert 'primary : "db1" => "db2"' in preview.words
    writes = "writes are refused for about 1 s, while it stops and db2 is promoted; its clients must reconnect"
    assert told(preview) == [
        f"db1: primary → standby of db2, without a new clone; {writes}",
        "db2: standby → primary; it is … bytes behind",
        "db3: follows db2 instead of db1, by a reload",
    ]
    assert {step for what, step in preview.plan.items() if what.startswith(("DataDirectory", "Server"))} == {"update"}
    in_vault = {what: step for what, step in preview.plan.items() if what.startswith(("Policy", "Token", "HostFile"))}
    assert in_vault == {
        "Policy db1-policy": "update",
        "Policy db2-policy": "update",
        "HostFile db1-pgpass": "create",
        "HostFile db2-pgpass": "delete",
    }
    with writing(cluster, SERVERS) as writer:
        eventually(lambda: len(writer.commits) > 20)
        workspace.up_well()
        count = len(writer.commits)
        eventually(lambda: len(writer.commits) > count + 20)
    assert {commit.server for commit in writer.commits} == {"db1", "db2"}
    nothing_lost(writer, "db2")
    assert {name: cluster.sql(name, "SELECT pg_postmaster_start_time()") for name in ("db2", "db3")} == made
    assert {name: may_make_keys(cluster, name) for name in cluster.names} == {"db1": False, "db2": True, "db3": False}
    whole(cluster, "db2")


def test_clients_go_on_by_the_connection_string_that_they_have(cluster: Cluster) -> None:
    """With psycopg all the time, and with libpq's own psql afterwards."""
    workspace, before = cluster.workspace, primary(cluster)
    after = "db2" if before == "db1" else "db1"
    cluster.sql(
        before, "DROP ROLE IF EXISTS app; CREATE ROLE app LOGIN PASSWORD 'of app'; GRANT INSERT ON written TO app"
    )
    cluster.sql(before, "TRUNCATE written")

    def dsn(name: str) -> str:
        return make_conninfo(workspace.run("stack", "output", name).text.strip(), user="app", password="of app")

    known, stop, answers = dsn("readWriteDsn"), threading.Event(), list[int]()

    def write() -> None:
        number = 0
        while not stop.wait(0.005):
            with suppress(psycopg.Error), psycopg.connect(known, autocommit=True) as session:
                while not stop.wait(0.005):
                    number += 1
                    session.execute("INSERT INTO written VALUES (%s)", [number])
                    answers.append(session.info.port)

    with ThreadPoolExecutor(1) as pool:
        client = pool.submit(write)
        try:
            eventually(lambda: len(answers) > 20)
            declare(cluster, after)
            workspace.up_well()
            eventually(lambda: answers.count(cluster.ports[after]) > 20)
        finally:
            stop.set()
        client.result(timeout=30)
    assert set(answers) == {cluster.ports[before], cluster.ports[after]}
    assert dsn("readWriteDsn") == known
    for name, recovering in {"readWriteDsn": "f", "readOnlyDsn": "t"}.items():
        command = [str(cluster.binaries / "psql"), "-XAt", dsn(name), "-c", "SELECT pg_is_in_recovery()"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == recovering
    whole(cluster, after)


def told(preview: Output) -> list[str]:
    """What each server goes through."""
    lines = {re.sub(r"\d+ bytes", "… bytes", line.strip()) for line in preview.text.splitlines()}
    return sorted(line for line in lines if re.match(r"db\d: ", line))


SAMPLE = {
    (False, "stop", "the command"),
    (False, "promotion", "the provider"),
    (False, "promotion", "the next primary"),
    (True, "stop", "the former primary"),
    (True, "stop", "the next primary"),
    (True, "promotion", "Vault"),
}
"""Whether commits wait for a standby, where, what: rows for every run."""
TRIALS = [
    pytest.param(
        *(synchronous, step, victim),
        id=f"{victim} at {step}, {'synchronous' if synchronous else 'asynchronous'}",
        marks=() if (synchronous, step, victim) in SAMPLE else pytest.mark.soak,
    )
    for synchronous in (False, True)
    for step in STEPS
    if step != BETWEEN_CONTAINERS
    for victim in VICTIMS
]


@pytest.mark.parametrize(("synchronous", "step", "victim"), TRIALS)
def test_killed_at_any_step_it_goes_on_and_loses_nothing(
    cluster: Cluster,
    synchronous: bool,  # noqa: FBT001
    step: str,
    victim: str,
    record_property: Callable[[str, object], None],
) -> None:
    waits(cluster, synchronous=synchronous)
    switch, writer = killed(cluster, step, VICTIMS[victim])
    for name, value in figures(writer, switch.new).items():
        record_property(name, value)
    nothing_lost(writer, switch.new)
    whole(cluster, switch.new)


@pytest.mark.soak
def test_a_primary_that_dies_in_it_for_good_loses_nothing_that_a_standby_was_waited_for(cluster: Cluster) -> None:
    """Somebody accepts the loss, for the stack cannot know that there is none."""
    waits(cluster, synchronous=True)
    workspace, switch = cluster.workspace, Switch(cluster)
    cluster.sql(switch.old, "TRUNCATE written")
    switch.declare()
    with writing(cluster, SERVERS) as writer:
        eventually(lambda: len(writer.commits) > ENOUGH)
        _, done = interrupted(
            cluster, STEPS["checkpoint"], lambda engine: VICTIMS["the former primary"](switch, engine)
        )
        assert done
        strays_gone(cluster)
        if not in_recovery(cluster, switch.new):
            pytest.skip("it was killed too late: it had stopped")
        refused = workspace.up()
        assert f"TDE_REPLICATION_ACCEPT_LOSS={switch.new} pulumi up" in refused.text
        workspace.environment["TDE_REPLICATION_ACCEPT_LOSS"] = switch.new
        try:
            workspace.up()  # the former primary's directory is looked at once another server is the primary
        finally:
            del workspace.environment["TDE_REPLICATION_ACCEPT_LOSS"]
        workspace.up_well()
    assert {commit.server for commit in writer.commits} == {switch.old, switch.new}
    nothing_lost(writer, switch.new)
    whole(cluster, switch.new)


def test_interrupted_it_can_go_back(cluster: Cluster) -> None:
    workspace, switch = cluster.workspace, Switch(cluster)
    switch.declare()
    _, done = interrupted(cluster, STEPS["stop"], lambda engine: VICTIMS["the command"](switch, engine))
    assert done
    strays_gone(cluster)
    workspace.unlock()
    back = switch.new
    if cluster.running(switch.new) and in_recovery(cluster, switch.new):
        declare(cluster, switch.old)
        back = switch.old
    workspace.up_well()
    whole(cluster, back)


def test_it_is_taken_away_in_the_middle_of_a_switchover(cluster: Cluster) -> None:
    """Last: it is gone then."""
    workspace, switch = cluster.workspace, Switch(cluster)
    switch.declare()
    _, done = interrupted(cluster, STEPS["stop"], lambda engine: VICTIMS["the command"](switch, engine))
    assert done
    strays_gone(cluster)
    workspace.unlock()
    destroyed = workspace.destroy()
    assert destroyed.code == 0, destroyed.errors
    assert [name for name in SERVERS if cluster.running(name) or cluster.data(name).exists()] == []
    declare(cluster, switch.old)
